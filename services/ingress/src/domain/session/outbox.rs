//! Messages to one client: those that wait, and those sent whose exchange is not complete.
//!
//! Domain layer, pure. Order is that of coming, and what is in flight is sent again in the order first sent
//! [MQTT-4.6.0-1, MQTT-4.6.0-6]. A message of QoS 2 leaves its place to its packet id alone when the client has it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use drover_mqtt::PacketId;
use drover_types::Qos;
use drover_types::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};

use super::overfull::Overfull;
use super::{Delivery, Dropped, WhenFull};
use crate::ports::sessions::{Place, Row};

/// Most messages of QoS 0 among those that wait; a reader slower than that loses them and keeps the others.
pub(super) const QOS0_WAITING_MAX: usize = INBOX_MESSAGES_MAX / 2;
/// Most messages that wait while their publishers wait as well. What is beyond the inbox is what those had on their way: each
/// no more than its receive maximum. Far fewer than there are packet ids.
pub(super) const OVERFULL_MESSAGES_MAX: usize = 10 * INBOX_MESSAGES_MAX;
/// Their bytes.
const OVERFULL_BYTES_MAX: usize = 4 * INBOX_BYTES_MAX;

/// What to send next.
#[derive(Debug)]
pub enum Next {
    /// A new message, or one sent before on an earlier connection (`dup`). No packet id: QoS 0.
    Send { delivery: Delivery, packet_id: Option<PacketId>, dup: bool },
    /// PUBREL: the client has received the message on an earlier connection [MQTT-4.4.0-1].
    Release { packet_id: PacketId },
    /// PUBCOMP: the store knows that the client has let go of its message.
    Complete { packet_id: PacketId },
    /// Nothing waits, or the window is full.
    Nothing,
}

/// What a client says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// PUBACK.
    Acknowledged,
    /// PUBREC that says success.
    Received,
    /// PUBREC that says failure: the exchange is over [MQTT-4.3.3-4].
    Refused,
    /// PUBCOMP.
    Completed,
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The exchange is complete.
    Done,
    /// PUBREL is next [MQTT-4.3.3-4].
    Release,
    /// PUBREL comes when it is due, from [`super::Session::next`].
    Later,
    /// No message of this id is in flight.
    Unknown,
    /// The message of this id is not one that is answered so.
    Unfit,
}

/// A message that the store has as well.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub place: Place,
    /// Its number on the way to the client, given when it came: so nothing has to be written when it is sent.
    pub packet_id: PacketId,
}

/// The messages of one session on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// QoS 1 and 2, in the order first sent.
    in_flight: VecDeque<InFlight>,
    /// How many of `in_flight` were sent on the present connection.
    sent: usize,
    /// PUBRELs of this connection that wait for a position of the journal.
    releases: VecDeque<(PacketId, u64)>,
    /// Kept messages that the store may forget.
    left: Vec<Place>,
    /// The last kept message that was sent, if that is not told yet.
    last_sent: Option<Place>,
    /// There from when more waits than the inbox holds until half of it is free, or the client was too slow for some time.
    overfull: Option<Box<Overfull>>,
}

#[derive(Debug)]
struct Waiting {
    delivery: Delivery,
    kept: Option<Kept>,
    /// An earlier process may have sent it.
    dup: bool,
}

#[derive(Debug)]
struct InFlight {
    packet_id: PacketId,
    /// `None`: QoS 2, and the client has it; its PUBCOMP is awaited.
    delivery: Option<Delivery>,
    /// In the store, if it is kept there.
    place: Option<Place>,
}

/// Whether another client may have a message that was sent to this one [MQTT-4.8.2-5].
fn may_move(sent: &Delivery) -> bool {
    sent.qos != Qos::ExactlyOnce
}

impl Waiting {
    fn may_move(&self) -> bool {
        !self.dup || may_move(&self.delivery)
    }
}

