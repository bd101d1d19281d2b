//! Recognises messages that a device sent again. Every consumer of the telemetry topic uses this one window per
//! partition; it is rebuilt by re-reading the log, so nothing is written for it.
//!
//! A message of QoS 1 or 2 is a repeat if its fingerprint is in its client's window and it either carries the DUP
//! flag or came by another session than the one the fingerprint was last seen in. The comparison is with the session
//! *of the fingerprint*, not with the client's newest: after a reconnect a client sends several unacknowledged
//! messages again, and each must be found although the first has already shown the new epoch. A newer epoch is taken
//! over with the repeat, so that the same packet id with the same payload later in that session is a new message.
//! At QoS 2 a newer epoch says nothing, for the ingress takes each message of a session once; it sets the DUP flag on those
//! whose first sending may be in the log, because a connection or a process ended in between, and clears it on all others.
//! A message that names itself (user property `drover-id`, or the id of a republished record) is a repeat exactly if
//! its name is in the window. In doubt a message is new.
//!
//! Two cases are beyond it. A device that sends the same payload under the same packet id in a new session within the
//! window's time looks like one that sends again, and is taken for that. And an MQTT 3.1.1 client, which knows no receive
//! maximum, may have more messages in flight than the window holds; what it sends again of those comes out twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::{RECEIVE_MAXIMUM, REPEAT_WINDOW_MS};
use crate::{Fingerprint, Qos, Telemetry};

/// User property by which a device names a message, to make recognition exact.
pub const ID_PROPERTY: &str = "drover-id";

/// Most entries of one partition's window, about 100 MB: 3,300 messages a second over 5 minutes.
pub const ENTRIES_MAX: usize = 1_000_000;

/// Whether a message was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    New,
    Repeat,
}

/// What one partition saw lately: per client the last [`RECEIVE_MAXIMUM`] messages within [`REPEAT_WINDOW_MS`].
#[derive(Debug)]
pub struct RepeatWindow {
    clients: HashMap<Arc<str>, VecDeque<Entry>>,
    /// Every entry in the order of its last sighting; holds left-overs of entries seen again since.
    order: VecDeque<(u64, u64, Arc<str>)>,
    entries: usize,
    entries_max: usize,
    next_sequence: u64,
    /// Time of the newest message, milliseconds since the Unix epoch.
    newest_ms: u64,
    counts: Counts,
    /// Where the key of a client is written, to look it up.
    key: String,
}

/// What a window could not decide or keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages with the DUP flag whose first sending is not in the window; taken for new.
    pub doubtful: u64,
    /// Entries that left before their time because the window was full.
    pub crowded_out: u64,
}

#[derive(Debug)]
struct Entry {
    name: [u8; 16],
    epoch: u64,
    sequence: u64,
}

impl Default for RepeatWindow {
    fn default() -> Self {
        Self::with_capacity(ENTRIES_MAX)
    }
}

impl RepeatWindow {
    /// A window of at most `entries_max` entries.
    pub fn with_capacity(entries_max: usize) -> Self {
        Self {
            clients: HashMap::new(),
            order: VecDeque::new(),
            entries: 0,
            entries_max,
            next_sequence: 0,
            newest_ms: 0,
            counts: Counts::default(),
            key: String::new(),
        }
    }

    /// Looks a message up and remembers it. Messages come in the order of their partition.
    pub fn observe(&mut self, message: &Telemetry) -> Verdict {
        self.newest_ms = self.newest_ms.max(message.time_ms);
        self.forget_old();
        let Some(name) = Name::of(message) else {
            return Verdict::New;
        };
        let verdict = self.remember(&name, message);
        if verdict == Verdict::New && message.dup {
            self.counts.doubtful += 1;
        }
        verdict
    }

    /// What could not be decided or kept so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Entries held now.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The key of a client, shared by all that is held of it. With the device: republished records of all devices have their
    /// rule as the client.
    fn client_of(&mut self, message: &Telemetry) -> Arc<str> {
        let Telemetry { tenant, device, client, .. } = message;
        self.key.clear();
        for part in [tenant.as_str(), "/", device.as_str(), "/", client.as_str()] {
            self.key.push_str(part);
        }
        match self.clients.get_key_value(self.key.as_str()) {
            Some((known, _)) => known.clone(),
            None => self.key.as_str().into(),
        }
    }

