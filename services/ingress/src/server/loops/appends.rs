//! One loop's share of the appends: what its connections sent in this turn, and the batches it has under way.
//!
//! A turn's messages for one lane go into it together. The loop that finds a lane idle appends for all, one batch after
//! the other while there are any; what other loops' connections are owed for it goes there by mail.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::lanes::{Batch, LaneId, Lanes, Pushed};
use super::mailbox::{Mail, Mailbox};
use crate::domain::link::{Link, Place};
use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::session::Session;

/// The ways to all loops of the node, by their numbers.
pub type Mailboxes = Arc<[Arc<Mailbox>]>;

/// Appends of one loop.
pub struct Appends {
    node: Arc<Node>,
    lanes: Arc<Lanes>,
    boxes: Mailboxes,
    own: usize,
    /// Read in this turn, by lane.
    staged: Vec<(LaneId, Batch)>,
    under_way: Vec<Append>,
}

struct Append {
    lane: LaneId,
    batch: Arc<Batch>,
    stored: BoxFuture<'static, Result<(), String>>,
    waker: Waker,
}

/// Has the loop look at an append again.
struct AppendWaker {
    mailbox: Arc<Mailbox>,
    lane: LaneId,
}

impl Wake for AppendWaker {
    fn wake(self: Arc<Self>) {
        self.mailbox.post(Mail::Append(self.lane));
    }
}

impl Appends {
    /// None yet, of loop `own`.
    pub fn new(node: Arc<Node>, lanes: Arc<Lanes>, boxes: Mailboxes, own: usize) -> Self {
        Self { node, lanes, boxes, own, staged: Vec::new(), under_way: Vec::new() }
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The lane of a message whose device's lane is `own`.
    pub fn lane(&self, message: &Message, own: LaneId) -> LaneId {
        message.shadow_asked().map_or(own, |device| self.lanes.of_shadow(&device.to_text()))
    }

    /// The lane of a device, by its key.
    pub fn lane_of_device(&self, key: &str) -> LaneId {
        self.lanes.of_device(key)
    }

    /// Whether connections of the lane are not to be read; the loop gets [`Mail::Room`] when they may be.
    pub fn holds(&self, lane: LaneId) -> bool {
        self.lanes.holds(lane, self.own)
    }

    /// Takes a message of the connection that `link` is.
    pub fn stage(
        &mut self,
        lane: LaneId,
        message: Arc<Message>,
        link: &Arc<Link>,
        session: &Arc<Session>,
        now: Instant,
    ) {
        let at = self.staged.iter().rposition(|(staged, batch)| *staged == lane && !batch.is_full());
        let at = at.unwrap_or_else(|| {
            self.staged.push((lane, Batch::default()));
            self.staged.len() - 1
        });
        self.staged[at].1.push(message, link, session, now);
    }

    /// Hands the turn's messages to their lanes. What is stored by the time it returns is owed to `stored`.
    pub fn hand_over(&mut self, stored: &mut Vec<(Place, usize)>) {
        while !self.staged.is_empty() {
            for (lane, batch) in std::mem::take(&mut self.staged) {
                match self.lanes.push(lane, batch) {
                    Pushed::Waiting => {}
                    Pushed::Append(batch) => self.start(lane, batch, stored),
                    Pushed::Elsewhere(batch) => self.stage_again(&batch),
                }
            }
        }
        self.node.telemetry.superseded(self.lanes.take_dropped());
    }

    /// It is known by now how many partitions there are.
    fn stage_again(&mut self, batch: &Batch) {
        for (message, run) in batch.iter() {
            let own = self.lanes.of_device(&message.telemetry.key().to_text());
            let lane = self.lane(message, own);
            self.stage(lane, message.clone(), &run.link, &run.session, batch.since.unwrap_or_else(Instant::now));
        }
    }

    /// The append under way on `lane` can go on. What was stored is owed to `stored`.
    pub fn go_on(&mut self, lane: LaneId, stored: &mut Vec<(Place, usize)>) {
        let Some(at) = self.under_way.iter().position(|append| append.lane == lane) else { return };
        let append = &mut self.under_way[at];
        if let Poll::Ready(result) = append.stored.poll_unpin(&mut Context::from_waker(&append.waker)) {
            let Append { batch, .. } = self.under_way.swap_remove(at);
            if let Some(next) = self.end(lane, &batch, result, stored) {
                self.start(lane, next, stored);
            }
        }
    }

    /// Appends `batch`, and those that follow as long as they are done at once.
    fn start(&mut self, lane: LaneId, batch: Batch, stored: &mut Vec<(Place, usize)>) {
        let waker = Waker::from(Arc::new(AppendWaker { mailbox: self.boxes[self.own].clone(), lane }));
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            let batch = Arc::new(batch);
            let mut storing = store(self.node.clone(), batch.clone()).boxed();
            match storing.poll_unpin(&mut Context::from_waker(&waker)) {
                Poll::Pending => {
                    let append = Append { lane, batch, stored: storing, waker };
                    return self.under_way.push(append);
                }
                Poll::Ready(result) => next = self.end(lane, &batch, result, stored),
            }
        }
    }

    /// A batch is stored, or failed: tells whom it concerns. The batch that follows it.
    fn end(
        &self,
        lane: LaneId,
        batch: &Batch,
        result: Result<(), String>,
        stored: &mut Vec<(Place, usize)>,
    ) -> Option<Batch> {
        match &result {
            Ok(()) => self.tell(batch, stored),
            Err(reason) => self.node.telemetry.not_stored(reason),
        }
        let followed = self.lanes.done(lane, result.is_err().then_some(batch));
        self.node.telemetry.superseded(followed.dropped);
        let resumed = |mailbox: &&Arc<Mailbox>| followed.resumed & 1 << mailbox.number() != 0;
        self.boxes.iter().filter(resumed).for_each(|mailbox| mailbox.post(Mail::Room(lane)));
        followed.next
    }

    /// What is owed to connections of this loop is added to `stored`, the rest goes by mail.
    fn tell(&self, batch: &Batch, stored: &mut Vec<(Place, usize)>) {
        let mut others: Vec<Vec<(Place, usize)>> = vec![Vec::new(); self.boxes.len()];
        for run in &batch.runs {
            let Some((number, place)) = run.link.place() else { continue };
            let owed = if number == self.own { &mut *stored } else { &mut others[number] };
            owed.push((place, run.count));
        }
        for (mailbox, owed) in self.boxes.iter().zip(others) {
            if !owed.is_empty() {
                mailbox.post(Mail::Stored(owed));
            }
        }
    }
}

/// Stores a batch, then hands its messages to their subscribers.
async fn store(node: Arc<Node>, batch: Arc<Batch>) -> Result<(), String> {
    let mut records = Vec::with_capacity(batch.messages.len());
    records.extend(batch.messages.iter().map(|message| message.outgoing(&node.topics)));
    node.store(&batch.messages, records).await.map_err(|error| error.to_string())?;
    if let Some(since) = batch.since {
        node.telemetry.stored_after(since.elapsed());
    }
    let publishers: Vec<&Session> = batch.iter().map(|(_, run)| &*run.session).collect();
    node.route_each(&batch.messages, &publishers).await;
    Ok(())
}
