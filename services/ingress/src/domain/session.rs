//! One client's session: its subscriptions, the messages that wait for it, and those sent but not acknowledged.
//!
//! Domain layer, no I/O. Publishers put messages in, the connection that holds the session takes them out; every call
//! of a connection names its epoch, and one that no longer holds the session finds nothing. A session dies with its
//! process: what waits in it is also in the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::{PacketId, SubscriptionId};
use drover_types::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};
use drover_types::{ClientId, Qos, TenantId};

use crate::domain::link::Link;
use crate::domain::message::Message;
use crate::domain::router::Subscriber;

/// Most messages of QoS 0 among those that wait; a reader slower than that loses them and keeps QoS 1.
const QOS0_WAITING_MAX: usize = INBOX_MESSAGES_MAX / 2;

/// A message for one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// Of the message or of the subscription, whichever is lower.
    pub qos: Qos,
    pub retain: bool,
    pub ids: Vec<SubscriptionId>,
}

/// Why a message was not kept for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Its inbox holds as many messages or bytes as it may.
    InboxFull,
    /// QoS 0 for a reader that does not keep up.
    SlowReader,
    /// QoS 0 for a client that is away.
    Away,
    /// Its message expiry interval has passed [MQTT-3.3.2-5].
    Expired,
    /// Larger than its client's maximum packet size [MQTT-3.1.2-25].
    TooLarge,
    /// Its subscription is no longer allowed.
    NotAllowed,
    /// It waited, or was not acknowledged, when its client had been away too long.
    SessionExpired,
    /// The same, when its client began anew.
    CleanStart,
    /// The same, when a connection closed whose session ends with it.
    SessionClosed,
    /// The same, when this node stopped.
    NodeStopped,
    /// The same, when its client connected to another node.
    Moved,
}

/// What a session has given up.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// To be removed from routing.
    pub filters: Vec<Box<str>>,
    /// Messages that waited or were not acknowledged.
    pub dropped: usize,
}

/// What to send next.
#[derive(Debug)]
pub enum Next {
    /// A new message, or one sent before on an earlier connection (`dup`). No packet id: QoS 0.
    Send { delivery: Delivery, packet_id: Option<PacketId>, dup: bool },
    /// Nothing waits, or the window is full.
    Nothing,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    /// Unique in this process.
    pub number: Subscriber,
    pub tenant: TenantId,
    pub client: ClientId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    filters: BTreeSet<Box<str>>,
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    /// QoS 1, in the order first sent.
    in_flight: VecDeque<(PacketId, Delivery)>,
    /// How many of `in_flight` were sent on the present connection.
    sent: usize,
    last_packet_id: u16,
    /// The connection that holds the session.
    holder: Option<Holder>,
    /// Why nobody will ever hold it again.
    ended: Option<Dropped>,
}

#[derive(Debug)]
struct Holder {
    epoch: u64,
    link: Arc<Link>,
}

