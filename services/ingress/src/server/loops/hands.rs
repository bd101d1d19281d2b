//! What all connections of one loop work with: the node, the buffer they read into, time, and the ways out.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_host::proxy::Balancers;
use drover_types::{RecordIds, TraceParent};
use futures::future::{self, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::appends::Appends;
use super::lanes::LaneId;
use super::mailbox::{Mail, Mailbox};
use super::wheel::Wheel;
use crate::domain::connection::Now;
use crate::domain::link::Place;
use crate::domain::message::Stamp;
use crate::domain::node::Node;
use crate::domain::sessions::Awaited;
use crate::server::questions::Answer;

/// Connections over the limit that are answered with a reason at the same time; more are just closed.
const REFUSALS_MAX: usize = 64;
/// Questions for which room is kept from turn to turn.
const ASKED_KEPT: usize = 64;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// What all loops of a node share.
pub struct Shared {
    pub node: Arc<Node>,
    /// A peer that takes no byte for this long is gone, milliseconds.
    pub write_ms: u64,
    pub doors: Doors,
    pub balancers: Balancers,
    /// Where work runs that takes time.
    pub runtime: Handle,
}

impl Shared {
    /// Lets a connection in; `None`: it is just closed. One over the limit is counted.
    pub fn enter(&self, address: SocketAddr) -> Option<Entry> {
        let entry = self.doors.enter();
        if entry != Some(Entry::Admitted) {
            self.node.telemetry.refused(address);
        }
        entry
    }
}

/// How many connections may come in.
pub struct Doors {
    connections_max: usize,
    inside: AtomicUsize,
    refused: AtomicUsize,
}

/// How a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Admitted,
    /// Only to be told that there is no room.
    OverLimit,
}

impl Doors {
    /// For `connections_max` connections, and a few more to be refused.
    pub fn new(connections_max: usize) -> Self {
        Self { connections_max, inside: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
    }

    /// Lets a connection in; `None`: it is just closed.
    pub fn enter(&self) -> Option<Entry> {
        if take(&self.inside, self.connections_max) {
            return Some(Entry::Admitted);
        }
        take(&self.refused, REFUSALS_MAX).then_some(Entry::OverLimit)
    }

    /// A connection that was let in is closed.
    pub fn leave(&self, entry: Entry) {
        let count = match entry {
            Entry::Admitted => &self.inside,
            Entry::OverLimit => &self.refused,
        };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts one more, up to `limit`; whether there was room.
fn take(count: &AtomicUsize, limit: usize) -> bool {
    let more = |now| (now < limit).then_some(now + 1);
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
}

/// What the connections of one loop work with.
pub struct Hands {
    pub shared: Arc<Shared>,
    pub mailbox: Arc<Mailbox>,
    pub appends: Appends,
    pub wheel: Wheel,
    /// Where bytes are read to, by one connection after the other.
    pub room: Box<[u8]>,
    /// The time of this turn.
    pub now: Now,
    pub instant: Instant,
    /// Connections that are not read until there is room in their lane.
    pub held: Vec<(LaneId, Place)>,
    /// Receipts that connections are to be told of.
    pub stored: Vec<(Place, usize)>,
    /// In the order in which they came: of two retained messages the later one counts.
    ids: RecordIds,
    /// Questions of this turn, at most one of each connection it has worked on.
    asked: Vec<(Place, Abortable<BoxFuture<'static, Answer>>)>,
}

/// A question of a connection on its way.
pub struct Asked(Option<future::AbortHandle>);

impl Asked {
    /// Nobody wants to know any more; the answer may be in the mail already.
    pub fn take_back(&self) {
        if let Some(question) = &self.0 {
            question.abort();
        }
    }
}

impl Hands {
    /// The hands of the loop that `mailbox` belongs to.
    pub fn new(shared: Arc<Shared>, mailbox: Arc<Mailbox>, appends: Appends) -> Self {
        let now = shared.node.now();
        Self {
            shared,
            mailbox,
            appends,
            wheel: Wheel::new(now.monotonic_ms),
            room: vec![0; READ_BYTES].into(),
            now,
            instant: Instant::now(),
            held: Vec::new(),
            stored: Vec::new(),
            ids: RecordIds::default(),
            asked: Vec::new(),
        }
    }

    /// What was read goes to the lanes, what was asked to those who answer.
    pub fn hand_over(&mut self) {
        self.appends.hand_over(&mut self.stored);
        self.ask_all();
    }

    /// The receipt of a message that came in this turn.
    pub fn stamp(&mut self, traceparent: Option<TraceParent>) -> Stamp {
        let time_ms = self.now.unix_ms;
        Stamp { id: self.ids.next(time_ms, &*self.shared.node.random), time_ms, traceparent }
    }

    /// Has a question of a connection answered, by mail. Most that need not wait for others are answered at once; the
    /// others of a turn share one task, which [`Hands::hand_over`] begins. One that panics has failed, and no other with it.
    pub fn ask(&mut self, place: Place, question: BoxFuture<'static, Answer>) -> Asked {
        let caught = AssertUnwindSafe(question).catch_unwind();
        let mut question = caught.map(|answer| answer.unwrap_or(Answer::Failed)).boxed();
        if let Some(answer) = question.as_mut().now_or_never() {
            self.mailbox.post(Mail::Answered(place, answer));
            return Asked(None);
        }
        let (handle, registration) = future::AbortHandle::new_pair();
        self.asked.push((place, Abortable::new(question, registration)));
        Asked(Some(handle))
    }

    /// Has the questions of this turn answered.
    fn ask_all(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let mailbox = self.mailbox.clone();
        let told = |(place, question): (Place, Abortable<BoxFuture<'static, Answer>>)| {
            question.map(move |answer| answer.map(|answer| (place, answer)))
        };
        let mut questions: FuturesUnordered<_> = self.asked.drain(..).map(told).collect();
        self.asked.shrink_to(ASKED_KEPT);
        self.shared.runtime.spawn(async move {
            while let Some(answered) = questions.next().await {
                // Otherwise it was taken back.
                if let Ok((place, answer)) = answered {
                    mailbox.post(Mail::Answered(place, answer));
                }
            }
        });
    }

    /// Says by mail when what a SUBSCRIBE or UNSUBSCRIBE waits for is settled.
    pub fn settle(&self, place: Place, awaited: Awaited) -> AbortHandle {
        let (node, mailbox) = (self.shared.node.clone(), self.mailbox.clone());
        let settling = self.shared.runtime.spawn(async move {
            node.settled(awaited).await;
            mailbox.post(Mail::Settled(place));
        });
        settling.abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors_let_in_as_many_as_they_may_and_refuse_a_few_more_with_a_word() {
        let doors = Doors::new(2);
        let entries: Vec<_> = (0..REFUSALS_MAX + 3).map(|_| doors.enter()).collect();
        assert_eq!(entries[1..3], [Some(Entry::Admitted), Some(Entry::OverLimit)]);
        assert_eq!(entries[REFUSALS_MAX + 1..], [Some(Entry::OverLimit), None]);
        doors.leave(Entry::Admitted);
        assert_eq!(doors.enter(), Some(Entry::Admitted));
    }
}
