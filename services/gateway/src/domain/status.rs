//! `status` of objects: what the registry and the rules service observed, as people and programs read it.
//!
//! Domain layer, no I/O.

use std::collections::BTreeMap;

use drover_proto::registry::v1::Presence;
use drover_proto::rules::v1 as wire;
use serde::Serialize;
use serde_json::{Value, json};

use super::declared::iso;

/// In which state a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Phase {
    Connected,
    Disconnected,
    NeverSeen,
    Disabled,
}

impl Phase {
    /// Its name in the REST interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "Connected",
            Self::Disconnected => "Disconnected",
            Self::NeverSeen => "NeverSeen",
            Self::Disabled => "Disabled",
        }
    }

    /// What people read.
    pub fn title(self) -> &'static str {
        match self {
            Self::NeverSeen => "Never connected",
            Self::Connected | Self::Disconnected | Self::Disabled => self.name(),
        }
    }

    /// The phase of a device that is `enabled`: of its last connection as `presence` says, and whether a message of it
    /// is known, which needs no connection.
    pub fn of(enabled: bool, presence: &Presence, heard_ms: Option<u64>) -> Self {
        match (enabled, last_seen_ms(presence, heard_ms).is_some(), presence.connected) {
            (false, _, _) => Self::Disabled,
            (true, false, _) => Self::NeverSeen,
            (true, true, true) => Self::Connected,
            (true, true, false) => Self::Disconnected,
        }
    }
}

/// When a device was last seen, milliseconds since the Unix epoch: when it last connected or disconnected, or its last
/// message came, whichever is later. `None`: never.
pub fn last_seen_ms(presence: &Presence, heard_ms: Option<u64>) -> Option<u64> {
    presence.ever_seen.then_some(presence.changed_ms).max(heard_ms)
}

/// `status` of a device, whose last known message came at `heard_ms`.
pub fn device(enabled: bool, presence: &Presence, heard_ms: Option<u64>) -> Value {
    let mut status = json!({"phase": Phase::of(enabled, presence, heard_ms)});
    if let Some(last_seen_ms) = last_seen_ms(presence, heard_ms) {
        status["lastSeen"] = iso(last_seen_ms).into();
    }
    status
}

/// `status` of a rule. Counts are text, because they may pass what JSON readers keep exactly.
pub fn rule(status: wire::RuleStatus) -> Value {
    let conditions: Vec<Value> = status.conditions.iter().map(condition).collect();
    let actions: Vec<Value> = status.actions.iter().map(action).collect();
    let offsets = status.effective_from.iter();
    let offsets: BTreeMap<String, String> = offsets.map(|(at, offset)| (at.to_string(), offset.to_string())).collect();
    let mut json = json!({
        "conditions": conditions,
        "actions": actions,
        "observedGeneration": status.observed_generation,
        "effectiveFrom": offsets,
        "matched": status.matched.to_string(),
        "emitted": status.emitted.to_string(),
        "failed": status.failed.to_string(),
        "dropped": status.dropped.to_string(),
        "groups": status.groups.to_string(),
        "lag": status.lag.to_string(),
        "lagSeconds": status.lag_ms / 1_000,
    });
    if let Some(error) = status.last_error {
        json["lastError"] = json!({"time": iso(error.time_ms), "message": error.message, "topic": error.topic,
            "sample": error.sample, "source": error.source});
    }
    json
}

/// What two replicas of the rules service say of one rule: the older generation, since both have to work by it, what is
/// wrong in one of them, and what both have done.
pub fn merged(one: Option<wire::RuleStatus>, other: Option<wire::RuleStatus>) -> Option<wire::RuleStatus> {
    let (one, other) = match (one, other) {
        (Some(one), Some(other)) => (one, other),
        (one, other) => return one.or(other),
    };
    let holds = |status: &wire::RuleStatus| status.conditions.iter().all(|condition| condition.status == "True");
    let error_ms = |status: &wire::RuleStatus| status.last_error.as_ref().map(|error| error.time_ms);
    let observed_generation = one.observed_generation.min(other.observed_generation);
    let observed = [&one, &other].into_iter().filter(|status| status.observed_generation == observed_generation);
    Some(wire::RuleStatus {
        actions: merged_actions(&one.actions, &other.actions),
        effective_from: observed.flat_map(|status| status.effective_from.clone()).collect(),
        observed_generation,
        matched: one.matched + other.matched,
        failed: one.failed + other.failed,
        emitted: one.emitted + other.emitted,
        dropped: one.dropped + other.dropped,
        groups: one.groups + other.groups,
        lag: one.lag.max(other.lag),
        lag_ms: one.lag_ms.max(other.lag_ms),
        conditions: if holds(&one) { other.conditions.clone() } else { one.conditions.clone() },
        last_error: if error_ms(&one) >= error_ms(&other) { one.last_error } else { other.last_error },
    })
}

/// Both lists of what actions did, added up by number.
fn merged_actions(one: &[wire::ActionStatus], other: &[wire::ActionStatus]) -> Vec<wire::ActionStatus> {
    let mut sums = BTreeMap::<u32, wire::ActionStatus>::new();
    for did in one.iter().chain(other) {
        let sum = sums.entry(did.action).or_default();
        sum.action = did.action;
        sum.emitted += did.emitted;
        sum.delivered += did.delivered;
        sum.retried += did.retried;
        sum.failed += did.failed;
    }
    sums.into_values().collect()
}

