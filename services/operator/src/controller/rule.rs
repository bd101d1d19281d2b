//! Rules: objects of the registry, and whether the rules service runs them.

use std::time::Duration;

use async_trait::async_trait;
use drover_types::object::RuleSpec;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::{Outcome, accepted, refused, register};
use super::{resync, status, uid};
use crate::crd::{Condition, Rule, RuleStatus};
use crate::domain::condition::{self, READY, Verdict};
use crate::domain::device::Due;
use crate::domain::object::is_ours;
use crate::domain::problem::{Problem, told};
use crate::domain::rule as domain;
use crate::ports::Found;

/// How soon a rule is looked at again that the rules service has not taken up yet.
const PENDING_RETRY: Duration = Duration::from_secs(3);

#[async_trait]
impl Kind for Rule {
    const NAME: &'static str = "Rule";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn apply(&self, context: &Context) -> Result<Action, Failure> {
        let mut status = RuleStatus { observed_generation: Some(status::generation(self)), ..RuleStatus::default() };
        let verdicts = match register_rule(self, context).await? {
            Outcome::Refused(problem) => refused(&problem).to_vec(),
            Outcome::Registered(found) => vec![accepted(), runs(self, context, &found, &mut status).await?],
        };
        let pending = verdicts.iter().any(|verdict| verdict.reason == domain::PENDING);
        status.conditions = status::conditions(self, context, &verdicts);
        let former = self.status.clone().unwrap_or_default();
        let (now_ms, interval_ms) = (context.clock.now_ms(), context.config.status_interval.as_millis());
        let is_due = match domain::due(&former, &status, context.written.get(&uid(self)), interval_ms, now_ms) {
            Due::Now => true,
            Due::InTurn => context.may_write(),
            Due::InMs(_) | Due::Never => false,
        };
        if is_due {
            status::write(self, context, &status, &status.conditions).await?;
            context.written.update(uid(self), |_| now_ms);
        }
        Ok(Action::requeue(if pending { PENDING_RETRY } else { resync(self, context) }))
    }

    async fn cleanup(&self, context: &Context) -> Result<(), Failure> {
        let (tenant, name) = (domain::tenant(self)?, self.name_any());
        let found = context.registry.rule(&tenant, &name).await?;
        if is_ours(&context.config.owner, found.as_ref()) {
            context.registry.delete_rule(&tenant, &name).await?;
        }
        Ok(())
    }
}

async fn register_rule(rule: &Rule, context: &Context) -> Result<Outcome<RuleSpec>, Failure> {
    let wanted = match domain::rule(rule, &context.config.owner) {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Outcome::Refused(Problem::refused(&error))),
    };
    let found = context.registry.rule(&wanted.tenant, &wanted.name).await?;
    register(rule, context, &wanted, found, async |revision| context.registry.put_rule(&wanted, revision).await).await
}

/// Whether the rules service runs it, and its numbers.
async fn runs(
    rule: &Rule,
    context: &Context,
    found: &Found<RuleSpec>,
    status: &mut RuleStatus,
) -> Result<Verdict, Failure> {
    match context.rules.run_of(&domain::tenant(rule)?, &rule.name_any()).await {
        Ok(run) => {
            if let Some(run) = &run {
                domain::numbers(status, run);
            }
            Ok(domain::runs(run.as_ref(), found.generation))
        }
        Err(error) => {
            // What it was doing when it could last be asked is still the best that is known: a service that is away for a
            // while is no reason to write the status of every rule.
            let known = rule.status.clone().unwrap_or_default();
            let (conditions, observed_generation) = (Vec::new(), status.observed_generation);
            let said =
                condition::find(&known.conditions, READY).filter(|c| c.observed_generation == observed_generation);
            let unavailable = || Verdict::unknown(READY, &Problem::new("Unavailable", told(&error)));
            let verdict = said.map_or_else(unavailable, |said| Verdict::again(READY, said));
            *status = RuleStatus { conditions, observed_generation, ..known };
            Ok(verdict)
        }
    }
}
