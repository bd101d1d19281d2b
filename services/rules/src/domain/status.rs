//! How each rule is doing: what this process did with it since it started.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_types::TenantId;

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
    /// Messages whose row was emitted.
    pub matched: u64,
    pub failed: u64,
    pub last_error: Option<LastError>,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub time_ms: u64,
    pub message: String,
    /// Topic of the message that failed.
    pub topic: String,
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
    pub fn add(&self, key: &RuleKey, matched: u64, errors: &[LastError]) {
        if let Some(state) = self.states().get_mut(key) {
            state.matched += matched;
            state.failed += errors.len() as u64;
            state.last_error = errors.last().cloned().or(state.last_error.take());
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