fn action(did: &wire::ActionStatus) -> Value {
    let name = if did.action == u32::MAX { "error".into() } else { Value::from(did.action) };
    json!({"action": name, "emitted": did.emitted.to_string(), "delivered": did.delivered.to_string(),
        "retried": did.retried.to_string(), "failed": did.failed.to_string()})
}

/// `status` of a rule about which the rules service says nothing, and why.
pub fn unknown_rule(reason: &str, message: &str) -> Value {
    json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": reason, "message": message}]})
}

fn condition(condition: &wire::Condition) -> Value {
    let mut json = json!({"type": condition.r#type, "status": condition.status});
    for (name, text) in [("reason", &condition.reason), ("message", &condition.message)] {
        if !text.is_empty() {
            json[name] = text.as_str().into();
        }
    }
    if condition.last_transition_ms > 0 {
        json["lastTransitionTime"] = iso(condition.last_transition_ms).into();
    }
    json
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_devices_phase_follows_from_what_is_known() {
        let seen = Presence { ever_seen: true, connected: true, changed_ms: 1_000, epoch: 1 };
        assert_eq!(device(true, &seen, None), json!({"phase": "Connected", "lastSeen": "1970-01-01T00:00:01Z"}));
        assert_eq!(device(false, &seen, None)["phase"], "Disabled");
        assert_eq!(device(true, &Presence { connected: false, ..seen }, None)["phase"], "Disconnected");
        assert_eq!(device(true, &Presence::default(), None), json!({"phase": "NeverSeen"}));
    }

    #[test]
    fn a_device_was_last_seen_by_its_connection_or_its_message_whichever_is_later() {
        let seen = Presence { ever_seen: true, connected: true, changed_ms: 2_000, epoch: 1 };
        assert_eq!(device(true, &seen, Some(1_000))["lastSeen"], "1970-01-01T00:00:02Z");
        assert_eq!(device(true, &seen, Some(3_000))["lastSeen"], "1970-01-01T00:00:03Z");
        let by_http = json!({"phase": "Disconnected", "lastSeen": "1970-01-01T00:00:03Z"});
        assert_eq!(device(true, &Presence::default(), Some(3_000)), by_http);
    }

    #[test]
    fn replicas_are_told_of_together() {
        let of = |generation, holds: &str, matched, error_ms| wire::RuleStatus {
            observed_generation: generation,
            conditions: vec![wire::Condition { status: holds.into(), ..wire::Condition::default() }],
            matched,
            failed: 1,
            lag: matched,
            lag_ms: matched,
            emitted: matched,
            actions: vec![wire::ActionStatus { action: 1, delivered: matched, ..wire::ActionStatus::default() }],
            effective_from: [(error_ms as u32, matched)].into(),
            last_error: Some(wire::LastError { time_ms: error_ms, ..wire::LastError::default() }),
            ..wire::RuleStatus::default()
        };
        for (one, other) in
            [(of(2, "True", 10, 5), of(3, "False", 20, 7)), (of(3, "False", 20, 7), of(2, "True", 10, 5))]
        {
            let all = merged(merged(None, Some(one)), Some(other)).expect("two have answered");
            assert_eq!((all.observed_generation, all.matched, all.emitted, all.failed), (2, 30, 30, 2));
            assert_eq!((all.lag, all.lag_ms), (20, 20));
            assert_eq!(all.effective_from, HashMap::from([(5, 10)]), "where the other is behind, it is not known yet");
            assert_eq!((all.actions.len(), all.actions[0].action, all.actions[0].delivered), (1, 1, 30));
            assert_eq!((all.conditions[0].status.as_str(), all.last_error.expect("one").time_ms), ("False", 7));
        }
        assert_eq!(merged(None, None), None);
    }

    #[test]
    fn a_rules_counts_are_exact_text() {
        let status = wire::RuleStatus {
            observed_generation: 3,
            effective_from: [(0, 12), (10, u64::MAX)].into(),
            conditions: vec![wire::Condition {
                r#type: "Ready".into(),
                status: "True".into(),
                last_transition_ms: 1_000,
                ..wire::Condition::default()
            }],
            matched: u64::MAX,
            emitted: 5,
            failed: 1,
            dropped: 2,
            groups: 3,
            lag: 9,
            lag_ms: 4_900,
            actions: vec![
                wire::ActionStatus { action: 0, emitted: 5, delivered: 3, retried: 2, failed: 1 },
                wire::ActionStatus { action: u32::MAX, emitted: 1, ..wire::ActionStatus::default() },
            ],
            last_error: Some(wire::LastError {
                time_ms: 2_000,
                message: "no number".into(),
                topic: "a/b".into(),
                sample: "{}".into(),
                source: "drover.telemetry/1/7".into(),
            }),
        };
        assert_eq!(
            rule(status),
            json!({
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"}],
                "actions": [
                    {"action": 0, "emitted": "5", "delivered": "3", "retried": "2", "failed": "1"},
                    {"action": "error", "emitted": "1", "delivered": "0", "retried": "0", "failed": "0"},
                ],
                "observedGeneration": 3,
                "effectiveFrom": {"0": "12", "10": "18446744073709551615"},
                "matched": "18446744073709551615",
                "emitted": "5",
                "failed": "1",
                "dropped": "2",
                "groups": "3",
                "lag": "9",
                "lagSeconds": 4,
                "lastError": {"time": "1970-01-01T00:00:02Z", "message": "no number", "topic": "a/b",
                    "sample": "{}", "source": "drover.telemetry/1/7"},
            })
        );
    }
}
