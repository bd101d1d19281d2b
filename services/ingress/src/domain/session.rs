//! One client's session: its subscriptions, the messages that wait for it, and the exchanges that are not complete.
//!
//! Domain layer, no I/O. Publishers put messages in, the connection that holds the session takes them out; every call
//! of a connection names its epoch, and one that no longer holds the session finds nothing. A session dies with its
//! process: what waits in it is also in the log. A session without messages on their way owns neither outbox nor list
//! of received ids: most sessions are idle, and memory is the product.

mod outbox;
mod received;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::{PacketId, SubscriptionId};
use drover_types::{ClientId, Qos, TenantId};

use crate::domain::filter::topics;
use crate::domain::link::Link;
use crate::domain::message::Message;
use crate::domain::router::Subscriber;
use outbox::Outbox;
use received::Received;

pub use outbox::{Answer, Answered, Next};
pub use received::{Begun, RECEIVED_MAX};

/// A message for one session.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// Of the message or of the subscription, whichever is lower.
    pub qos: Qos,
    pub retain: bool,
    pub ids: Box<[SubscriptionId]>,
    /// The shared subscription it is for, with its `$share/NAME/`.
    pub share: Option<Arc<str>>,
}

/// A new subscription that wants the retained messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub filter: Box<str>,
    pub qos: Qos,
    pub id: Option<SubscriptionId>,
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
    /// Its tenant keeps as many retained messages as it may: it is delivered, and not kept for later subscriptions.
    RetainedFull,
    /// It was for one of several that share a subscription, and none of them is left.
    NoMember,
}

