//! One connection of a loop: moves its bytes, carries out the state machine's effects, keeps its deadlines.
//!
//! No decision about MQTT is made here. While a connection is idle it owns no buffer, no task and no timer: what it
//! reads goes to the loop's one buffer, and only what is left of a packet is kept.

mod effects;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::task::AbortHandle;

use super::hands::{Asked, Entry, Hands};
use super::lanes::LaneId;
use super::transport::Transport;
use super::wheel::Wheel;
use crate::domain::connection::{Close, Connection};
use crate::domain::link::{Link, Place};
use crate::domain::message::{Message, Publisher};
use crate::domain::sessions::Awaited;
use crate::server::questions::Answer;

/// How long a closed connection's last packets may take; a revoked client that does not read is out in time (P5).
const FLUSH_MS: u64 = 500;
/// Reads and writes of one connection in one turn; others are waiting.
const STEPS_MAX: usize = 4;
/// Not in the wheel.
const NEVER: u64 = u64::MAX;

/// How ready a transport has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub read: bool,
    pub write: bool,
    /// The peer has ended its side: a short read is not the last.
    pub hangup: bool,
}

impl Readiness {
    /// For whatever is wanted.
    pub const ALL: Self = Self { read: true, write: true, hangup: false };
}

/// What is to become of a connection after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits.
    Idle,
    /// There is more to do at once.
    Again,
    /// It is closed.
    Gone,
}

/// One connection.
pub struct Slot<T> {
    transport: T,
    connection: Connection,
    pub link: Arc<Link>,
    place: Place,
    /// What is left of a packet that is not whole, or may not be taken yet.
    input: Option<Box<BytesMut>>,
    stage: Stage,
    /// Messages for another lane than those that are on their way.
    #[expect(clippy::box_collection, reason = "nearly always absent, and every connection has room for it")]
    waiting: Option<Box<VecDeque<Arc<Message>>>>,
    settling: Option<Box<Settling>>,
    /// The step of the wheel it is next looked at.
    due: u64,
    /// Since when the peer takes no bytes, while some wait; monotonic.
    stalled_ms: u64,
    /// Messages in `lane_now` that are not stored.
    outstanding: u32,
    lane_now: LaneId,
    /// Of its own device.
    lane: LaneId,
    /// Whether it is in the loop's list of those with something to do.
    pub queued: bool,
    readable: bool,
    writable: bool,
    hangup: bool,
    /// The peer has sent all it will.
    ended: bool,
    /// The transport is ready for packets.
    secured: bool,
    /// Room for presence reports is taken, and not yet handed over to a session.
    reserved: bool,
    /// Not read until there is room in its lane.
    held: bool,
}

enum Stage {
    Arriving,
    /// What its CONNECT waits for is asked.
    Asking(Asked),
    /// It has its session, and is told so when what is new of that is settled.
    Attached(Box<Untold>),
    Live,
    /// Only its last packets are left to write, until then; monotonic.
    Closing {
        until_ms: u64,
    },
}

/// SUBSCRIBEs and UNSUBSCRIBEs that wait to be answered.
struct Settling {
    /// What has to be settled before, oldest first; as many as the connection keeps answers for.
    awaited: VecDeque<Awaited>,
    /// Waits for the oldest.
    waiting: AbortHandle,
}

/// A connection that has its session and does not know.
struct Untold {
    publisher: Publisher,
    asked: Asked,
}

impl<T: Transport> Slot<T> {
    /// A connection just accepted.
    pub fn new(transport: T, connection: Connection, link: Arc<Link>, place: Place) -> Self {
        Self {
            transport,
            connection,
            link,
            place,
            input: None,
            stage: Stage::Arriving,
            waiting: None,
            settling: None,
            due: NEVER,
            stalled_ms: NEVER,
            outstanding: 0,
            lane_now: 0,
            lane: 0,
            queued: false,
            readable: false,
            writable: true,
            hangup: false,
            ended: false,
            secured: false,
            reserved: false,
            held: false,
        }
    }

    pub fn place(&self) -> Place {
        self.place
    }

    pub fn entry(&self) -> Entry {
        if self.connection.is_over_limit() { Entry::OverLimit } else { Entry::Admitted }
    }

