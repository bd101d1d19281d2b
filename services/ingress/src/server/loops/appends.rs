//! One loop's share of the appends: what its connections sent in this turn, and the batches it has under way.
//!
//! A turn's messages for one lane go into it together. The loop that finds a lane idle appends for all, one batch after
//! the other while there are any; what other loops' connections are owed for it goes there by mail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::confirming::{BatchId, Owner};
use super::lanes::{Batch, LaneId, Lanes, Pushed, Receipts};
use super::mailbox::{Mail, Mailbox};
use crate::domain::confirmations::Confirmations;
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
    confirming: Vec<Confirm>,
}

struct Append {
    lane: LaneId,
    batch: Arc<Batch>,
    storing: Storing,
    waker: Waker,
}

/// A batch that is stored, and that other nodes and inboxes have yet to confirm.
struct Confirm {
    lane: LaneId,
    id: BatchId,
    confirmed: BoxFuture<'static, ()>,
    waker: Waker,
}

/// Resolves when a batch is stored and routed; to what its receipts have to wait for besides.
type Storing = BoxFuture<'static, Result<Confirmations, String>>;

/// What a loop can go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The append under way on the lane.
    Store(LaneId),
    /// A batch of the lane that is not confirmed.
    Confirm(LaneId, BatchId),
}

struct StepWaker {
    mailbox: Arc<Mailbox>,
    step: Step,
}

impl Wake for StepWaker {
    fn wake(self: Arc<Self>) {
        self.mailbox.post(Mail::GoOn(self.step));
    }
}

impl Appends {
    /// None yet, of loop `own`.
    pub fn new(node: Arc<Node>, lanes: Arc<Lanes>, boxes: Mailboxes, own: usize) -> Self {
        let (staged, under_way, confirming) = (Vec::new(), Vec::new(), Vec::new());
        Self { node, lanes, boxes, own, staged, under_way, confirming }
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.confirming.is_empty()
    }