/// What a session has given up.
#[derive(Debug, Default)]
pub struct Gone {
    /// To be removed from routing.
    pub filters: Vec<Box<str>>,
    /// Messages that waited or were not acknowledged.
    pub dropped: usize,
    /// Messages of shared subscriptions among them, which other members may have; they are not counted as dropped.
    pub shared: Vec<Delivery>,
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
    /// To the client; absent while nothing waits or is in flight.
    outbox: Option<Box<Outbox>>,
    /// From the client at QoS 2; absent while no exchange is open.
    received: Option<Box<Received>>,
    /// Subscriptions whose retained messages are to be read; absent while nobody reads.
    #[expect(clippy::box_collection, reason = "one word in the many sessions that want none")]
    wanted: Option<Box<VecDeque<Wanted>>>,
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
        if let Some(outbox) = &mut state.outbox {
            outbox.resume();
        }
        if let Some(received) = &mut state.received {
            received.doubt();
        }
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
        state.wanted = None;
        let mut outbox = state.outbox.take().unwrap_or_default();
        let shared = outbox.take_shared(|_| true);
        let filters = std::mem::take(&mut state.filters).into_iter().collect();
        Gone { filters, dropped: outbox.messages(), shared }
    }

    /// Shared subscriptions whose messages wait here or may be sent again, while no connection holds the session.
    pub fn shares(&self) -> BTreeSet<Arc<str>> {
        let state = self.state();
        let outbox = state.outbox.as_ref().filter(|_| state.holder.is_none());
        outbox.map(|outbox| outbox.shares()).unwrap_or_default()
    }

    /// Takes out what other members of the shared subscriptions `moved` may have: what was not sent, and what was sent
    /// at QoS 1 and not acknowledged. A delivery of QoS 2 that has begun is completed with its client
    /// [MQTT-4.8.2-4].
    pub fn take_shared(&self, moved: impl Fn(&Arc<str>) -> bool) -> Vec<Delivery> {
        let mut state = self.state();
        if state.holder.is_some() {
            return Vec::new(); // it has come back meanwhile
        }
        let taken = state.outbox.as_mut().map(|outbox| outbox.take_shared(moved)).unwrap_or_default();
        state.tidy();
        taken
    }

    /// Whether a member of a shared subscription can have a message now.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.holder.is_some() && state.outbox.as_ref().is_none_or(|outbox| outbox.has_room())
    }

    /// Retained messages are to be read for this subscription. True if nobody reads for this session: whoever asks then
    /// has to call [`Session::next_wanted`] until there is no more.
    pub fn want_retained(&self, wanted: Wanted) -> bool {
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        let idle = state.wanted.is_none();
        let list = state.wanted.get_or_insert_default();
        list.retain(|known| known.filter != wanted.filter); // at most one for each filter of the session
        list.push_back(wanted);
        idle
    }

    /// The subscription to read retained messages for next.
    pub fn next_wanted(&self) -> Option<Wanted> {
        let mut state = self.state();
        let next = state.wanted.as_mut().and_then(|list| list.pop_front());
        if next.is_none() {
            state.wanted = None;
        }
        next
    }

    /// Whether the session has this filter.
    pub fn has_filter(&self, filter: &str) -> bool {
        self.state().filters.contains(filter)
    }

    /// Whether a connection holds the session.
    pub fn is_held(&self) -> bool {
        self.state().holder.is_some()
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
        let wanted = |topic: &str| left.iter().any(|filter| drover_types::matches(topics(filter), topic));
        let dropped = state.keep(|delivery| wanted(delivery.message.telemetry.topic.as_str()));
        Gone { filters, dropped, shared: Vec::new() }
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
        if state.holder.is_none() && delivery.qos == Qos::AtMostOnce {
            return Err(Dropped::Away);
        }
        let outbox = state.outbox.get_or_insert_default();
        let first = match outbox.push(delivery) {
            Ok(first) => first,
            Err(why) => {
                state.tidy();
                return Err(why);
            }
        };
        if let Some(holder) = state.holder.as_ref().filter(|_| first) {
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
        let State { outbox: Some(outbox), last_packet_id, .. } = &mut *state else { return Next::Nothing };
        let next = outbox.next(window, last_packet_id);
        state.tidy();
        next
    }

    /// The client of `epoch` has answered message `packet_id`; what that means.
    pub fn answer(&self, epoch: u64, packet_id: PacketId, answer: Answer) -> Answered {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Answered::Unknown;
        }
        let Some(outbox) = &mut state.outbox else { return Answered::Unknown };
        let answered = outbox.answer(packet_id, answer);
        state.tidy();
        answered
    }

    /// Message `packet_id`, just taken by [`Session::next`], is not sent after all.
    pub fn give_up(&self, epoch: u64, packet_id: PacketId) {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return;
        }
        if let Some(outbox) = &mut state.outbox {
            outbox.give_up(packet_id);
        }
        state.tidy();
    }

    /// The client of `epoch` publishes message `packet_id` at QoS 2.
    pub fn begin(&self, epoch: u64, packet_id: PacketId) -> Begun {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Begun::Lost;
        }
        let begun = state.received.get_or_insert_default().begin(packet_id);
        state.tidy();
        begun
    }

    /// Whether message `packet_id` of QoS 2 of the client of `epoch` was taken, and not let go of.
    pub fn has_received(&self, epoch: u64, packet_id: PacketId) -> bool {
        let state = self.state();
        state.held_by(epoch) && state.received.as_ref().is_some_and(|received| received.has(packet_id))
    }

    /// The client's message `packet_id` of QoS 2 is in the log; whether that is news. Not bound to an epoch: the log may
    /// answer after the connection is gone.
    pub fn stored(&self, packet_id: PacketId) -> bool {
        self.state().received.as_mut().is_some_and(|received| received.stored(packet_id))
    }

    /// The client of `epoch` has let go of message `packet_id` of QoS 2; whether it was there.
    pub fn released(&self, epoch: u64, packet_id: PacketId) -> bool {
        let mut state = self.state();
        let released =
            state.held_by(epoch) && state.received.as_mut().is_some_and(|received| received.release(packet_id));
        state.tidy();
        released
    }

    /// Messages that wait and messages in flight.
    #[cfg(test)]
    pub fn depth(&self) -> (usize, usize) {
        self.state().outbox.as_ref().map_or((0, 0), |outbox| outbox.depth())
    }
}

impl State {
    fn held_by(&self, epoch: u64) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.epoch == epoch)
    }

    /// Drops what waits and what is in flight, unless `wanted`; how many messages that were.
    fn keep(&mut self, wanted: impl Fn(&Delivery) -> bool) -> usize {
        let dropped = self.outbox.as_mut().map_or(0, |outbox| outbox.keep(wanted));
        self.tidy();
        dropped
    }

    /// Gives back what is empty.
    fn tidy(&mut self) {
        self.outbox.take_if(|outbox| outbox.is_empty());
        self.received.take_if(|received| received.is_empty());
    }
}
