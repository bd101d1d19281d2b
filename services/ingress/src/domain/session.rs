//! One client's session: its subscriptions, the messages that wait for it, and the exchanges that are not complete.
//!
//! Domain layer, no I/O. Publishers put messages in, the connection that holds the session takes them out; every call
//! of a connection names its epoch, and one that no longer holds the session finds nothing. A session that outlives its
//! connections has a record, by which all of it that may not be lost goes into the store; another dies with its
//! process. A session without messages on their way owns neither outbox nor list of received ids: most sessions are
//! idle, and memory is the product.

mod filters;
mod moved;
mod outbox;
mod overfull;
mod received;
mod record;
mod restored;
mod subscriptions;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_mqtt::{PacketId, SubscriptionId};
use drover_types::{ClientId, DeviceId, Qos, TenantId};

use crate::domain::journal::Journal;
use crate::domain::link::Link;
use crate::domain::message::{Message, Publisher};
use crate::domain::router::Subscriber;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Head, Row, Subscription};
use filters::Filters;
use outbox::{Kept, Outbox};
use overfull::Overfull;
use received::Received;
use record::Record;

pub use outbox::{Answer, Answered, Next};
pub use overfull::Look;
pub use received::{Begun, RECEIVED_MAX, Released};
pub use subscriptions::Wanted;

/// A message for one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub message: Arc<Message>,
    /// Of the message or of the subscription, whichever is lower.
    pub qos: Qos,
    pub retain: bool,
    pub ids: Box<[SubscriptionId]>,
    /// The shared subscription it is for, with its `$share/NAME/`.
    pub share: Option<Arc<str>>,
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
    /// The store cannot take the session it waited in.
    NotKept,
}

/// What becomes of a message of QoS 1 or 2 for a client that is there, and whose inbox is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped.
    Drop,
    /// It is taken, and its publisher waits until there is room.
    Wait,
}