    fn remember(&mut self, name: &Name, message: &Telemetry) -> Verdict {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let client = self.client_of(message);
        let entries = self.clients.entry(client.clone()).or_default();
        let earlier = entries.iter().position(|e| e.name == name.bytes()).and_then(|i| entries.remove(i));
        let verdict = name.verdict(message, earlier.as_ref());
        let epoch = match (&earlier, verdict) {
            (Some(earlier), Verdict::Repeat) => earlier.epoch.max(message.epoch),
            (Some(_) | None, Verdict::New | Verdict::Repeat) => message.epoch,
        };
        entries.push_back(Entry { name: name.bytes(), epoch, sequence });
        let full = entries.len() > usize::from(RECEIVE_MAXIMUM);
        if full {
            entries.pop_front();
        }
        self.entries += usize::from(earlier.is_none()) - usize::from(full && earlier.is_none());
        // By the latest clock so far: a node whose clock is ahead must not age what others bring at the same time.
        self.order.push_back((self.newest_ms, sequence, client));
        while self.entries > self.entries_max {
            let before = self.entries;
            self.forget_first();
            self.counts.crowded_out += (before - self.entries) as u64;
        }
        if self.order.len() > 2 * self.entries + 1_024 {
            self.sweep();
        }
        verdict
    }

    fn forget_old(&mut self) {
        let oldest_ms = self.newest_ms.saturating_sub(REPEAT_WINDOW_MS);
        while self.order.front().is_some_and(|(time_ms, ..)| *time_ms < oldest_ms) {
            self.forget_first();
        }
    }

    /// Drops the entry sighted longest ago, or its left-over.
    fn forget_first(&mut self) {
        let Some((_, sequence, client)) = self.order.pop_front() else { return };
        let Some(entries) = self.clients.get_mut(&client) else { return };
        while entries.front().is_some_and(|entry| entry.sequence <= sequence) {
            entries.pop_front();
            self.entries -= 1;
        }
        if entries.is_empty() {
            self.clients.remove(&client);
        }
    }

    /// Drops the left-overs, which are at least half of `order`.
    fn sweep(&mut self) {
        let clients = &self.clients;
        self.order.retain(|(_, sequence, client)| {
            clients.get(client).is_some_and(|entries| entries.binary_search_by_key(sequence, |e| e.sequence).is_ok())
        });
    }
}

