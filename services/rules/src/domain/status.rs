//! How each rule is doing: what this process did with it since it started.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_bus::{Position, Stored};
use drover_types::{Telemetry, TenantId};

use super::letters::clip;

/// Which rule.
pub type RuleKey = (TenantId, String);

/// The states of all rules this process has seen. Shared between feed, engine and server.
#[derive(Debug, Default)]
pub struct Board(Mutex<HashMap<RuleKey, RuleState>>);

/// One rule's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleState {
    pub generation: u64,
    pub accepted: Condition,
    pub counts: RuleTally,
    /// Open groups of a rule that has some.
    pub groups: u64,
}

/// What a rule did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTally {
    /// Messages for which the condition was true.
    pub matched: u64,
    /// Records handed to outputs: one for each action of a row.
    pub emitted: u64,
    /// Rows or actions that failed.
    pub failed: u64,
    /// Messages left out, as they came after their window had been closed.
    pub dropped: u64,
    pub last_error: Option<LastError>,
    /// By number; the error action is the last of all.
    pub actions: BTreeMap<u32, ActionTally>,
}

/// What one action did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionTally {
    /// Records handed to outputs and to the outbox.
    pub emitted: u64,
    /// Entries of the outbox that were carried out.
    pub delivered: u64,
    /// Times that one was tried and has to be tried again.
    pub retried: u64,
    /// Rows for which it failed for good.
    pub failed: u64,
}

impl RuleTally {
    /// The tally of an action.
    pub fn action(&mut self, number: u32) -> &mut ActionTally {
        self.actions.entry(number).or_default()
    }
}

/// Whether the rule is in force, and if not, why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    pub holds: bool,
    /// One word in camel case.
    pub reason: String,
    pub message: String,
    /// When `holds` last changed, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What went wrong last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastError {
    /// When the message was received; 0 if it is not one message's.
    pub time_ms: u64,
    pub message: String,
    /// Topic of the message that failed.
    pub topic: String,
    /// The beginning of its payload, as text.
    pub sample: String,
    /// Where it stands: `topic/partition/offset`.
    pub source: String,
}

/// Longest piece of a payload that is shown, in characters.
const SAMPLE_CHARS_MAX: usize = 256;

impl LastError {
    /// About no message in particular; the cause is clipped.
    pub fn of_none(cause: &str) -> Self {
        Self { message: clip(cause).into_owned(), ..Self::default() }
    }

    /// About a message.
    pub fn of(source: &Stored, telemetry: &Telemetry, cause: &str) -> Self {
        Self { time_ms: telemetry.time_ms, topic: telemetry.topic.to_string(), ..Self::of_record(source, cause) }
    }

    /// About a record that need not be a message.
    pub fn of_record(source: &Stored, cause: &str) -> Self {
        let Stored { position: Position { at, offset }, record } = source;
        // Four bytes a character at most: a long payload is not read to its end.
        let payload = record.value.as_deref().unwrap_or_default();
        let payload = String::from_utf8_lossy(&payload[..payload.len().min(4 * SAMPLE_CHARS_MAX)]);
        Self {
            time_ms: record.timestamp_ms.unsigned_abs(),
            message: clip(cause).into_owned(),
            topic: String::new(),
            sample: payload.chars().take(SAMPLE_CHARS_MAX).collect(),
            source: format!("{}/{}/{offset}", at.topic, at.partition),
        }
    }
}

impl Board {
    /// A generation of a rule was looked at; its counters go on.
    pub fn observed(&self, key: RuleKey, generation: u64, accepted: Condition) {
        let mut states = self.states();
        let state = states.entry(key).or_default();
        let since_ms = if state.generation > 0 && state.accepted.holds == accepted.holds {
            state.accepted.since_ms
        } else {
            accepted.since_ms
        };
        state.generation = generation;
        state.accepted = Condition { since_ms, ..accepted };
    }

    /// The rule is gone.
    pub fn removed(&self, key: &RuleKey) {
        self.states().remove(key);
    }

    /// Adds what a committed batch did; rules deleted meanwhile are left out.
    pub fn add(&self, key: &RuleKey, tally: &RuleTally) {
        if let Some(state) = self.states().get_mut(key) {
            let counts = &mut state.counts;
            counts.matched += tally.matched;
            counts.emitted += tally.emitted;
            counts.failed += tally.failed;
            counts.dropped += tally.dropped;
            for (number, did) in &tally.actions {
                let action = counts.action(*number);
                action.emitted += did.emitted;
                action.delivered += did.delivered;
                action.retried += did.retried;
                action.failed += did.failed;
            }
            counts.last_error = tally.last_error.clone().or(counts.last_error.take());
        }
    }

    /// How many groups each rule has open now; those that are not named have none.
    pub fn groups(&self, open: &HashMap<RuleKey, usize>) {
        for (key, state) in self.states().iter_mut() {
            state.groups = open.get(key).map_or(0, |groups| *groups as u64);
        }
    }

    /// The state of a rule; `None` if it was not seen.
    pub fn get(&self, key: &RuleKey) -> Option<RuleState> {
        self.states().get(key).cloned()
    }

    fn states(&self) -> MutexGuard<'_, HashMap<RuleKey, RuleState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