impl Outbox {
    /// Whether nothing has to be remembered; that the client was too slow does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty() && self.overfull.is_none()
    }

    /// Messages that the client does not have.
    pub fn messages(&self) -> usize {
        self.waiting.len() + self.in_flight.iter().filter(|entry| entry.delivery.is_some()).count()
    }

    #[cfg(test)]
    pub fn depth(&self) -> (usize, usize) {
        (self.waiting.len(), self.in_flight.len())
    }

    /// Whether another message of any QoS would be taken, unless it is large.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < QOS0_WAITING_MAX && self.waiting_bytes < INBOX_BYTES_MAX / 2
    }

    /// The shared subscriptions that [`Outbox::take_shared`] could take messages of.
    pub fn shares(&self) -> BTreeSet<Arc<str>> {
        let sent = self.in_flight.iter().filter_map(|entry| entry.delivery.as_ref()).filter(|d| may_move(d));
        let waiting = self.waiting.iter().filter(|waiting| waiting.may_move()).map(|waiting| &waiting.delivery);
        waiting.chain(sent).filter_map(|delivery| delivery.share.clone()).collect()
    }

    /// Takes out the messages of the shared subscriptions `moved`, in order, but for those of QoS 2 that were sent.
    pub fn take_shared(&mut self, moved: impl Fn(&Arc<str>) -> bool) -> Vec<Delivery> {
        let of_moved = |delivery: &Delivery| delivery.share.as_ref().is_some_and(&moved);
        let mut taken = Vec::new();
        let goes = |entry: &InFlight| entry.delivery.as_ref().is_some_and(|d| may_move(d) && of_moved(d));
        let sent = self.in_flight.iter().take(self.sent).filter(|entry| !goes(entry)).count();
        for entry in std::mem::take(&mut self.in_flight) {
            match entry.delivery {
                Some(delivery) if may_move(&delivery) && of_moved(&delivery) => {
                    self.left.extend(entry.place);
                    taken.push(delivery);
                }
                delivery => self.in_flight.push_back(InFlight { delivery, ..entry }),
            }
        }
        self.sent = sent;
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.may_move() && of_moved(&waiting.delivery) {
                self.left.extend(waiting.kept.map(|kept| kept.place));
                taken.push(waiting.delivery);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        self.count();
        taken
    }

    fn count(&mut self) {
        self.waiting_bytes = self.waiting.iter().map(|waiting| waiting.delivery.message.bytes()).sum();
    }

    /// Whether a message for a client that is there, or of QoS 1 or 2, would be the first that waits; or why it cannot be
    /// taken.
    pub fn check(&self, delivery: &Delivery, when_full: WhenFull) -> Result<bool, Dropped> {
        let bytes = delivery.message.bytes();
        if delivery.qos == Qos::AtMostOnce && self.waiting.len() >= QOS0_WAITING_MAX {
            return Err(Dropped::SlowReader);
        }
        let (messages_max, bytes_max) = match when_full {
            WhenFull::Wait if !self.is_too_slow() => (OVERFULL_MESSAGES_MAX, OVERFULL_BYTES_MAX),
            WhenFull::Wait | WhenFull::Drop => (INBOX_MESSAGES_MAX, INBOX_BYTES_MAX),
        };
        if self.waiting.len() >= messages_max || self.waiting_bytes + bytes > bytes_max {
            return Err(Dropped::InboxFull);
        }
        Ok(self.waiting.is_empty())
    }

    fn is_too_slow(&self) -> bool {
        self.overfull.as_ref().is_some_and(|overfull| overfull.is_too_slow())
    }

    /// Who waits for room, and for how long; `None`: nobody has to wait.
    pub fn overfull(&mut self) -> Option<&mut Overfull> {
        self.overfull.as_deref_mut()
    }

    /// Whether who has put in a message just now has to wait.
    pub fn is_overfull(&mut self) -> bool {
        let exceeds = self.waiting.len() > INBOX_MESSAGES_MAX || self.waiting_bytes > INBOX_BYTES_MAX;
        if exceeds && self.overfull.is_none() {
            self.overfull = Some(Box::default());
        }
        self.overfull.is_some() && !self.is_too_slow()
    }

    /// Lets go those who wait for room, if there is.
    pub fn let_go_at_room(&mut self) {
        if self.overfull.is_some() && !self.is_too_slow() && self.has_room() {
            self.overfull = None;
        }
    }

    /// Lets go those who wait for room: the client is not there to make any. That it was too slow is remembered.
    pub fn let_go(&mut self) {
        if !self.is_too_slow() {
            self.overfull = None;
        }
    }

    /// Lets go those who wait for room, and forgets that the client was too slow.
    pub fn trust(&mut self) {
        self.overfull = None;
    }

    /// Whether the client was sent what it has to acknowledge.
    pub fn awaits_answers(&self) -> bool {
        self.sent > 0
    }

    /// Takes a message that was checked.
    pub fn push(&mut self, delivery: Delivery, kept: Option<Kept>) {
        self.waiting_bytes += delivery.message.bytes();
        self.waiting.push_back(Waiting { delivery, kept, dup: false });
    }

    /// Takes a message back from the store, in its order. `dup`: it may have been sent.
    pub fn restore(&mut self, Row { place, packet_id, delivery }: Row, dup: bool) {
        match delivery {
            None => self.in_flight.push_back(InFlight { packet_id, delivery: None, place: Some(place) }),
            Some(delivery) => {
                self.waiting_bytes += delivery.message.bytes();
                self.waiting.push_back(Waiting { delivery, kept: Some(Kept { place, packet_id }), dup });
            }
        }
    }

    /// What waits and is kept, and where, of a session that nobody was sent anything of.
    pub fn into_kept(self) -> Vec<(Delivery, Place)> {
        let kept = |waiting: Waiting| waiting.kept.map(|kept| (waiting.delivery, kept.place));
        self.waiting.into_iter().filter_map(kept).collect()
    }

    /// The places of all kept messages.
    pub fn places(&self) -> Vec<Place> {
        let in_flight = self.in_flight.iter().filter_map(|entry| entry.place);
        in_flight.chain(self.waiting.iter().filter_map(|waiting| waiting.kept.map(|kept| kept.place))).collect()
    }

    /// The oldest kept message.
    pub fn oldest(&self) -> Option<Place> {
        let in_flight = self.in_flight.iter().filter_map(|entry| entry.place);
        let waiting = self.waiting.iter().filter_map(|waiting| waiting.kept.map(|kept| kept.place));
        // Each of the two is in the order of places, but what is restored released stands before what is not.
        in_flight.min().into_iter().chain(waiting.take(1)).min()
    }

    /// What the store may forget, since the last call.
    pub fn take_left(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.left)
    }

    /// The last kept message that was sent since the last call.
    pub fn take_sent(&mut self) -> Option<Place> {
        self.last_sent.take()
    }

    /// Forgets what the store has: it goes on elsewhere, or later.
    pub fn forget_kept(&mut self) {
        self.waiting.retain(|waiting| waiting.kept.is_none());
        self.in_flight.retain(|entry| entry.place.is_none());
        self.sent = 0;
        self.count();
    }

    /// The place of the message in flight with this packet id.
    pub fn place(&self, packet_id: PacketId) -> Option<Place> {
        self.position(packet_id).and_then(|at| self.in_flight[at].place)
    }

    /// PUBREL of this message is due at `position` of the journal.
    pub fn release_at(&mut self, packet_id: PacketId, position: u64) {
        self.releases.push_back((packet_id, position));
    }

    /// Whether PUBREL of this message waits already.
    pub fn awaits_release(&self, packet_id: PacketId) -> bool {
        self.releases.iter().any(|(id, _)| *id == packet_id)
    }

    /// Another connection: what is in flight is sent again.
    pub fn resume(&mut self) {
        self.sent = 0;
        self.releases.clear(); // each of them is sent again
    }

    /// What to send next, with at most `window` messages in flight; `durable` says whether a position of the journal is.
    pub fn next(&mut self, window: usize, last_packet_id: &mut u16, durable: impl Fn(u64) -> bool) -> Next {
        let due = self.releases.pop_front_if(|(_, position)| durable(*position));
        let release = due.map(|(packet_id, _)| Next::Release { packet_id });
        let resend = release.or_else(|| self.resend(window));
        resend.or_else(|| self.send(window, last_packet_id)).unwrap_or(Next::Nothing)
    }

    fn resend(&mut self, window: usize) -> Option<Next> {
        let InFlight { packet_id, delivery, .. } = self.in_flight.get(self.sent)?;
        let packet_id = *packet_id;
        let next = match delivery {
            None => Next::Release { packet_id },
            Some(_) if self.sent >= window => return None,
            Some(delivery) => Next::Send { delivery: delivery.clone(), packet_id: Some(packet_id), dup: true },
        };
        self.sent += 1;
        Some(next)
    }

    fn send(&mut self, window: usize, last_packet_id: &mut u16) -> Option<Next> {
        let answered = self.waiting.front()?.delivery.qos != Qos::AtMostOnce;
        if answered && self.in_flight.len() >= window {
            return None;
        }
        let Waiting { delivery, kept, dup } = self.waiting.pop_front()?;
        self.waiting_bytes -= delivery.message.bytes();
        if !answered {
            return Some(Next::Send { delivery, packet_id: None, dup: false });
        }
        let packet_id = kept.map_or_else(|| self.free_packet_id(last_packet_id), |kept| kept.packet_id);
        let place = kept.map(|kept| kept.place);
        self.last_sent = self.last_sent.max(place);
        self.in_flight.push_back(InFlight { packet_id, delivery: Some(delivery.clone()), place });
        self.sent += 1;
        Some(Next::Send { delivery, packet_id: Some(packet_id), dup })
    }

    /// A packet id that is neither in flight nor given to a message that waits [MQTT-2.2.1-4].
    pub fn free_packet_id(&self, last_packet_id: &mut u16) -> PacketId {
        loop {
            *last_packet_id = last_packet_id.wrapping_add(1);
            let waits = |id: &PacketId| self.waiting.iter().any(|w| w.kept.is_some_and(|kept| kept.packet_id == *id));
            let flies = |id: &PacketId| self.in_flight.iter().any(|entry| entry.packet_id == *id);
            if let Some(id) = PacketId::new(*last_packet_id).filter(|id| !flies(id) && !waits(id)) {
                return id; // found before all are tried: window and inbox are smaller than the range of ids
            }
        }
    }

    /// The client answers message `packet_id`.
    pub fn answer(&mut self, packet_id: PacketId, answer: Answer) -> Answered {
        let Some(at) = self.position(packet_id) else { return Answered::Unknown };
        let qos = self.in_flight[at].delivery.as_ref().map(|delivery| delivery.qos);
        match (answer, qos) {
            (Answer::Acknowledged, Some(Qos::AtLeastOnce))
            | (Answer::Refused, Some(Qos::ExactlyOnce))
            | (Answer::Completed, None) => {
                self.remove(at);
                Answered::Done
            }
            (Answer::Received, Some(Qos::ExactlyOnce)) => {
                self.in_flight[at].delivery = None; // [MQTT-4.3.3-6]: never sent again
                Answered::Release
            }
            (Answer::Received, None) => Answered::Release,
            (Answer::Acknowledged | Answer::Received | Answer::Refused | Answer::Completed, _) => Answered::Unfit,
        }
    }

    /// Message `packet_id` is not sent: it is too large, or too old.
    pub fn give_up(&mut self, packet_id: PacketId) {
        if let Some(at) = self.position(packet_id) {
            self.remove(at);
        }
    }

    fn position(&self, packet_id: PacketId) -> Option<usize> {
        self.in_flight.iter().position(|entry| entry.packet_id == packet_id)
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.in_flight.remove(at) {
            self.left.extend(entry.place);
            self.releases.retain(|(id, _)| *id != entry.packet_id);
        }
        self.sent -= usize::from(at < self.sent);
    }

    /// Drops what waits and what the client does not have, unless `wanted`; how many messages that were.
    pub fn keep(&mut self, wanted: impl Fn(&Delivery) -> bool) -> usize {
        let before = self.messages();
        let unwanted = self.waiting.iter().filter(|waiting| !wanted(&waiting.delivery));
        self.left.extend(unwanted.filter_map(|waiting| waiting.kept.map(|kept| kept.place)));
        self.waiting.retain(|waiting| wanted(&waiting.delivery));
        self.count();
        let stays = |entry: &InFlight| entry.delivery.as_ref().is_none_or(&wanted);
        let sent = self.in_flight.iter().take(self.sent).filter(|entry| stays(entry)).count();
        self.left.extend(self.in_flight.iter().filter(|entry| !stays(entry)).filter_map(|entry| entry.place));
        self.in_flight.retain(stays);
        self.sent = sent;
        before - self.messages()
    }
}