/// What tells a message from all others of its time and stays the same when it is sent again: a hash of tenant, device,
/// client and that by which the window knows it. `None`: it is never sent again, or cannot be recognised.
pub fn identity(message: &Telemetry) -> Option<[u8; 16]> {
    let name = Name::of(message)?;
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for part in [message.tenant.as_str(), message.device.as_str(), message.client.as_str()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(&name.bytes());
    Some(hash.digest128().to_be_bytes())
}

/// By what a message is recognised.
enum Name {
    /// Given by its sender: exact.
    Given([u8; 16]),
    Fingerprint(Fingerprint),
}

impl Name {
    /// `None`: the message is never sent again (QoS 0) or cannot be recognised.
    fn of(message: &Telemetry) -> Option<Self> {
        if let Some((_, id)) = message.properties.iter().find(|(name, _)| name == ID_PROPERTY) {
            return Some(Name::Given(xxhash_rust::xxh3::xxh3_128(id.as_bytes()).to_be_bytes()));
        }
        if message.hops > 0 {
            return Some(Name::Given(message.id.0));
        }
        message.packet_id.map(|_| Name::Fingerprint(message.fingerprint))
    }

    /// What a message of this name is, if its client was last seen to send `earlier` of that name.
    fn verdict(&self, message: &Telemetry, earlier: Option<&Entry>) -> Verdict {
        let repeat = earlier.is_some_and(|entry| match self {
            Name::Given(_) => true,
            // An older epoch as well: the first sending may reach the log after the one that followed a reconnect.
            Name::Fingerprint(_) if message.qos == Qos::ExactlyOnce => message.dup || message.epoch < entry.epoch,
            Name::Fingerprint(_) => message.dup || message.epoch != entry.epoch,
        });
        if repeat { Verdict::Repeat } else { Verdict::New }
    }

    fn bytes(&self) -> [u8; 16] {
        match self {
            Name::Given(name) | Name::Fingerprint(name) => *name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientId, DeviceId, Qos, RecordId, TenantId, TopicName, fingerprint};
    use bytes::Bytes;
    use proptest::prelude::*;

    /// A QoS 1 publish of client `c`: packet id, payload, epoch, second.
    fn message(packet_id: u16, payload: &str, epoch: u64, second: u64) -> Telemetry {
        Telemetry {
            id: RecordId([0; 16]),
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("c").expect("valid"),
            client: ClientId::new("c").expect("valid"),
            topic: TopicName::new("t").expect("valid"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: Some(packet_id),
            epoch,
            fingerprint: fingerprint("c", packet_id, Qos::AtLeastOnce, "t", payload.as_bytes()),
            time_ms: 1_000_000_000 + second * 1_000,
            content_type: None,
            properties: vec![],
            mqtt5: None,
            traceparent: None,
            hops: 0,
        }
    }

    fn verdicts(messages: &[Telemetry]) -> Vec<bool> {
        let mut window = RepeatWindow::default();
        messages.iter().map(|m| window.observe(m) == Verdict::Repeat).collect()
    }

    #[test]
    fn every_message_redelivered_after_a_reconnect_is_recognised_not_only_the_first() {
        let first = [1, 2, 3].map(|id| message(id, "same", 1, 0));
        let again = [1, 2, 3].map(|id| message(id, "same", 2, 1));
        assert_eq!(verdicts(&[first, again].concat()), [false, false, false, true, true, true]);
    }

    #[test]
    fn a_constant_payload_under_a_reused_packet_id_is_new_each_time_within_a_session() {
        let (old, new) = (|| message(1, "on", 1, 0), || message(1, "on", 2, 1));
        assert_eq!(verdicts(&[old(), old(), new(), new(), new()]), [false, false, true, false, false]);
    }

    #[test]
    fn the_dup_flag_makes_a_repeat_only_of_what_was_seen() {
        let dup = |id| Telemetry { dup: true, ..message(id, "x", 1, 0) };
        let mut window = RepeatWindow::default();
        assert_eq!(window.observe(&message(1, "x", 1, 0)), Verdict::New);
        assert_eq!(window.observe(&dup(1)), Verdict::Repeat);
        assert_eq!(window.observe(&dup(2)), Verdict::New);
        assert_eq!(window.counts(), Counts { doubtful: 1, crowded_out: 0 });
    }

    #[test]
    fn at_qos_2_the_ingress_knows_what_is_new() {
        let mut window = RepeatWindow::default();
        let exact = |dup, epoch, second| Telemetry { qos: Qos::ExactlyOnce, dup, ..message(1, "on", epoch, second) };
        assert_eq!(window.observe(&exact(false, 1, 0)), Verdict::New);
        assert_eq!(window.observe(&exact(false, 2, 1)), Verdict::New, "the id was free again");
        assert_eq!(window.observe(&exact(true, 3, 2)), Verdict::Repeat, "its first sending was in doubt");
        assert_eq!(window.observe(&exact(false, 2, 3)), Verdict::Repeat, "the first sending, late");
    }

    #[test]
    fn a_first_sending_that_reaches_the_log_late_is_the_repeat() {
        assert_eq!(
            verdicts(&[message(1, "x", 2, 0), message(1, "x", 1, 0), message(1, "x", 2, 0)]),
            [false, true, false]
        );
    }

    #[test]
    fn messages_of_qos_0_are_never_repeats() {
        let plain = |epoch| Telemetry { packet_id: None, qos: Qos::AtMostOnce, ..message(0, "on", epoch, 0) };
        assert_eq!(verdicts(&[plain(1), plain(1), plain(2), plain(3)]), [false; 4]);
    }

    #[test]
    fn a_name_given_by_the_sender_decides_alone() {
        let named = |name: &str, id, epoch| Telemetry {
            properties: vec![(ID_PROPERTY.into(), name.into())],
            ..message(id, "x", epoch, 0)
        };
        let sent = [named("a", 1, 1), named("b", 1, 2), named("a", 7, 1), named("a", 1, 1), named("c", 1, 1)];
        assert_eq!(verdicts(&sent), [false, false, true, true, false]);
        let republished = |id| Telemetry { hops: 1, packet_id: None, id: RecordId([id; 16]), ..message(1, "x", 1, 0) };
        assert_eq!(verdicts(&[republished(1), republished(2), republished(1)]), [false, false, true]);
    }

    #[test]
    fn an_identity_survives_redelivery_and_tells_senders_apart() {
        let first = message(1, "x", 1, 0);
        let again = Telemetry { dup: true, id: RecordId([9; 16]), ..message(1, "x", 2, 7) };
        assert!(identity(&first).is_some() && identity(&first) == identity(&again));
        let other = Telemetry { client: ClientId::new("d").expect("valid"), ..message(1, "x", 1, 0) };
        for different in [message(2, "x", 1, 0), other] {
            assert_ne!(identity(&different), identity(&first));
        }
        assert_eq!(identity(&Telemetry { packet_id: None, ..first }), None);
    }

    #[test]
    fn the_window_ends_after_its_time_and_its_number_of_messages() {
        let limit = REPEAT_WINDOW_MS / 1_000;
        assert_eq!(verdicts(&[message(1, "x", 1, 0), message(1, "x", 2, limit)]), [false, true]);
        assert_eq!(verdicts(&[message(1, "x", 1, 0), message(1, "x", 2, limit + 1)]), [false, false]);
        let filled = |others: u16| {
            let mut sent = vec![message(1, "x", 1, 0)];
            sent.extend((2..2 + others).map(|id| message(id, "x", 1, 0)));
            sent.push(message(1, "x", 2, 0));
            verdicts(&sent).last().copied()
        };
        assert_eq!(filled(RECEIVE_MAXIMUM - 1), Some(true));
        assert_eq!(filled(RECEIVE_MAXIMUM), Some(false));
    }

    #[test]
    fn a_node_whose_clock_is_ahead_does_not_age_what_others_bring() {
        let ahead = 2 * REPEAT_WINDOW_MS / 1_000;
        let sent = [
            message(9, "y", 1, ahead),
            message(1, "x", 1, 0),
            message(8, "y", 1, ahead + 1),
            message(1, "x", 2, 1),
            message(1, "x", 3, ahead + 2 + REPEAT_WINDOW_MS / 1_000),
        ];
        assert_eq!(verdicts(&sent), [false, false, false, true, false]);
    }

    #[test]
    fn a_full_window_forgets_the_oldest_and_counts_it() {
        let mut window = RepeatWindow::with_capacity(10);
        for id in 1..=11 {
            window.observe(&message(id, "x", 1, 0));
        }
        assert_eq!((window.len(), window.counts().crowded_out), (10, 1));
        assert_eq!(window.observe(&message(1, "x", 2, 0)), Verdict::New);
        assert_eq!(window.observe(&message(11, "x", 2, 0)), Verdict::Repeat);
    }

    /// The definition, read off a full list of what was seen.
    fn naive(seen: &mut Vec<(u64, [u8; 16], u64)>, now_ms: &mut u64, m: &Telemetry) -> bool {
        *now_ms = (*now_ms).max(m.time_ms);
        let start = *now_ms - REPEAT_WINDOW_MS;
        let mut names: Vec<[u8; 16]> = Vec::new();
        let mut found = None;
        for (time_ms, name, epoch) in seen.iter().rev() {
            if !names.contains(name) && names.len() < usize::from(RECEIVE_MAXIMUM) {
                names.push(*name);
                if *time_ms >= start && *name == m.fingerprint {
                    found = Some(*epoch);
                }
            }
        }
        let repeat = found.is_some_and(|epoch| m.dup || m.epoch != epoch);
        let epoch = found.filter(|_| repeat).map_or(m.epoch, |epoch| epoch.max(m.epoch));
        seen.push((m.time_ms, m.fingerprint, epoch));
        repeat
    }

    proptest! {
        #[test]
        fn verdicts_follow_the_definition(
            sent in prop::collection::vec((1u16..130, 1u64..4, 0u64..20, prop::bool::weighted(0.1)), 1..400)
        ) {
            let (mut window, mut seen, mut now_ms, mut second) = (RepeatWindow::default(), Vec::new(), 0, 0);
            for (id, epoch, wait, dup) in sent {
                second += wait / 16;
                let message = Telemetry { dup, ..message(id, "x", epoch, second) };
                let expected = naive(&mut seen, &mut now_ms, &message);
                prop_assert_eq!(window.observe(&message) == Verdict::Repeat, expected);
                prop_assert!(window.len() <= usize::from(RECEIVE_MAXIMUM));
                prop_assert!(window.order.len() <= 2 * window.len() + 1_025);
            }
        }

        #[test]
        fn clients_with_unacknowledged_messages_get_each_through_exactly_once(
            cuts in prop::collection::vec((1usize..20, 0usize..20), 1..8)
        ) {
            // Each session sends what the last left unacknowledged again, then new messages, then breaks.
            let (mut window, mut id, mut unacknowledged, mut passed) = (RepeatWindow::default(), 0u16, vec![], vec![]);
            for (epoch, (fresh, left)) in cuts.into_iter().enumerate() {
                let mut session: Vec<u16> = std::mem::take(&mut unacknowledged);
                session.extend((0..fresh).map(|_| { id += 1; id }));
                for id in &session {
                    if window.observe(&message(*id, "same", epoch as u64, 0)) == Verdict::New {
                        passed.push(*id);
                    }
                }
                unacknowledged = session.split_off(session.len().saturating_sub(left));
            }
            prop_assert_eq!(passed, (1..=id).collect::<Vec<_>>());
        }
    }
}
