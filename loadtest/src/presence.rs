//! What the lifecycle events of a log say of each client, one after the other: they must not contradict themselves (P4).
//!
//! The rule: a client's first event is that it is connected; the end of a connection follows its beginning, with the same
//! epoch; a beginning follows an end, with a higher one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::books::ConsumerVerdict;

/// What is read of an event, as `drover.events` and `$events/presence/…` have it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event_type: EventType,
    tenant: String,
    client_id: String,
    epoch: u64,
}

#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventType {
    Connected,
    Disconnected,
}

/// What an event says of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether a connection has begun, or ended.
    pub connected: bool,
    /// Of that connection.
    pub epoch: u64,
}

/// How an event does not follow from what was told of its client before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// Another event is missing before it.
    Lost,
    Doubled,
    /// It is told behind a later one.
    Reordered,
}

/// The rule: whether an event contradicts the one before of its client; `before` is absent for a client's first.
pub fn contradiction(before: Option<Told>, now: Told) -> Option<Contradiction> {
    let Some(before) = before else { return (!now.connected).then_some(Contradiction::Lost) };
    match now.place().cmp(&before.place()) {
        Ordering::Less => Some(Contradiction::Reordered),
        Ordering::Equal => Some(Contradiction::Doubled),
        Ordering::Greater => {
            let follows = now.connected != before.connected && (now.connected || now.epoch == before.epoch);
            (!follows).then_some(Contradiction::Lost)
        }
    }
}

impl Told {
    /// Where an event stands among those of its client: the end of a connection is right behind its beginning.
    fn place(self) -> (u64, bool) {
        (self.epoch, !self.connected)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.connected { "connected" } else { "disconnected" };
        write!(f, "{word} (epoch {})", self.epoch)
    }
}

/// Contradictions of one kind: how many, and the first of them.
#[derive(Default)]
struct Cases {
    count: u64,
    first: Option<String>,
}

impl Cases {
    fn add(&mut self, told: String) {
        self.count += 1;
        self.first.get_or_insert(told);
    }
}

/// All that was told.
#[derive(Default)]
pub struct Presence {
    /// The latest event, by tenant and client.
    last: BTreeMap<(String, String), Told>,
    /// Clients that were told to be connected once, whatever their tenant.
    clients: BTreeSet<String>,
    events: u64,
    /// Events that are missing between two others, or before the first.
    lost: Cases,
    doubled: Cases,
    /// Events that are told behind later ones.
    reordered: Cases,
}

impl Presence {
    /// Takes in a line of the log. What is no event is passed by.
    pub fn take(&mut self, line: &str) {
        let Ok(Event { event_type, tenant, client_id, epoch }) = serde_json::from_str(line) else { return };
        let now = Told { connected: event_type == EventType::Connected, epoch };
        self.events += 1;
        if now.connected {
            self.clients.insert(client_id.clone());
        }
        let key = (tenant, client_id);
        let before = self.last.get(&key).copied();
        let kind = contradiction(before, now);
        if let Some(kind) = kind {
            let cases = match kind {
                Contradiction::Lost => &mut self.lost,
                Contradiction::Doubled => &mut self.doubled,
                Contradiction::Reordered => &mut self.reordered,
            };
            let behind = before.map_or_else(|| "first".to_owned(), |before| format!("after {before}"));
            cases.add(format!("{} {now} {behind}", key.1));
        }
        // What comes late is counted once: the next event is held against the latest that was told.
        if kind != Some(Contradiction::Reordered) {
            self.last.insert(key, now);
        }
    }

    /// What is said to `consumer`, who is promised that each of `clients` was told of.
    pub fn verdict(mut self, consumer: &str, exactly_once: bool, clients: &[String]) -> ConsumerVerdict {
        for client in clients.iter().filter(|client| !self.clients.contains(*client)) {
            self.lost.add(format!("{client} never connected"));
        }
        let mut statement = format!("{} events of {} clients", self.events, self.last.len());
        for (kind, cases) in [("lost", &self.lost), ("doubled", &self.doubled), ("reordered", &self.reordered)] {
            if let Some(first) = &cases.first {
                statement += &format!("; {} {kind}, first: {first}", cases.count);
            }
        }
        ConsumerVerdict {
            consumer: consumer.to_owned(),
            exactly_once,
            lost: self.lost.count,
            doubled: self.doubled.count,
            reordered: self.reordered.count,
            unexpected: 0,
            misversioned: 0,
            statement,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: &str, client: &str, epoch: u64) -> String {
        format!(
            r#"{{"eventType":"{event_type}","tenant":"t","device":"d","clientId":"{client}","timestamp":1,"epoch":{epoch}}}"#
        )
    }

    /// The verdict on a client's events, given by the letters of their types, and epochs.
    fn judged(events: &[(char, u64)]) -> ConsumerVerdict {
        let mut presence = Presence::default();
        for (letter, epoch) in events {
            presence.take(&event(if *letter == 'c' { "connected" } else { "disconnected" }, "c", *epoch));
        }
        presence.verdict("log", true, &[])
    }

    #[test]
    fn connections_that_begin_and_end_one_after_the_other_contradict_nothing() {
        let verdict = judged(&[('c', 1), ('d', 1), ('c', 5), ('d', 5), ('c', 6)]);
        assert!(verdict.is_kept(), "{}", verdict.statement);
        assert_eq!(verdict.statement, "5 events of 1 clients");
    }

    #[test]
    fn whatever_contradicts_is_counted_by_its_kind_with_the_first_as_an_example() {
        type Case = (&'static [(char, u64)], [u64; 3]);
        let cases: [Case; 9] = [
            (&[('d', 1)], [1, 0, 0]),
            (&[('c', 1), ('c', 2)], [1, 0, 0]),
            (&[('c', 1), ('d', 2)], [1, 0, 0]),
            (&[('c', 1), ('d', 1), ('d', 2)], [1, 0, 0]),
            (&[('c', 1), ('c', 1)], [0, 1, 0]),
            (&[('c', 1), ('d', 1), ('d', 1)], [0, 1, 0]),
            (&[('c', 1), ('d', 1), ('c', 1)], [0, 0, 1]),
            (&[('c', 2), ('d', 1)], [0, 0, 1]),
            (&[('c', 2), ('d', 1), ('d', 2), ('c', 3)], [0, 0, 1]),
        ];
        for (events, counts) in cases {
            let verdict = judged(events);
            assert_eq!([verdict.lost, verdict.doubled, verdict.reordered], counts, "{events:?}");
            assert!(!verdict.is_kept(), "{events:?}");
        }
        let told = judged(&[('c', 1), ('c', 2), ('c', 3)]).statement;
        assert_eq!(told, "3 events of 1 clients; 2 lost, first: c connected (epoch 2) after connected (epoch 1)");
    }

    #[test]
    fn clients_are_told_apart_by_their_tenants_and_one_that_was_never_told_of_is_lost() {
        let mut presence = Presence::default();
        presence.take(&event("connected", "c", 2));
        presence.take(&event("connected", "c", 1).replace(r#""tenant":"t""#, r#""tenant":"u""#));
        presence.take("no event");
        let verdict = presence.verdict("log", true, &["c".to_owned(), "e".to_owned()]);
        assert_eq!(verdict.statement, "2 events of 2 clients; 1 lost, first: e never connected");
    }
}