impl Session {
    /// A session nobody holds yet.
    pub fn new(number: Subscriber, tenant: TenantId, client: ClientId) -> Self {
        Self { number, tenant, client, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of `epoch` holds the session from now on; what is in flight will be sent again [MQTT-4.4.0-1].
    pub fn hold(&self, epoch: u64, link: Arc<Link>) {
        let mut state = self.state();
        state.holder = Some(Holder { epoch, link });
        state.sent = 0;
    }

    /// The connection of `epoch` lets go; QoS 0 does not wait for its return. How many messages that were.
    pub fn release(&self, epoch: u64) -> usize {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return 0;
        }
        state.holder = None;
        state.keep(|delivery| delivery.qos != Qos::AtMostOnce)
    }

    /// Adds a filter. `Ok(true)`: it is new. `Err` with the limit: there are too many.
    pub fn add_filter(&self, filter: &str, limit: usize) -> Result<bool, usize> {
        let mut state = self.state();
        if state.filters.contains(filter) {
            return Ok(false);
        }
        if state.filters.len() >= limit {
            return Err(limit);
        }
        state.filters.insert(filter.into());
        Ok(true)
    }

    /// Removes a filter; whether it was there.
    pub fn remove_filter(&self, filter: &str) -> bool {
        self.state().filters.remove(filter)
    }

    /// The session is over: nothing is put in any more.
    pub fn end(&self, why: Dropped) -> Gone {
        let mut state = self.state();
        state.ended = Some(why);
        let dropped = state.keep(|_| false);
        Gone { filters: std::mem::take(&mut state.filters).into_iter().collect(), dropped }
    }

    /// Gives up the filters that are not `allowed`, and every message that no other filter asks for; nothing if another
    /// connection than that of `epoch` holds the session.
    pub fn withdraw(&self, epoch: u64, allowed: impl Fn(&str) -> bool) -> Gone {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Gone::default();
        }
        let filters: Vec<Box<str>> = state.filters.extract_if(.., |filter| !allowed(filter)).collect();
        if filters.is_empty() {
            return Gone::default();
        }
        let left = state.filters.clone();
        let wanted = |topic: &str| left.iter().any(|filter| drover_types::matches(filter, topic));
        let dropped = state.keep(|delivery| wanted(delivery.message.telemetry.topic.as_str()));
        Gone { filters, dropped }
    }

    /// Whether the connection of `epoch` holds the session.
    pub fn is_held_by(&self, epoch: u64) -> bool {
        self.state().held_by(epoch)
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Puts a message in and wakes the connection; or says why not.
    pub fn offer(&self, delivery: Delivery) -> Result<(), Dropped> {
        let mut state = self.state();
        if let Some(why) = state.ended {
            return Err(why);
        }
        let bytes = delivery.message.bytes();
        match &state.holder {
            None if delivery.qos == Qos::AtMostOnce => return Err(Dropped::Away),
            Some(_) if delivery.qos == Qos::AtMostOnce && state.waiting.len() >= QOS0_WAITING_MAX => {
                return Err(Dropped::SlowReader);
            }
            Some(_) | None => {}
        }
        if state.waiting.len() >= INBOX_MESSAGES_MAX || state.waiting_bytes + bytes > INBOX_BYTES_MAX {
            return Err(Dropped::InboxFull);
        }
        state.waiting.push_back(delivery);
        state.waiting_bytes += bytes;
        if state.waiting.len() == 1
            && let Some(holder) = &state.holder
        {
            holder.link.wake();
        }
        Ok(())
    }

    /// What the connection of `epoch` shall send next, with at most `window` messages unacknowledged.
    pub fn next(&self, epoch: u64, window: usize) -> Next {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Next::Nothing;
        }
        state.resend(window).or_else(|| state.send(window)).unwrap_or(Next::Nothing)
    }

    /// The client has message `packet_id`; whether it was in flight.
    pub fn acknowledge(&self, epoch: u64, packet_id: PacketId) -> bool {
        let mut state = self.state();
        let found = state.in_flight.iter().position(|(id, _)| *id == packet_id);
        let Some(at) = found.filter(|_| state.held_by(epoch)) else { return false };
        state.in_flight.remove(at);
        state.sent -= usize::from(at < state.sent);
        true
    }

    /// Messages that wait and messages in flight.
    #[cfg(test)]
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        (state.waiting.len(), state.in_flight.len())
    }
}

