//! What Device, Rule and Policy have in common: an object of the registry that is to be as declared.

use std::future::Future;

use drover_types::ApiError;
use kube::ResourceExt;

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::status;
use crate::domain::condition::{self, ACCEPTED, READY, Verdict};
use crate::domain::object::{ADOPT, Step, plan};
use crate::domain::problem::{Problem, passes};
use crate::ports::{Found, Wanted};

/// What became of an object.
pub enum Outcome<S> {
    /// The registry has it as declared.
    Registered(Found<S>),
    /// It cannot be so until somebody changes something.
    Refused(Problem),
}

/// Brings the registry's object to what is wanted of it, by `put` over a revision (0: a new one).
pub async fn register<K, S, F>(
    object: &K,
    context: &Context,
    wanted: &Wanted<S>,
    found: Option<Found<S>>,
    put: impl FnOnce(u64) -> F,
) -> Result<Outcome<S>, Failure>
where
    K: Kind,
    S: PartialEq,
    F: Future<Output = Result<Found<S>, ApiError>>,
{
    let accepted = condition::was_accepted(object.conditions(), status::generation(object));
    let adopt = object.annotations().get(ADOPT).is_some_and(|value| value == "true");
    let (revision, drift) = match (plan(wanted, found.as_ref(), accepted, adopt), found) {
        (Step::Nothing, Some(found)) => return Ok(Outcome::Registered(found)),
        (Step::Refuse(problem), _) => return Ok(Outcome::Refused(problem)),
        (Step::Replace { revision, drift }, _) => (revision, drift),
        (Step::Nothing | Step::Create, _) => (0, if accepted { vec!["deleted"] } else { Vec::new() }),
    };
    match put(revision).await {
        Ok(written) => {
            if !drift.is_empty() {
                let note = format!("changed elsewhere and set back: {}", drift.join(", "));
                context.events.warning(object, "Drift", note).await;
                context.telemetry.drift(K::NAME);
            }
            Ok(Outcome::Registered(written))
        }
        Err(error) if passes(&error) => Err(error.into()),
        Err(error) => Ok(Outcome::Refused(Problem::refused(&error))),
    }
}

/// What is said of an object that is refused.
pub fn refused(problem: &Problem) -> [Verdict; 2] {
    [Verdict::fails(ACCEPTED, problem), Verdict::fails(READY, &Problem::new("NotAccepted", "see Accepted"))]
}

/// What is said of an object that the registry has.
pub fn accepted() -> Verdict {
    Verdict::holds(ACCEPTED, "Registered", "the registry has it as declared")
}