    /// Whether it is not read until there is room in its lane.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The transport can go on.
    pub fn stir(&mut self, readiness: Readiness) {
        self.readable |= readiness.read;
        self.writable |= readiness.write;
        self.hangup |= readiness.hangup;
    }

    /// There may be room in its lane.
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Takes the signals of its link.
    pub fn signalled(&mut self, hands: &Hands) {
        let signals = self.link.take();
        if self.is_closing() {
            return;
        }
        if signals.not_stored {
            self.connection.not_stored();
        }
        if let Some(stop) = signals.stop {
            self.connection.stop(stop);
        }
        if let Some(identity) = signals.identity {
            self.connection.reauthorized(identity, hands.now);
        }
        self.connection.withhold(self.link.is_withheld(), hands.now);
        self.connection.deliver(hands.now);
    }

    /// Takes the answer to its question; gives it back if it does not wait for it.
    pub fn answered(&mut self, answer: Answer, hands: &mut Hands) -> Option<Answer> {
        match (std::mem::replace(&mut self.stage, Stage::Arriving), answer) {
            (Stage::Asking(_), Answer::Identity(answer)) => {
                self.reserved = answer.is_ok();
                self.connection.authenticated(answer);
            }
            (Stage::Asking(_), Answer::Owner(admission, claim)) => self.attach(*admission, claim, hands),
            (Stage::Attached(untold), Answer::Settled(attached)) => {
                let has_ended = self.connection.is_closed();
                self.stage = if has_ended { Stage::Attached(untold) } else { Stage::Live };
                self.connection.attached(*attached, hands.now);
            }
            (stage @ (Stage::Asking(_) | Stage::Attached(_)), Answer::Failed) => {
                self.stage = stage;
                self.connection.lost();
            }
            (stage, answer) => {
                self.stage = stage;
                return Some(answer);
            }
        }
        None
    }

    /// What its oldest unanswered SUBSCRIBE or UNSUBSCRIBE waits for is settled.
    pub fn settled(&mut self, hands: &Hands) {
        let Some(mut settling) = self.settling.take() else { return };
        if self.is_closing() {
            return;
        }
        settling.awaited.pop_front();
        self.connection.subscribed(hands.now);
        if let Some(awaited) = settling.awaited.front() {
            settling.waiting = hands.settle(self.place, *awaited);
            self.settling = Some(settling);
        }
    }

    /// A SUBSCRIBE or UNSUBSCRIBE is answered in its turn, when what is awaited is settled.
    fn settle(&mut self, awaited: Awaited, hands: &Hands) {
        match &mut self.settling {
            Some(settling) => settling.awaited.push_back(awaited),
            None if awaited.is_nothing() => self.connection.subscribed(hands.now),
            None => {
                let waiting = hands.settle(self.place, awaited);
                self.settling = Some(Box::new(Settling { awaited: VecDeque::from([awaited]), waiting }));
            }
        }
    }

    /// The oldest `count` of its messages that are on their way are stored.
    pub fn stored(&mut self, count: usize, hands: &mut Hands) {
        self.outstanding = self.outstanding.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
        self.connection.withhold(self.link.is_withheld(), hands.now);
        self.connection.stored(count, hands.now);
        self.stage_waiting(hands);
    }

    /// Its step of the wheel is over; whether it is to be worked on.
    pub fn due(&mut self, step: u64, hands: &Hands) -> bool {
        if self.due != step {
            return false; // of an earlier deadline
        }
        self.due = NEVER;
        if self.is_closing() {
            return true;
        }
        let now_ms = hands.now.monotonic_ms;
        if now_ms >= self.stalled_ms.saturating_add(hands.shared.write_ms) {
            self.connection.lost();
        }
        if self.held || self.waiting.is_some() {
            self.connection.not_listening(hands.now);
        }
        self.connection.tick(hands.now);
        true
    }

    /// Reads, takes packets, carries out effects and writes, as far as it goes without waiting.
    pub fn work(&mut self, hands: &mut Hands) -> Outcome {
        if self.is_closing() {
            return self.finish(hands);
        }
        self.secure(hands);
        let mut outcome = Outcome::Again;
        for _ in 0..STEPS_MAX {
            if let Some(close) = self.advance(hands) {
                self.let_go(&close, hands);
                return self.finish(hands);
            }
            let wrote = self.write(hands);
            let reads = self.may_read(hands);
            if reads {
                self.read(hands);
            }
            if !wrote && !reads {
                outcome = Outcome::Idle;
                break;
            }
        }
        self.arm(hands);
        outcome
    }

    fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. })
    }

    /// Goes on with the transport's handshake.
    fn secure(&mut self, hands: &Hands) {
        if self.secured {
            return;
        }
        let secured = match self.transport.introduce() {
            Ok(source) => {
                self.connection.introduced(source);
                self.transport.secure()
            }
            Err(error) => Err(error),
        };
        match secured {
            Ok(certificate) => {
                self.secured = true;
                // What came with the end of the handshake is here already, and nobody says again that it is readable.
                self.readable |= !self.transport.is_emptied_by(0, 1);
                self.connection.secured(certificate, hands.now);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                hands.shared.node.telemetry.transport_failed(self.connection.peer(), &error);
                self.connection.lost();
            }
        }
    }

    /// Takes packets and carries out effects until there are no more, or the connection is to be closed.
    fn advance(&mut self, hands: &mut Hands) -> Option<Close> {
        loop {
            let taken = self.take_left(hands);
            match self.carry_out(hands) {
                ControlFlow::Break(close) => return Some(close),
                ControlFlow::Continue(carried) if taken || carried => {}
                ControlFlow::Continue(_) if self.ended && self.takes() => self.connection.lost(),
                ControlFlow::Continue(_) => return None,
            }
        }
    }

    /// Whether the next packet would be taken.
    fn takes(&self) -> bool {
        self.waiting.is_none() && !self.held && self.connection.takes_packets()
    }

    /// Shows the state machine what was left; whether it has taken any of it.
    fn take_left(&mut self, hands: &Hands) -> bool {
        if !self.takes() {
            return false;
        }
        let Some(input) = &mut self.input else { return false };
        let taken = self.connection.receive(input, hands.now);
        input.advance(taken);
        if input.is_empty() {
            self.input = None;
        }
        taken > 0
    }

    fn may_read(&mut self, hands: &mut Hands) -> bool {
        let buffered = self.input.as_ref().map_or(0, |input| input.len());
        let wants = self.secured && self.readable && !self.ended && self.waiting.is_none() && !self.held;
        if !wants || !self.connection.wants_bytes(buffered) {
            return false;
        }
        if matches!(self.stage, Stage::Live) {
            // That of shadows as well, while messages are on their way there.
            let lanes = [Some(self.lane), (self.outstanding > 0).then_some(self.lane_now)];
            let full = lanes.into_iter().flatten().find(|lane| hands.appends.holds(*lane));
            self.held = full.is_some();
            hands.held.extend(full.map(|lane| (lane, self.place)));
        }
        !self.held
    }

    fn read(&mut self, hands: &mut Hands) {
        match self.transport.read(&mut hands.room) {
            Ok(0) => self.ended = true,
            Ok(bytes) => {
                self.readable = self.hangup || !self.transport.is_emptied_by(bytes, hands.room.len());
                self.take_in(&hands.room[..bytes], hands);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.connection.lost(),
        }
    }

    fn take_in(&mut self, bytes: &[u8], hands: &Hands) {
        if let Some(input) = &mut self.input {
            return input.extend_from_slice(bytes);
        }
        let taken = if self.takes() { self.connection.receive(bytes, hands.now) } else { 0 };
        if taken < bytes.len() {
            self.input = Some(Box::new(BytesMut::from(&bytes[taken..])));
        }
    }

    /// Writes what waits, and what the room lets follow; whether the peer has taken any.
    fn write(&mut self, hands: &Hands) -> bool {
        if !self.writable {
            return false;
        }
        let written = write_some(&mut self.transport, &mut self.connection);
        match written {
            Ok(bytes) => {
                self.stalled_ms = NEVER;
                if bytes > 0 {
                    self.connection.deliver(hands.now);
                }
                bytes > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                if self.stalled_ms == NEVER {
                    self.stalled_ms = hands.now.monotonic_ms;
                }
                false
            }
            Err(_) => {
                self.connection.lost();
                true
            }
        }
    }

    /// Lets go of the session, and of everything but the last packets.
    fn let_go(&mut self, close: &Close, hands: &mut Hands) {
        let (node, peer) = (hands.shared.node.clone(), self.connection.peer());
        let waiting = self.waiting.take();
        for message in waiting.into_iter().flat_map(|waiting| *waiting) {
            self.stage_message(hands.appends.lane(&message, self.lane), message, hands);
        }
        let hears = self.transport.closing(close);
        let until_ms = hands.now.monotonic_ms + if hears { FLUSH_MS } else { 0 };
        let stage = std::mem::replace(&mut self.stage, Stage::Closing { until_ms });
        let (publisher, asked) = match stage {
            Stage::Asking(asked) => (None, Some(asked)),
            Stage::Attached(untold) => (Some(untold.publisher), Some(untold.asked)),
            Stage::Live => (self.connection.let_go(), None),
            Stage::Arriving | Stage::Closing { .. } => (None, None),
        };
        let client = publisher.as_ref().map(|publisher| publisher.client.as_str());
        match (self.connection.claims(), &close.fault) {
            (Some(claims), Some(fault)) => node.telemetry.connect_refused(claims, peer, fault),
            (None, Some(fault)) if !self.secured => node.telemetry.transport_failed(peer, fault),
            (None, None) if !self.secured => {} // said already, or gone without a word
            (Some(_), None) | (None, _) => node.telemetry.ended(client, peer, close),
        }
        if let Some(asked) = asked {
            asked.take_back();
        }
        if let Some(publisher) = &publisher {
            node.tell_close(publisher, close);
            node.detach(publisher, close.expiry_s, close.will, close.reason);
        }
        if let Some(settling) = self.settling.take() {
            settling.waiting.abort();
        }
        if std::mem::take(&mut self.reserved) {
            node.reports.release();
        }
        self.input = None;
    }

    /// Writes the last packets and closes the transport; neither a slow nor a broken peer is worth more than a moment.
    fn finish(&mut self, hands: &mut Hands) -> Outcome {
        let Stage::Closing { until_ms } = self.stage else { return Outcome::Idle };
        // Tried once in any case: a peer that has sent all it will may still read.
        let closed = self.write_last(&mut hands.room);
        match closed.map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock) if hands.now.monotonic_ms < until_ms => {
                self.arm(hands);
                Outcome::Idle
            }
            Err(ErrorKind::Interrupted) if hands.now.monotonic_ms < until_ms => Outcome::Again,
            Ok(()) | Err(_) => Outcome::Gone,
        }
    }

    fn write_last(&mut self, room: &mut [u8]) -> io::Result<()> {
        while self.connection.output_bytes() > 0 {
            write_some(&mut self.transport, &mut self.connection)?;
        }
        self.transport.close(room)
    }

    /// Sees to it that it is looked at in time.
    fn arm(&mut self, hands: &mut Hands) {
        let deadline_ms = match self.stage {
            Stage::Closing { until_ms } => Some(until_ms),
            Stage::Arriving | Stage::Asking(_) | Stage::Attached(_) | Stage::Live => {
                let write = (self.stalled_ms != NEVER).then(|| self.stalled_ms.saturating_add(hands.shared.write_ms));
                self.connection.deadline_ms().into_iter().chain(write).min()
            }
        };
        if let Some(deadline_ms) = deadline_ms.filter(|deadline_ms| Wheel::step(*deadline_ms) < self.due) {
            self.due = hands.wheel.add(self.place, deadline_ms);
        }
    }
}

/// Writes all that `connection` wants written or as much as goes; how much that was, or why nothing goes.
fn write_some(transport: &mut impl Transport, connection: &mut Connection) -> io::Result<usize> {
    let mut written = 0;
    while connection.output_bytes() > 0 {
        let output = connection.output();
        match transport.write(output) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                output.advance(bytes);
                written += bytes;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && written > 0 => return Ok(written),
            Err(error) => return Err(error),
        }
    }
    connection.tidy();
    match transport.flush() {
        Err(error) if error.kind() == ErrorKind::WouldBlock && written > 0 => Ok(written),
        flushed => flushed.map(|()| written),
    }
}
