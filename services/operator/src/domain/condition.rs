//! Conditions of a status: what is said anew, and what stays as it was.

use super::problem::Problem;
use crate::crd::Condition;

/// The registry has the object as it is declared.
pub const ACCEPTED: &str = "Accepted";
/// Everything that the object asks for is there.
pub const READY: &str = "Ready";
/// The device is connected, as far as the status is up to date.
pub const CONNECTED: &str = "Connected";

/// What is to be said under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: &'static str,
    pub truth: Truth,
    pub reason: String,
    pub message: String,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

impl Verdict {
    pub fn holds(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, truth: Truth::True, reason: reason.to_owned(), message: message.into() }
    }

    pub fn fails(kind: &'static str, problem: &Problem) -> Self {
        let Problem { reason, message } = problem.clone();
        Self { kind, truth: Truth::False, reason: reason.to_owned(), message }
    }

    /// What a condition has said before.
    pub fn again(kind: &'static str, said: &Condition) -> Self {
        let truth = match said.status.as_str() {
            "True" => Truth::True,
            "False" => Truth::False,
            _ => Truth::Unknown,
        };
        Self { kind, truth, reason: said.reason.clone(), message: said.message.clone() }
    }

    pub fn unknown(kind: &'static str, problem: &Problem) -> Self {
        Self { truth: Truth::Unknown, ..Self::fails(kind, problem) }
    }
}

/// The conditions of the spec's `generation` at `now` (RFC 3339): a time of transition stays where the status does.
pub fn conditions(former: &[Condition], verdicts: &[Verdict], generation: i64, now: &str) -> Vec<Condition> {
    let condition = |verdict: &Verdict| {
        let status = verdict.truth.as_str();
        let same = find(former, verdict.kind).filter(|condition| condition.status == status);
        let since = same.map_or(now, |condition| condition.last_transition_time.as_str());
        Condition {
            kind: verdict.kind.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.clone(),
            message: verdict.message.clone(),
            last_transition_time: since.to_owned(),
            observed_generation: Some(generation),
        }
    };
    verdicts.iter().map(condition).collect()
}

/// What is said now, and beside it what `former` says under other names: a status is written whole, so they would be lost.
pub fn with_others(mut now: Vec<Condition>, former: &[Condition]) -> Vec<Condition> {
    let others: Vec<Condition> = former.iter().filter(|was| find(&now, &was.kind).is_none()).cloned().collect();
    now.extend(others);
    now
}

/// The condition of this name.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Whether the registry has had this generation of the object as it was declared: what differs now was changed elsewhere.
pub fn was_accepted(conditions: &[Condition], generation: i64) -> bool {
    find(conditions, ACCEPTED).is_some_and(|c| c.status == "True" && c.observed_generation == Some(generation))
}

/// Whether it is known of this generation whether the registry has it, or that nobody could be asked.
pub fn is_told(conditions: &[Condition], generation: i64) -> bool {
    find(conditions, ACCEPTED).is_some_and(|c| c.observed_generation == Some(generation))
}

/// Conditions that speak of trouble which they have not spoken of before: what an Event is for. A device that is away is none.
pub fn new_trouble<'a>(former: &[Condition], now: &'a [Condition]) -> Option<&'a Condition> {
    let is_new = |condition: &&Condition| {
        condition.status == "False"
            && condition.kind != CONNECTED
            && find(former, &condition.kind)
                .is_none_or(|was| (&was.status, &was.reason) != (&condition.status, &condition.reason))
    };
    now.iter().find(is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_transition_stays_while_the_status_does() {
        let good = [Verdict::holds(ACCEPTED, "Registered", "as declared")];
        let first = conditions(&[], &good, 1, "t1");
        let second = conditions(&first, &good, 2, "t2");
        assert_eq!(second[0].last_transition_time, "t1");
        assert_eq!(second[0].observed_generation, Some(2));
        let bad = [Verdict::fails(ACCEPTED, &Problem::new("Invalid", "spec.sql: expected FROM"))];
        let third = conditions(&second, &bad, 2, "t3");
        assert_eq!((third[0].status.as_str(), third[0].last_transition_time.as_str()), ("False", "t3"));
    }

    #[test]
    fn trouble_is_new_once() {
        let bad = |reason| [Verdict::fails(ACCEPTED, &Problem::new(reason, "m"))];
        let first = conditions(&[], &bad("Invalid"), 1, "t");
        assert!(new_trouble(&[], &first).is_some());
        assert!(new_trouble(&first, &conditions(&first, &bad("Invalid"), 2, "u")).is_none());
        assert!(new_trouble(&first, &conditions(&first, &bad("NotOurs"), 2, "u")).is_some());
        let good = conditions(&[], &[Verdict::holds(ACCEPTED, "Registered", "")], 1, "t");
        assert!(new_trouble(&[], &good).is_none());
        let away = [Verdict::fails(CONNECTED, &Problem::new("NeverSeen", "m"))];
        assert!(new_trouble(&[], &conditions(&[], &away, 1, "t")).is_none());
    }

    #[test]
    fn accepted_is_said_of_a_generation() {
        let good = conditions(&[], &[Verdict::holds(ACCEPTED, "Registered", "")], 3, "t");
        assert!(was_accepted(&good, 3) && !was_accepted(&good, 4) && !was_accepted(&[], 3));
        let unknown = conditions(&[], &[Verdict::unknown(ACCEPTED, &Problem::new("Unavailable", ""))], 3, "t");
        assert!(is_told(&good, 3) && is_told(&unknown, 3) && !was_accepted(&unknown, 3));
        assert!(!is_told(&good, 4) && !is_told(&[], 3));
    }
}