impl State {
    fn held_by(&self, epoch: u64) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.epoch == epoch)
    }

    /// Drops what waits and what is in flight, unless `wanted`; how many messages that were.
    fn keep(&mut self, wanted: impl Fn(&Delivery) -> bool) -> usize {
        let before = self.waiting.len() + self.in_flight.len();
        self.waiting.retain(&wanted);
        self.waiting_bytes = self.waiting.iter().map(|delivery| delivery.message.bytes()).sum();
        let sent = self.in_flight.iter().take(self.sent).filter(|(_, delivery)| wanted(delivery)).count();
        self.in_flight.retain(|(_, delivery)| wanted(delivery));
        self.sent = sent;
        before - self.waiting.len() - self.in_flight.len()
    }

    fn resend(&mut self, window: usize) -> Option<Next> {
        let (packet_id, delivery) = self.in_flight.get(self.sent).filter(|_| self.sent < window)?;
        let next = Next::Send { delivery: delivery.clone(), packet_id: Some(*packet_id), dup: true };
        self.sent += 1;
        Some(next)
    }

    fn send(&mut self, window: usize) -> Option<Next> {
        let acknowledged = self.waiting.front()?.qos != Qos::AtMostOnce;
        if acknowledged && self.in_flight.len() >= window {
            return None;
        }
        let delivery = self.waiting.pop_front()?;
        self.waiting_bytes -= delivery.message.bytes();
        if !acknowledged {
            return Some(Next::Send { delivery, packet_id: None, dup: false });
        }
        let packet_id = self.free_packet_id();
        self.in_flight.push_back((packet_id, delivery.clone()));
        self.sent += 1;
        Some(Next::Send { delivery, packet_id: Some(packet_id), dup: false })
    }

    /// A packet id that is not in flight [MQTT-2.2.1-4].
    fn free_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            let free = |id: &PacketId| self.in_flight.iter().all(|(used, _)| used != id);
            if let Some(id) = PacketId::new(self.last_packet_id).filter(free) {
                return id; // found before all are tried: the window is smaller than the range of ids
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use drover_types::{DeviceId, RecordId, TopicName};

    use super::*;
    use crate::domain::message::{Publication, Publisher, Stamp};

    pub fn message(payload: Vec<u8>) -> Arc<Message> {
        let publication = Publication {
            topic: TopicName::new("t").expect("valid"),
            payload: Bytes::from(payload),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: 1,
            properties: None,
        };
        let publisher = Publisher {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("p").expect("valid"),
            client: ClientId::new("p").expect("valid"),
            epoch: 1,
        };
        Arc::new(publication.stamp(&publisher, Stamp { id: RecordId([0; 16]), time_ms: 0, traceparent: None }))
    }

    fn delivery(n: u8, qos: Qos) -> Delivery {
        Delivery { message: message(vec![n]), qos, retain: false, ids: Vec::new() }
    }

    fn session() -> Session {
        Session::new(1, TenantId::default_tenant(), ClientId::new("c").expect("valid"))
    }

    /// Sends all that may be sent: payload, packet id and dup.
    fn drain(session: &Session, epoch: u64, window: usize) -> Vec<(u8, Option<u16>, bool)> {
        std::iter::from_fn(|| match session.next(epoch, window) {
            Next::Send { delivery, packet_id, dup } => {
                Some((delivery.message.telemetry.payload[0], packet_id.map(PacketId::get), dup))
            }
            Next::Nothing => None,
        })
        .collect()
    }

    #[test]
    fn the_window_bounds_what_is_in_flight_and_order_is_kept() {
        let session = session();
        session.hold(1, Arc::default());
        for n in 0..4 {
            session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
        }
        assert_eq!(drain(&session, 1, 2), [(0, Some(1), false), (1, Some(2), false)]);
        assert!(session.acknowledge(1, PacketId::new(2).expect("not 0")));
        assert!(!session.acknowledge(1, PacketId::new(2).expect("not 0")), "it was acknowledged before");
        assert_eq!(drain(&session, 1, 2), [(2, Some(3), false)]);
    }

    #[test]
    fn what_was_in_flight_is_sent_again_first_with_its_packet_id_and_dup() {
        let session = session();
        session.hold(1, Arc::default());
        for n in 0..3 {
            session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
        }
        drain(&session, 1, 2);
        session.release(1);
        session.offer(delivery(3, Qos::AtLeastOnce)).expect("room");
        session.hold(2, Arc::default());
        assert_eq!(drain(&session, 2, 1), [(0, Some(1), true)], "never beyond the new window");
        let expected = [(1, Some(2), true), (2, Some(3), false), (3, Some(4), false)];
        assert_eq!(drain(&session, 2, 10), expected);
    }

    #[test]
    fn a_connection_that_lost_the_session_gets_and_acknowledges_nothing() {
        let session = session();
        session.hold(1, Arc::default());
        session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
        drain(&session, 1, 1);
        session.hold(2, Arc::default());
        assert!(!session.acknowledge(1, PacketId::MIN));
        assert!(drain(&session, 1, 1).is_empty());
        session.release(1);
        assert_eq!(drain(&session, 2, 1), [(0, Some(1), true)]);
    }

    #[test]
    fn the_inbox_is_bounded_in_messages_and_bytes() {
        let session = session();
        for _ in 0..INBOX_MESSAGES_MAX {
            assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Ok(()));
        }
        assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Err(Dropped::InboxFull));

        let session = self::session();
        let large = |len| Delivery { message: message(vec![0; len]), ..delivery(0, Qos::AtLeastOnce) };
        session.offer(large(INBOX_BYTES_MAX - 1)).expect("at the limit: payload and topic");
        assert_eq!(session.offer(large(0)), Err(Dropped::InboxFull));
    }

    #[test]
    fn qos_0_is_not_kept_for_the_absent_and_gives_way_to_qos_1() {
        let session = session();
        assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Err(Dropped::Away));
        session.hold(1, Arc::default());
        for _ in 0..QOS0_WAITING_MAX {
            assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Ok(()));
        }
        assert_eq!(session.offer(delivery(0, Qos::AtMostOnce)), Err(Dropped::SlowReader));
        assert_eq!(session.offer(delivery(0, Qos::AtLeastOnce)), Ok(()));
        session.release(1);
        assert_eq!(session.depth(), (1, 0));
    }

    #[test]
    fn with_a_filter_goes_what_no_other_filter_asks_for() {
        let session = session();
        session.hold(1, Arc::default());
        for filter in ["t", "+", "other"] {
            session.add_filter(filter, 3).expect("room");
        }
        for n in 0..3 {
            session.offer(delivery(n, Qos::AtLeastOnce)).expect("room");
        }
        drain(&session, 1, 1);
        assert_eq!(session.withdraw(2, |_| false), Gone::default(), "somebody else holds it");
        assert_eq!(session.withdraw(1, |filter| filter != "t"), Gone { filters: vec!["t".into()], dropped: 0 });
        let gone = session.withdraw(1, |filter| filter != "+");
        assert_eq!(gone, Gone { filters: vec!["+".into()], dropped: 3 }, "two waited, one was in flight");
        session.offer(delivery(3, Qos::AtLeastOnce)).expect("room");
        assert_eq!(drain(&session, 1, 1), [(3, Some(2), false)], "the window is free again");
    }

    #[test]
    fn a_session_that_has_ended_takes_nothing_and_says_why() {
        let session = session();
        session.add_filter("t", 1).expect("room");
        session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
        let gone = session.end(Dropped::SessionExpired);
        assert_eq!(gone, Gone { filters: vec!["t".into()], dropped: 1 });
        assert_eq!(session.offer(delivery(1, Qos::AtLeastOnce)), Err(Dropped::SessionExpired));
    }

    #[test]
    fn packet_ids_wrap_around_those_in_flight() {
        let session = session();
        session.hold(1, Arc::default());
        session.offer(delivery(0, Qos::AtLeastOnce)).expect("room");
        drain(&session, 1, 2);
        for _ in 0..65_534 {
            session.offer(delivery(1, Qos::AtLeastOnce)).expect("room");
            let [(_, Some(id), false)] = drain(&session, 1, 2)[..] else { panic!("one message") };
            session.acknowledge(1, PacketId::new(id).expect("not 0"));
        }
        session.offer(delivery(2, Qos::AtLeastOnce)).expect("room");
        assert_eq!(drain(&session, 1, 2), [(2, Some(2), false)], "0 is no id and 1 is in flight");
    }
}
