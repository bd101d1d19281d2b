//! Rule, Policy and Function objects: what they declare, and what is said of a rule that runs.

use drover_types::object::{FunctionSpec, PolicySpec, RuleSpec};
use drover_types::{ApiError, TenantId};
use kube::ResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::condition::{READY, Verdict};
use super::device::Due;
use super::problem::Problem;
use super::time;
use crate::crd::{Function, Policy, Rule, RuleLastError, RuleStatus};
use crate::ports::{RuleRun, Wanted};

/// Reason of a rule that the rules service will take up soon.
pub const PENDING: &str = "Pending";

/// What a Rule declares.
pub fn rule(rule: &Rule, owner: &str) -> Result<Wanted<RuleSpec>, ApiError> {
    let spec: RuleSpec = same_shape(&rule.spec)?;
    spec.check()?;
    wanted(rule, spec, owner)
}

/// What a Policy declares.
pub fn policy(policy: &Policy, owner: &str) -> Result<Wanted<PolicySpec>, ApiError> {
    wanted(policy, same_shape(&policy.spec)?, owner)
}

/// What a Function declares.
pub fn function(function: &Function, owner: &str) -> Result<Wanted<FunctionSpec>, ApiError> {
    let spec: FunctionSpec = same_shape(&function.spec)?;
    spec.check()?;
    wanted(function, spec, owner)
}

/// The tenant of an object: a namespace is one.
pub fn tenant(object: &impl ResourceExt) -> Result<TenantId, ApiError> {
    let namespace = object.namespace().unwrap_or_default();
    TenantId::new(namespace).map_err(|e| ApiError::invalid("metadata.namespace", e.to_string()))
}

fn wanted<S>(object: &impl ResourceExt, spec: S, owner: &str) -> Result<Wanted<S>, ApiError> {
    let (tenant, name) = (tenant(object)?, object.name_any());
    Ok(Wanted { tenant, name, labels: object.labels().clone(), spec, owner: owner.to_owned() })
}

/// A resource as the platform's own type, whose shape it has.
fn same_shape<T: DeserializeOwned>(spec: &impl Serialize) -> Result<T, ApiError> {
    let value = serde_json::to_value(spec).expect("a spec is plain data");
    serde_json::from_value(value).map_err(|error| ApiError::invalid("spec", error.to_string()))
}

/// Whether the rules service runs this `generation` of the registry's rule.
pub fn runs(run: Option<&RuleRun>, generation: u64) -> Verdict {
    match run {
        Some(run) if run.generation >= generation && run.accepted => {
            Verdict::holds(READY, "Running", "the rules service runs it")
        }
        Some(run) if run.generation >= generation => {
            let refused = Problem::new("Refused", format!("{}: {}", run.reason, run.message));
            Verdict::fails(READY, &refused)
        }
        Some(_) | None => Verdict::unknown(READY, &Problem::new(PENDING, "the rules service has not taken it up yet")),
    }
}

/// The numbers of a status.
pub fn numbers(status: &mut RuleStatus, run: &RuleRun) {
    status.matched = Some(run.matched.to_string());
    status.emitted = Some(run.emitted.to_string());
    status.failed = Some(run.failed.to_string());
    status.dropped = Some(run.dropped.to_string());
    status.lag = Some(run.lag.to_string());
    status.lag_seconds = Some(i64::try_from(run.lag_ms / 1_000).unwrap_or(i64::MAX));
    status.last_error = run.last_error.as_ref().map(|error| RuleLastError {
        time: time::rfc3339(error.time_ms),
        message: error.message.clone(),
        topic: error.topic.clone(),
        sample: Some(error.sample.clone()),
        source: Some(error.source.clone()),
    });
}

/// When `status` is to take the place of `former`: at once if it speaks of the spec or says that the rule runs or does
/// not, for mere numbers not before `interval_ms` after the last write (`None`: not known to this process).
pub fn due(former: &RuleStatus, status: &RuleStatus, written_ms: Option<u64>, interval_ms: u64, now_ms: u64) -> Due {
    if former.conditions != status.conditions || former.observed_generation != status.observed_generation {
        return Due::Now;
    }
    if former == status {
        return Due::Never;
    }
    match written_ms.map_or(0, |written| (written + interval_ms).saturating_sub(now_ms)) {
        0 => Due::InTurn,
        // A clock that was set back must not make a rule wait for longer than it would have.
        wait_ms => Due::InMs(wait_ms.min(interval_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::condition::Truth;
    use super::*;

    #[test]
    fn a_rule_runs_once_its_generation_was_taken_up() {
        let run = |generation, accepted| RuleRun {
            generation,
            accepted,
            reason: "TopicMissing".into(),
            message: "topic t does not exist".into(),
            ..RuleRun::default()
        };
        assert_eq!(runs(None, 1).truth, Truth::Unknown);
        assert_eq!(runs(Some(&run(1, true)), 2).truth, Truth::Unknown);
        assert_eq!(runs(Some(&run(2, true)), 2).truth, Truth::True);
        let refused = runs(Some(&run(2, false)), 2);
        assert_eq!((refused.truth, refused.message.as_str()), (Truth::False, "TopicMissing: topic t does not exist"));
    }

    #[test]
    fn numbers_alone_are_written_at_most_once_in_an_interval() {
        let former = RuleStatus { matched: Some("1".into()), observed_generation: Some(1), ..RuleStatus::default() };
        let more = RuleStatus { matched: Some("2".into()), ..former.clone() };
        let newer = RuleStatus { observed_generation: Some(2), ..former.clone() };
        assert_eq!(due(&former, &former, None, 600, 1_000), Due::Never);
        assert_eq!(due(&former, &more, None, 600, 1_000), Due::InTurn);
        assert_eq!(due(&former, &more, Some(401), 600, 1_000), Due::InMs(1));
        assert_eq!(due(&former, &more, Some(400), 600, 1_000), Due::InTurn);
        assert_eq!(due(&former, &newer, Some(999), 600, 1_000), Due::Now);
    }

    #[test]
    fn what_is_declared_wrongly_is_refused_by_field() {
        let object = serde_json::json!({
            "apiVersion": "drover.dev/v1alpha1", "kind": "Rule",
            "metadata": {"name": "r", "namespace": "home"},
            "spec": {"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": "drover.x"}}]},
        });
        let refused = rule(&serde_json::from_value(object).expect("a Rule"), "k").expect_err("internal topic");
        assert_eq!(refused.field.as_deref(), Some("spec.actions[0].kafka.topic"));
    }
}
