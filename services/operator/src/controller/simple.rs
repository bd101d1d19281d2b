//! Policies and functions: objects of the registry, which are in force once they are there.

use async_trait::async_trait;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::{Outcome, accepted, refused, register};
use super::{refused_wait, resync, status, uid};
use crate::crd::{Condition, Function, FunctionStatus, Policy, PolicyStatus};
use crate::domain::condition::{READY, Verdict};
use crate::domain::object::is_ours;
use crate::domain::problem::Problem;
use crate::domain::rule as domain;

#[async_trait]
impl Kind for Policy {
    const NAME: &'static str = "Policy";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn apply(&self, context: &Context) -> Result<Action, Failure> {
        let outcome = match domain::policy(self, &context.config.owner) {
            Err(error) => Outcome::Refused(Problem::refused(&error)),
            Ok(wanted) => {
                let found = context.registry.policy(&wanted.tenant, &wanted.name).await?;
                let put = async |revision| context.registry.put_policy(&wanted, revision).await;
                register(self, context, &wanted, found, put).await?
            }
        };
        let verdicts = verdicts(&outcome, "InForce", "devices that name it have it");
        let conditions = status::conditions(self, context, &verdicts);
        let status = PolicyStatus { conditions, observed_generation: self.meta().generation };
        if self.status.as_ref() != Some(&status) {
            status::write(self, context, &status, &status.conditions).await?;
        }
        Ok(Action::requeue(resync(self, context)))
    }

    async fn cleanup(&self, context: &Context) -> Result<(), Failure> {
        let (tenant, name) = (domain::tenant(self)?, self.name_any());
        let found = context.registry.policy(&tenant, &name).await?;
        if is_ours(&context.config.owner, found.as_ref()) {
            context.registry.delete_policy(&tenant, &name).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Kind for Function {
    const NAME: &'static str = "Function";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn apply(&self, context: &Context) -> Result<Action, Failure> {
        let outcome = match domain::function(self, &context.config.owner) {
            Err(error) => Outcome::Refused(Problem::refused(&error)),
            Ok(wanted) => {
                let found = context.registry.function(&wanted.tenant, &wanted.name).await?;
                let put = async |revision| context.registry.put_function(&wanted, revision).await;
                register(self, context, &wanted, found, put).await?
            }
        };
        let verdicts = verdicts(&outcome, "Callable", "rules and adapters can call it");
        let conditions = status::conditions(self, context, &verdicts);
        let status = FunctionStatus { conditions, observed_generation: self.meta().generation };
        if self.status.as_ref() != Some(&status) {
            status::write(self, context, &status, &status.conditions).await?;
        }
        if let Outcome::Refused(_) = outcome {
            // Each further try runs the script and its examples.
            let longest = context.config.status_interval.as_std();
            return Ok(Action::requeue(refused_wait(self, context, resync(self, context), longest)));
        }
        context.refusals.forget(&uid(self));
        Ok(Action::requeue(resync(self, context)))
    }

    async fn cleanup(&self, context: &Context) -> Result<(), Failure> {
        let (tenant, name) = (domain::tenant(self)?, self.name_any());
        let found = context.registry.function(&tenant, &name).await?;
        if is_ours(&context.config.owner, found.as_ref()) {
            context.registry.delete_function(&tenant, &name).await?;
        }
        Ok(())
    }
}

/// What is said of an object that needs nothing but to be registered: `reason` and `message` are of `Ready`.
fn verdicts<S>(outcome: &Outcome<S>, reason: &str, message: &str) -> [Verdict; 2] {
    match outcome {
        Outcome::Refused(problem) => refused(problem),
        Outcome::Registered(_) => [accepted(), Verdict::holds(READY, reason, message)],
    }
}
