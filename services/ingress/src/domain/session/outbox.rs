//! Messages to one client: those that wait, and those sent whose exchange is not complete.
//!
//! Domain layer, pure. Order is that of coming, and what is in flight is sent again in the order first sent
//! [MQTT-4.6.0-1, MQTT-4.6.0-6]. A message of QoS 2 leaves its place to its packet id alone when the client has it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use drover_mqtt::PacketId;
use drover_types::Qos;
use drover_types::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};

use super::{Delivery, Dropped};

/// Most messages of QoS 0 among those that wait; a reader slower than that loses them and keeps the others.
pub(super) const QOS0_WAITING_MAX: usize = INBOX_MESSAGES_MAX / 2;

/// What to send next.
#[derive(Debug)]
pub enum Next {
    /// A new message, or one sent before on an earlier connection (`dup`). No packet id: QoS 0.
    Send { delivery: Delivery, packet_id: Option<PacketId>, dup: bool },
    /// PUBREL: the client has received the message on an earlier connection [MQTT-4.4.0-1].
    Release { packet_id: PacketId },
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
    /// No message of this id is in flight.
    Unknown,
    /// The message of this id is not one that is answered so.
    Unfit,
}

/// The messages of one session on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    /// QoS 1 and 2, in the order first sent.
    in_flight: VecDeque<InFlight>,
    /// How many of `in_flight` were sent on the present connection.
    sent: usize,
}

/// Whether another client may have a message that was sent to this one [MQTT-4.8.2-5].
fn may_move(sent: &Delivery) -> bool {
    sent.qos != Qos::ExactlyOnce
}

#[derive(Debug)]
struct InFlight {
    packet_id: PacketId,
    /// `None`: QoS 2, and the client has it; its PUBCOMP is awaited.
    delivery: Option<Delivery>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
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
        self.waiting.iter().chain(sent).filter_map(|delivery| delivery.share.clone()).collect()
    }

    /// Takes out the messages of the shared subscriptions `moved`, in order, but for those of QoS 2 that were sent.
    pub fn take_shared(&mut self, moved: impl Fn(&Arc<str>) -> bool) -> Vec<Delivery> {
        let of_moved = |delivery: &Delivery| delivery.share.as_ref().is_some_and(&moved);
        let mut taken = Vec::new();
        let goes = |entry: &InFlight| entry.delivery.as_ref().is_some_and(|d| may_move(d) && of_moved(d));
        let sent = self.in_flight.iter().take(self.sent).filter(|entry| !goes(entry)).count();
        for entry in std::mem::take(&mut self.in_flight) {
            match entry.delivery {
                Some(delivery) if may_move(&delivery) && of_moved(&delivery) => taken.push(delivery),
                delivery => self.in_flight.push_back(InFlight { delivery, ..entry }),
            }
        }
        self.sent = sent;
        let (moving, staying): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(of_moved);
        self.waiting = staying.into();
        self.waiting_bytes = self.waiting.iter().map(|delivery| delivery.message.bytes()).sum();
        taken.extend(moving);
        taken
    }

    /// Takes a message for a client that is there, or of QoS 1 or 2; whether it is the first that waits.
    pub fn push(&mut self, delivery: Delivery) -> Result<bool, Dropped> {
        let bytes = delivery.message.bytes();
        if delivery.qos == Qos::AtMostOnce && self.waiting.len() >= QOS0_WAITING_MAX {
            return Err(Dropped::SlowReader);
        }
        if self.waiting.len() >= INBOX_MESSAGES_MAX || self.waiting_bytes + bytes > INBOX_BYTES_MAX {
            return Err(Dropped::InboxFull);
        }
        self.waiting.push_back(delivery);
        self.waiting_bytes += bytes;
        Ok(self.waiting.len() == 1)
    }

    /// Another connection: what is in flight is sent again.
    pub fn resume(&mut self) {
        self.sent = 0;
    }

    /// What to send next, with at most `window` messages in flight.
    pub fn next(&mut self, window: usize, last_packet_id: &mut u16) -> Next {
        self.resend(window).or_else(|| self.send(window, last_packet_id)).unwrap_or(Next::Nothing)
    }

    fn resend(&mut self, window: usize) -> Option<Next> {
        let InFlight { packet_id, delivery } = self.in_flight.get(self.sent)?;
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
        let answered = self.waiting.front()?.qos != Qos::AtMostOnce;
        if answered && self.in_flight.len() >= window {
            return None;
        }
        let delivery = self.waiting.pop_front()?;
        self.waiting_bytes -= delivery.message.bytes();
        if !answered {
            return Some(Next::Send { delivery, packet_id: None, dup: false });
        }
        let packet_id = self.free_packet_id(last_packet_id);
        self.in_flight.push_back(InFlight { packet_id, delivery: Some(delivery.clone()) });
        self.sent += 1;
        Some(Next::Send { delivery, packet_id: Some(packet_id), dup: false })
    }

    /// A packet id that is not in flight [MQTT-2.2.1-4].
    fn free_packet_id(&self, last_packet_id: &mut u16) -> PacketId {
        loop {
            *last_packet_id = last_packet_id.wrapping_add(1);
            let free = |id: &PacketId| self.in_flight.iter().all(|entry| entry.packet_id != *id);
            if let Some(id) = PacketId::new(*last_packet_id).filter(free) {
                return id; // found before all are tried: the window is smaller than the range of ids
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
        self.in_flight.remove(at);
        self.sent -= usize::from(at < self.sent);
    }

    /// Drops what waits and what the client does not have, unless `wanted`; how many messages that were.
    pub fn keep(&mut self, wanted: impl Fn(&Delivery) -> bool) -> usize {
        let before = self.messages();
        self.waiting.retain(&wanted);
        self.waiting_bytes = self.waiting.iter().map(|delivery| delivery.message.bytes()).sum();
        let stays = |entry: &InFlight| entry.delivery.as_ref().is_none_or(&wanted);
        let sent = self.in_flight.iter().take(self.sent).filter(|entry| stays(entry)).count();
        self.in_flight.retain(stays);
        self.sent = sent;
        before - self.messages()
    }
}