    /// The lane of a message whose device's lane is `own`.
    pub fn lane(&self, message: &Message, own: LaneId) -> LaneId {
        message.for_shadows().map_or(own, |what| self.lanes.of_shadow(&what.device().to_text()))
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
            let mut elsewhere = Vec::new();
            for (lane, batch) in std::mem::take(&mut self.staged) {
                match self.lanes.push(lane, batch) {
                    Pushed::Waiting => {}
                    Pushed::Append(batch) => self.start(lane, batch, stored),
                    Pushed::Elsewhere(batch) => elsewhere.push(batch),
                }
            }
            self.stage_again(&elsewhere);
        }
        self.node.telemetry.superseded(self.lanes.take_dropped());
    }

    /// It is known by now how many partitions there are. A connection whose messages belong to several lanes is cut off
    /// before any of them is handed over: receipts are told apart by their order in one lane.
    fn stage_again(&mut self, batches: &[Batch]) {
        let mut lanes: BTreeMap<Owner, LaneId> = BTreeMap::new();
        for batch in batches {
            for (message, run) in batch.iter() {
                let own = self.lanes.of_device(&message.telemetry.key().to_text());
                let lane = self.lane(message, own);
                if run.link.place().is_some_and(|owner| *lanes.entry(owner).or_insert(lane) != lane) {
                    run.link.not_stored();
                }
                self.stage(lane, message.clone(), &run.link, &run.session, batch.since.unwrap_or_else(Instant::now));
            }
        }
    }

    /// Goes on with what can go on. What was stored is owed to `stored`.
    pub fn go_on(&mut self, step: Step, stored: &mut Vec<(Place, usize)>) {
        match step {
            Step::Store(lane) => self.go_on_storing(lane, stored),
            Step::Confirm(lane, id) => self.go_on_confirming(lane, id, stored),
        }
    }

    fn go_on_confirming(&mut self, lane: LaneId, id: BatchId, stored: &mut Vec<(Place, usize)>) {
        let at = self.confirming.iter().position(|confirm| (confirm.lane, confirm.id) == (lane, id));
        let Some(at) = at else { return };
        let Confirm { confirmed, waker, .. } = &mut self.confirming[at];
        if confirmed.poll_unpin(&mut Context::from_waker(waker)).is_ready() {
            self.confirming.swap_remove(at);
            self.tell(self.lanes.confirmed(lane, id), stored);
        }
    }

    fn go_on_storing(&mut self, lane: LaneId, stored: &mut Vec<(Place, usize)>) {
        let Some(at) = self.under_way.iter().position(|append| append.lane == lane) else { return };
        let append = &mut self.under_way[at];
        if let Poll::Ready(result) =
            poll(&mut append.storing, &append.waker, || self.lanes.is_full_of_unconfirmed(lane))
        {
            let Append { batch, .. } = self.under_way.swap_remove(at);
            if let Some(next) = self.end(lane, &batch, result, stored) {
                self.start(lane, next, stored);
            }
        }
    }

    /// Appends `batch`, and those that follow as long as they are done at once.
    fn start(&mut self, lane: LaneId, batch: Batch, stored: &mut Vec<(Place, usize)>) {
        let waker = self.waker(Step::Store(lane));
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            let batch = Arc::new(batch);
            let mut storing = store(self.node.clone(), batch.clone()).boxed();
            match poll(&mut storing, &waker, || self.lanes.is_full_of_unconfirmed(lane)) {
                Poll::Pending => {
                    let append = Append { lane, batch, storing, waker };
                    return self.under_way.push(append);
                }
                Poll::Ready(result) => next = self.end(lane, &batch, result, stored),
            }
        }
    }

    fn waker(&self, step: Step) -> Waker {
        Waker::from(Arc::new(StepWaker { mailbox: self.boxes[self.own].clone(), step }))
    }

    /// A batch is stored, or failed: tells whom it concerns. The batch that follows it.
    fn end(
        &mut self,
        lane: LaneId,
        batch: &Batch,
        result: Result<Confirmations, String>,
        stored: &mut Vec<(Place, usize)>,
    ) -> Option<Batch> {
        let failed = result.is_err();
        match result {
            Ok(confirmations) => self.owe(lane, batch, confirmations, stored),
            Err(reason) => self.node.telemetry.not_stored(&reason),
        }
        let followed = self.lanes.done(lane, failed.then_some(batch));
        self.node.telemetry.superseded(followed.dropped);
        let resumed = |mailbox: &&Arc<Mailbox>| followed.resumed & 1 << mailbox.number() != 0;
        self.boxes.iter().filter(resumed).for_each(|mailbox| mailbox.post(Mail::Room(lane)));
        followed.next
    }

    /// A batch is stored: its receipts are told when it is confirmed, and those before them are told.
    fn owe(&mut self, lane: LaneId, batch: &Batch, confirmations: Confirmations, stored: &mut Vec<(Place, usize)>) {
        match self.lanes.stored(lane, batch, !confirmations.is_empty()) {
            Receipts::All => self.tell(batch.owed(), stored),
            Receipts::Some(owed) => self.tell(owed, stored),
            Receipts::Later(id) => {
                let (confirmed, waker) = (confirmations.all().boxed(), self.waker(Step::Confirm(lane, id)));
                self.confirming.push(Confirm { lane, id, confirmed, waker });
                self.go_on_confirming(lane, id, stored);
            }
        }
    }

    /// What is owed to connections of this loop is added to `stored`, the rest goes by mail.
    fn tell(&self, owed: impl IntoIterator<Item = (Owner, usize)>, stored: &mut Vec<(Place, usize)>) {
        let mut others: Vec<Vec<(Place, usize)>> = vec![Vec::new(); self.boxes.len()];
        for ((number, place), count) in owed {
            let owed = if number == self.own { &mut *stored } else { &mut others[number] };
            owed.push((place, count));
        }
        for (mailbox, owed) in self.boxes.iter().zip(others) {
            if !owed.is_empty() {
                mailbox.post(Mail::Stored(owed));
            }
        }
    }
}

/// Goes on with a batch. If its lane is `full` of others that are not confirmed, it is stored when it is confirmed itself.
fn poll(storing: &mut Storing, waker: &Waker, full: impl Fn() -> bool) -> Poll<Result<Confirmations, String>> {
    let mut context = Context::from_waker(waker);
    match storing.poll_unpin(&mut context) {
        Poll::Ready(Ok(confirmations)) if !confirmations.is_empty() && full() => {
            *storing = confirmations.all().map(|()| Ok(Confirmations::default())).boxed();
            storing.poll_unpin(&mut context)
        }
        polled => polled,
    }
}

/// Stores a batch, then hands its messages to their subscribers. What cannot be retained now is confirmed when it is.
async fn store(node: Arc<Node>, batch: Arc<Batch>) -> Result<Confirmations, String> {
    let mut records = Vec::with_capacity(batch.messages.len());
    let record = |message: &Arc<Message>| message.outgoing(&node.topics, message.telemetry.time_ms);
    records.extend(batch.messages.iter().map(record));
    node.append(records).await.map_err(|error| error.to_string())?;
    let retained = node.retain(&batch.messages).await;
    if let Some(since) = batch.since {
        node.telemetry.stored_after(since.elapsed());
    }
    let publishers: Vec<&Session> = batch.iter().map(|(_, run)| &*run.session).collect();
    let confirmations = node.route_each(&batch.messages, &publishers).await;
    Ok(match retained {
        Ok(()) => confirmations,
        Err(error) => {
            node.telemetry.not_retained(&error);
            confirmations.and_retained(&node, &batch.messages)
        }
    })
}