/// A message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Position of the journal that its publisher has to wait for, or 0.
    pub position: u64,
    /// Whether its publisher has to wait for room as well, by [`Session::withhold`] or [`Session::room`].
    pub overfull: bool,
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
    key: Key,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    filters: Filters,
    /// What is kept of it in the store; absent if it dies with its connection.
    record: Option<Box<Record>>,
    /// To the client; absent while nothing waits or is in flight, unless it was too slow lately.
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
        Self { number, key: (tenant, client), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection of `epoch` holds the session from now on; what is in flight will be sent again [MQTT-4.4.0-1].
    pub fn hold(&self, epoch: u64, link: Arc<Link>) {
        let mut state = self.state();
        state.holder = Some(Holder { epoch, link });
        if let Some(record) = &mut state.record {
            record.hold(epoch);
        }
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
        if let Some(outbox) = &mut state.outbox {
            outbox.let_go();
        }
        state.keep(|delivery| delivery.qos != Qos::AtMostOnce)
    }

    /// The session is over: nothing is put in any more.
    pub fn end(&self, why: Dropped) -> Gone {
        let mut state = self.state();
        state.ended = Some(why);
        state.wanted = None;
        let mut outbox = state.outbox.take().unwrap_or_default();
        let shared = outbox.take_shared(|_| true);
        let filters = state.filters.take();
        Gone { filters, dropped: outbox.messages(), shared }
    }

    /// Whether a connection holds the session.
    pub fn is_held(&self) -> bool {
        self.state().holder.is_some()
    }

    /// Whether the connection of `epoch` holds the session.
    pub fn is_held_by(&self, epoch: u64) -> bool {
        self.state().held_by(epoch)
    }

    /// Whether the session is over.
    pub fn has_ended(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Puts a message in and wakes the connection; or says why not. The answer: the position of the journal that its
    /// publisher has to wait for, or 0.
    pub fn offer(&self, delivery: Delivery) -> Result<u64, Dropped> {
        self.put(delivery, WhenFull::Drop).map(|taken| taken.position)
    }

    /// As [`Session::offer`], where the publisher can wait for a full inbox: not for that of a client that is away or may
    /// miss messages, and not at QoS 0.
    pub fn put(&self, delivery: Delivery, when_full: WhenFull) -> Result<Taken, Dropped> {
        let mut state = self.state();
        if let Some(why) = state.ended {
            return Err(why);
        }
        if state.holder.is_none() && delivery.qos == Qos::AtMostOnce {
            return Err(Dropped::Away);
        }
        let is_awaited = delivery.qos > Qos::AtMostOnce && state.holder.as_ref().is_some_and(|h| !h.link.skips());
        let when_full = if is_awaited { when_full } else { WhenFull::Drop };
        let pushed = state.push(delivery, when_full);
        state.tidy();
        let (first, position) = pushed?;
        if let Some(holder) = state.holder.as_ref().filter(|_| first) {
            holder.link.wake();
        }
        let waits = when_full == WhenFull::Wait;
        let overfull = waits && state.outbox.as_mut().is_some_and(|outbox| outbox.is_overfull());
        Ok(Taken { position, overfull })
    }

    /// What the connection of `epoch` shall send next, with at most `window` messages unacknowledged.
    pub fn next(&self, epoch: u64, window: usize) -> Next {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Next::Nothing;
        }
        let State { outbox, received, record, last_packet_id, .. } = &mut *state;
        let durable = |position| record.as_ref().is_none_or(|record| record.journal().is_durable(position));
        let completed = received.as_mut().and_then(|received| received.next_completion(durable));
        if let Some(packet_id) = completed {
            return Next::Complete { packet_id };
        }
        let Some(outbox) = outbox else { return Next::Nothing };
        let next = outbox.next(window, last_packet_id, durable);
        if let (Some(record), Some(place)) = (record, outbox.take_sent()) {
            record.sent(place);
        }
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
        let answered = if answered == Answered::Release { state.release_kept(packet_id) } else { answered };
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

    /// Whether the store has all up to `position` of the journal; also where nothing of this session is kept.
    pub fn is_durable(&self, position: u64) -> bool {
        self.state().record.as_ref().is_none_or(|record| record.journal().is_durable(position))
    }

    /// The session outlives its connections from now on, or at least its will shall: all of it that may not be lost goes
    /// into `journal`. To be called before anything happens to it; `epoch` is that of its first connection.
    pub fn record(&self, journal: Arc<Journal>, epoch: u64, keeps_messages: bool) {
        let record = Record::new(journal, self.key.clone(), epoch, keeps_messages);
        self.state().record = Some(Box::new(record));
    }

    /// What is known of the session as a whole, but for its epoch and what was sent; the position of the journal, 0 if
    /// nothing is kept.
    pub fn put_head(&self, head: Head) -> u64 {
        let mut state = self.state();
        let stale = state.record.as_ref().is_some_and(|record| record.is_stale());
        if stale {
            state.record_filters();
        }
        let State { record: Some(record), received, .. } = &mut *state else { return 0 };
        if stale {
            record.put_received(received.as_ref().map(|received| received.all_stored()).unwrap_or_default());
            record.refreshed();
        }
        record.put_head(head)
    }

    /// Whether its messages are kept in the store.
    pub fn keeps_messages(&self) -> bool {
        self.state().record.as_ref().is_some_and(|record| record.keeps_messages())
    }

    /// Whether it is to be written anew, for what was written may not last.
    pub fn is_stale(&self) -> bool {
        self.state().record.as_ref().is_some_and(|record| record.is_stale())
    }

    /// Nothing more is written of the session. If it is `over`, the store forgets it, and the position of the journal is
    /// the answer; else it goes on elsewhere or later with all that is kept, and takes nothing here any more.
    pub fn close_record(&self, why: Dropped, over: bool) -> u64 {
        let mut state = self.state();
        let Some(record) = state.record.take() else { return 0 };
        if over {
            return record.end();
        }
        state.ended = Some(why);
        if let Some(outbox) = &mut state.outbox {
            outbox.forget_kept();
            outbox.trust();
        }
        0
    }

    /// What its client publishes as, being `device`, on the connection of `epoch`.
    pub fn publisher(&self, device: DeviceId, epoch: u64) -> Publisher {
        Publisher { tenant: self.tenant().clone(), device, client: self.client().clone(), epoch }
    }

    /// Whose it is.
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn tenant(&self) -> &TenantId {
        &self.key.0
    }

    pub fn client(&self) -> &ClientId {
        &self.key.1
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

    /// Puts a message into the outbox, and into the store if it is one to be kept: whether it is the first that waits,
    /// and the position of the journal.
    fn push(&mut self, delivery: Delivery, when_full: WhenFull) -> Result<(bool, u64), Dropped> {
        let Self { outbox, record, last_packet_id, .. } = self;
        let outbox = outbox.get_or_insert_default();
        let mut record = record.as_mut().filter(|record| record.keeps_messages() && delivery.qos > Qos::AtMostOnce);
        let first = outbox.check(&delivery, when_full)?;
        if let Some(record) = &mut record
            && record.has_already(&delivery)
        {
            return Ok((false, record.journal().position())); // it came by another way, and may not be durable yet
        }
        let Some(record) = &mut record else {
            outbox.push(delivery, None);
            return Ok((first, 0));
        };
        let kept = Kept { place: record.take_place(), packet_id: outbox.free_packet_id(last_packet_id) };
        let Kept { place, packet_id } = kept;
        let position = record.put(Row { place, packet_id, delivery: Some(delivery.clone()) });
        outbox.push(delivery, Some(kept));
        Ok((first, position))
    }

    /// The client has message `packet_id` of QoS 2. Where it is kept, PUBREL waits until the store knows that as well, for
    /// the message must not be sent again after it.
    fn release_kept(&mut self, packet_id: PacketId) -> Answered {
        let Self { outbox: Some(outbox), record: Some(record), holder, .. } = self else { return Answered::Release };
        if outbox.awaits_release(packet_id) {
            return Answered::Later;
        }
        let Some(place) = outbox.place(packet_id) else { return Answered::Release };
        let position = record.put(Row { place, packet_id, delivery: None });
        outbox.release_at(packet_id, position);
        if let Some(holder) = holder {
            record.journal().wake_at(position, holder.link.clone());
        }
        Answered::Later
    }

    fn record_filters(&mut self) -> u64 {
        let Self { record, filters, .. } = self;
        let all = filters.iter().map(|(filter, options)| Subscription { filter: filter.into(), options });
        let record = record.as_mut().filter(|record| record.keeps_messages());
        record.map_or(0, |record| record.put_subscriptions(all.collect()))
    }

    /// Drops what waits and what is in flight, unless `wanted`; how many messages that were.
    fn keep(&mut self, wanted: impl Fn(&Delivery) -> bool) -> usize {
        let dropped = self.outbox.as_mut().map_or(0, |outbox| outbox.keep(wanted));
        self.tidy();
        dropped
    }

    /// Of an inbox that has taken more than it holds.
    fn overfull(&mut self) -> Option<&mut Overfull> {
        self.outbox.as_mut().and_then(|outbox| outbox.overfull())
    }

    /// Tells the store what has left the outbox, lets go who waits for room that there is, and gives back what is empty.
    fn tidy(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.let_go_at_room();
        }
        if let Self { outbox: Some(outbox), record: Some(record), .. } = self {
            let left = outbox.take_left();
            if !left.is_empty() {
                record.left(left, outbox.oldest());
            }
        }
        self.outbox.take_if(|outbox| outbox.is_empty());
        self.received.take_if(|received| received.is_empty());
    }
}
