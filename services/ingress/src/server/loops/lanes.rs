//! The ways into the log: one lane for each partition, shared by all loops of the node.
//!
//! One batch of a lane is under way at a time, and what comes meanwhile gathers to the next. That keeps two promises. A
//! partition that hangs stops its own devices and no others. And after a batch that failed nothing its devices sent later
//! is in the log, or what they then send again would come out behind it (P2): they are cut off from the lane in the same
//! step that ends the batch. A connection whose client has come back on another is cut off too, but for what waits here
//! already: it is ahead of all that comes by the newer one.
//!
//! A device has one lane. Requests to shadows go to other lanes: those of the devices whose shadows they are; so do answers to
//! commands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use drover_bus::partition_of;
use tokio::time::Instant;

use super::confirming::{BatchId, Confirming, Owed, Owner};
use crate::domain::link::Link;
use crate::domain::message::Message;
use crate::domain::session::Session;

/// Messages of one append; more become the next.
const BATCH_MESSAGES_MAX: usize = 4_096;
/// Bytes of one append, payloads and topics.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Messages that wait in one lane; from there on its devices are not read until half of them are gone.
const LANE_MESSAGES_MAX: usize = 8_192;
/// Bytes that wait in one lane, likewise.
const LANE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of a lane.
pub type LaneId = u16;
/// The one lane while it is not known how many partitions there are.
const EARLY: LaneId = 0;

/// Messages that are appended together.
#[derive(Default)]
pub struct Batch {
    pub messages: Vec<Arc<Message>>,
    /// Whose they are, in their order.
    pub runs: Vec<Run>,
    bytes: usize,
    /// When the first was read.
    pub since: Option<Instant>,
}

/// Messages of one connection that follow one another.
pub struct Run {
    pub link: Arc<Link>,
    /// The session they came by.
    pub session: Arc<Session>,
    pub count: usize,
}

impl Batch {
    /// Adds a message of the connection that `link` is.
    pub fn push(&mut self, message: Arc<Message>, link: &Arc<Link>, session: &Arc<Session>, now: Instant) {
        self.since.get_or_insert(now);
        self.bytes += message.bytes();
        self.messages.push(message);
        match self.runs.last_mut().filter(|run| Arc::ptr_eq(&run.link, link)) {
            Some(run) => run.count += 1,
            None => self.runs.push(Run { link: link.clone(), session: session.clone(), count: 1 }),
        }
    }

    /// Whether it holds as much as one append may.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Each message with its run.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Message>, &Run)> {
        let runs = self.runs.iter().flat_map(|run| std::iter::repeat_n(run, run.count));
        self.messages.iter().zip(runs)
    }

    /// The receipts that its connections get.
    pub fn owed(&self) -> impl Iterator<Item = (Owner, usize)> {
        self.runs.iter().filter_map(|run| Some((run.link.place()?, run.count)))
    }

    fn append(&mut self, mut other: Self) {
        self.bytes += other.bytes;
        self.messages.append(&mut other.messages);
        self.runs.append(&mut other.runs);
        self.since = self.since.or(other.since);
    }

    /// Takes out the messages of connections that are `cut` off; how many those are.
    fn drop_cut(&mut self, cut: impl Fn(&Link) -> bool) -> usize {
        if !self.runs.iter().any(|run| cut(&run.link)) {
            return 0;
        }
        let before = self.messages.len();
        let kept: Vec<bool> = self.runs.iter().map(|run| !cut(&run.link)).collect();
        let runs = self.runs.iter().zip(&kept);
        let mut keep =
            runs.flat_map(|(run, kept)| std::iter::repeat_n(*kept, run.count)).collect::<Vec<_>>().into_iter();
        self.messages.retain(|_| keep.next().unwrap_or_default());
        let mut keep = kept.into_iter();
        self.runs.retain(|_| keep.next().unwrap_or_default());
        self.bytes = self.messages.iter().map(|message| message.bytes()).sum();
        before - self.messages.len()
    }
}

#[derive(Default)]
struct Lane {
    state: Mutex<State>,
    /// Whether more waits than may, or has waited and not half of it is gone.
    full: AtomicBool,
}

#[derive(Default)]
struct State {
    /// In their order; none is larger than one append may be, but for the last messages of one read.
    waiting: VecDeque<Batch>,
    messages: usize,
    bytes: usize,
    /// Whether a batch is on its way.
    under_way: bool,
    confirming: Confirming,
    /// Loops that do not read connections because of this lane, one bit each.
    held: u64,
}

/// What follows the end of a batch.
pub struct Followed {
    /// The next batch, to be appended by whoever has ended the one before.
    pub next: Option<Batch>,
    /// Numbers of the loops that may read their connections again, one bit each.
    pub resumed: u64,
    /// Messages that were dropped, because their connections are cut off.
    pub dropped: usize,
}

/// When the receipts of a batch that is stored are told.
pub enum Receipts {
    /// All of them now.
    All,
    /// These now, and others behind those that their connections wait for.
    Some(Owed),
    /// When [`Lanes::confirmed`] is called for this batch.
    Later(BatchId),
}

/// What became of messages for a lane.
pub enum Pushed {
    /// They wait, or there are none left.
    Waiting,
    /// Nothing is under way: this is to be appended, by the caller.
    Append(Batch),
    /// They belong to other lanes by now.
    Elsewhere(Batch),
}

/// All lanes.
#[derive(Default)]
pub struct Lanes {
    early: Lane,
    /// Those of telemetry, then as many for requests to shadows and answers to commands; absent while the number of partitions is not known.
    known: OnceLock<Box<[Lane]>>,
    /// Whether the early lane is done with.
    settled: AtomicBool,
    dropped: AtomicUsize,
}

impl Lanes {
    /// Says how many partitions telemetry has; the first word counts.
    pub fn learn(&self, partitions: u32) {
        let lanes = usize::try_from(partitions.max(1)).unwrap_or(1) * 2;
        self.known.get_or_init(|| (0..lanes).map(|_| Lane::default()).collect());
        self.settle(&self.early.lock());
    }

    /// The lane of a device's messages.
    pub fn of_device(&self, key: &str) -> LaneId {
        self.of(key, 0)
    }

    /// The lane of requests to the shadow of a device, and of its answers to commands.
    pub fn of_shadow(&self, key: &str) -> LaneId {
        self.of(key, 1)
    }

    fn of(&self, key: &str, half: usize) -> LaneId {
        let Some(lanes) = self.known.get().filter(|_| self.settled.load(Ordering::Acquire)) else { return EARLY };
        let partitions = lanes.len() / 2;
        let partition = partition_of(key.as_bytes(), u32::try_from(partitions).unwrap_or(u32::MAX)) as usize;
        LaneId::try_from(1 + half * partitions + partition).unwrap_or(EARLY)
    }

    fn lane(&self, id: LaneId) -> &Lane {
        let known = self.known.get().map(|lanes| &**lanes).unwrap_or_default();
        usize::from(id).checked_sub(1).and_then(|at| known.get(at)).unwrap_or(&self.early)
    }

    /// Whether connections of the lane are not to be read: loop `number` is told when that is over.
    pub fn holds(&self, id: LaneId, number: usize) -> bool {
        let lane = self.lane(id);
        if !lane.full.load(Ordering::Acquire) {
            return false;
        }
        let mut state = lane.lock();
        let full = lane.full.load(Ordering::Acquire);
        state.held |= u64::from(full) << number;
        full
    }

    /// Adds messages, but for those of connections that are cut off: their number is added to [`Lanes::take_dropped`].
    pub fn push(&self, id: LaneId, mut batch: Batch) -> Pushed {
        let lane = self.lane(id);
        let mut state = lane.lock();
        if id == EARLY && self.settled.load(Ordering::Acquire) {
            return Pushed::Elsewhere(batch);
        }
        self.dropped.fetch_add(batch.drop_cut(Link::is_cut), Ordering::Relaxed);
        if batch.messages.is_empty() {
            return Pushed::Waiting;
        }
        if !state.under_way {
            state.under_way = true;
            return Pushed::Append(batch);
        }
        state.messages += batch.messages.len();
        state.bytes += batch.bytes;
        match state.waiting.back_mut().filter(|last| !last.is_full()) {
            Some(last) => last.append(batch),
            None => state.waiting.push_back(batch),
        }
        if state.messages >= LANE_MESSAGES_MAX || state.bytes >= LANE_BYTES_MAX {
            lane.full.store(true, Ordering::Release);
        }
        Pushed::Waiting
    }

    /// Whether no further batch of the lane may wait for other nodes while the lane goes on.
    pub fn is_full_of_unconfirmed(&self, id: LaneId) -> bool {
        self.lane(id).lock().confirming.is_full()
    }

    /// The batch under way is stored; unless it `waits` for other nodes, nothing else keeps its receipts.
    pub fn stored(&self, id: LaneId, batch: &Batch, waits: bool) -> Receipts {
        let confirming = &mut self.lane(id).lock().confirming;
        if waits {
            Receipts::Later(confirming.add(batch.owed()))
        } else if confirming.is_empty() {
            Receipts::All
        } else {
            Receipts::Some(confirming.free(batch.owed()))
        }
    }

    /// Other nodes have confirmed a batch: receipts to be told now.
    pub fn confirmed(&self, id: LaneId, batch: BatchId) -> Owed {
        let mut state = self.lane(id).lock();
        let owed = state.confirming.confirmed(batch);
        if id == EARLY {
            self.settle(&state);
        }
        owed
    }

    /// The batch under way has ended. If it `failed`, its connections and all their messages that wait are cut off.
    pub fn done(&self, id: LaneId, failed: Option<&Batch>) -> Followed {
        let lane = self.lane(id);
        let mut state = lane.lock();
        failed.into_iter().flat_map(|batch| &batch.runs).for_each(|run| run.link.not_stored());
        let mut dropped = 0;
        let mut next = None;
        while let Some(mut batch) = state.waiting.pop_front() {
            state.messages -= batch.messages.len();
            state.bytes -= batch.bytes;
            dropped += batch.drop_cut(Link::has_lost);
            if !batch.messages.is_empty() {
                next = Some(batch);
                break;
            }
        }
        state.under_way = next.is_some();
        let room = state.messages <= LANE_MESSAGES_MAX / 2 && state.bytes <= LANE_BYTES_MAX / 2;
        if room {
            lane.full.store(false, Ordering::Release);
        }
        if id == EARLY {
            self.settle(&state);
        }
        let resumed = if room { std::mem::take(&mut state.held) } else { 0 };
        Followed { next, resumed, dropped }
    }

    /// Messages that wait for the batches before them.
    pub fn waiting(&self) -> usize {
        let known = self.known.get().map(|lanes| &**lanes).unwrap_or_default();
        known.iter().chain([&self.early]).map(|lane| lane.lock().messages).sum()
    }

    /// How many messages were dropped since the last call, because their connections are cut off.
    pub fn take_dropped(&self) -> usize {
        if self.dropped.load(Ordering::Relaxed) == 0 { 0 } else { self.dropped.swap(0, Ordering::Relaxed) }
    }

    /// Leaves the early lane once nothing is in it, so that no message overtakes another of its device, nor a receipt.
    fn settle(&self, early: &State) {
        if self.known.get().is_some() && !early.under_way && early.waiting.is_empty() && early.confirming.is_empty() {
            self.settled.store(true, Ordering::Release);
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drover_types::{ClientId, TenantId};

    use super::super::mailbox::Mailbox;
    use super::*;
    use crate::domain::link::{Place, Stop};
    use crate::domain::session::tests::message;

    fn batch(link: &Arc<Link>, payloads: &[u8]) -> Batch {
        let client = ClientId::new("c").expect("valid");
        let session = Arc::new(Session::new(1, TenantId::default_tenant(), client));
        let mut batch = Batch::default();
        payloads.iter().for_each(|n| batch.push(message(vec![*n]), link, &session, Instant::now()));
        batch
    }

    fn payloads(batch: &Batch) -> Vec<u8> {
        batch.messages.iter().map(|message| message.telemetry.payload[0]).collect()
    }

    fn known(partitions: u32) -> Lanes {
        let lanes = Lanes::default();
        lanes.learn(partitions);
        lanes
    }

    #[tokio::test]
    async fn one_batch_of_a_lane_is_under_way_and_what_comes_meanwhile_is_the_next() {
        let (lanes, a, b) = (known(8), Arc::<Link>::default(), Arc::<Link>::default());
        let lane = lanes.of_device("default/a");
        let Pushed::Append(first) = lanes.push(lane, batch(&a, &[1])) else { panic!("the lane was idle") };
        assert_eq!(payloads(&first), [1]);
        assert!(matches!(lanes.push(lane, batch(&b, &[2])), Pushed::Waiting));
        assert!(matches!(lanes.push(lane, batch(&a, &[3, 4])), Pushed::Waiting));
        let other = (0..).map(|n| lanes.of_device(&n.to_string())).find(|other| *other != lane).expect("8 lanes");
        assert!(matches!(lanes.push(other, batch(&a, &[9])), Pushed::Append(_)), "another partition goes on");
        let next = lanes.done(lane, None).next.expect("some have come");
        assert_eq!(payloads(&next), [2, 3, 4]);
        assert_eq!(next.runs.iter().map(|run| run.count).collect::<Vec<_>>(), [1, 2]);
        assert!(lanes.done(lane, None).next.is_none());
        assert!(matches!(lanes.push(lane, batch(&a, &[5])), Pushed::Append(_)));
    }

    #[tokio::test]
    async fn after_a_batch_that_failed_nothing_of_its_connections_follows() {
        let (lanes, a, b) = (known(1), Arc::<Link>::default(), Arc::<Link>::default());
        let lane = lanes.of_device("d");
        let Pushed::Append(first) = lanes.push(lane, batch(&a, &[1])) else { panic!("the lane was idle") };
        lanes.push(lane, batch(&a, &[2]));
        lanes.push(lane, batch(&b, &[3]));
        let followed = lanes.done(lane, Some(&first));
        assert_eq!((payloads(&followed.next.expect("b's")), followed.dropped), (vec![3], 1));
        assert!(a.take().not_stored && !b.take().not_stored);
        lanes.push(lane, batch(&a, &[4]));
        assert!(lanes.done(lane, None).next.is_none(), "nor what it had read by then");
        assert_eq!(lanes.take_dropped(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_is_taken_over_appends_nothing_more() {
        let (lanes, old) = (known(1), Arc::<Link>::default());
        let lane = lanes.of_device("d");
        let Pushed::Append(_) = lanes.push(lane, batch(&old, &[1])) else { panic!("the lane was idle") };
        lanes.push(lane, batch(&old, &[2]));
        old.stop(Stop::TakenOver);
        lanes.push(lane, batch(&old, &[3]));
        let followed = lanes.done(lane, None);
        assert_eq!(payloads(&followed.next.expect("what came before")), [2]);
        assert_eq!((followed.dropped, lanes.take_dropped()), (0, 1));
    }

    #[tokio::test]
    async fn a_full_lane_holds_its_connections_until_half_of_it_is_gone() {
        let (lanes, link) = (known(1), Arc::<Link>::default());
        let lane = lanes.of_device("d");
        let some = vec![0; BATCH_MESSAGES_MAX / 2];
        let Pushed::Append(_) = lanes.push(lane, batch(&link, &[0])) else { panic!("the lane was idle") };
        for _ in 0..LANE_MESSAGES_MAX / some.len() {
            assert!(!lanes.holds(lane, 3));
            lanes.push(lane, batch(&link, &some));
        }
        assert!(lanes.holds(lane, 3) && lanes.holds(lane, 5));
        let sizes: Vec<_> = std::iter::from_fn(|| {
            let followed = lanes.done(lane, None);
            followed.next.map(|next| (next.messages.len(), followed.resumed))
        })
        .collect();
        assert_eq!(sizes, [(BATCH_MESSAGES_MAX, 1 << 3 | 1 << 5), (BATCH_MESSAGES_MAX, 0)], "each once");
        assert!(!lanes.holds(lane, 3));
    }

    #[tokio::test]
    async fn a_batch_that_waits_for_other_nodes_keeps_receipts_of_its_connections_and_not_its_lane() {
        let (lanes, mailbox) = (known(1), Mailbox::new(3, || ()));
        let place = |slot| Place { slot, life: 0 };
        let link = |slot| Arc::new(Link::new(mailbox.clone(), place(slot)));
        let (lane, a, b) = (lanes.of_device("d"), link(1), link(2));
        let Pushed::Append(first) = lanes.push(lane, batch(&a, &[1, 2])) else { panic!("the lane was idle") };
        let Receipts::Later(id) = lanes.stored(lane, &first, true) else { panic!("it waits") };
        assert!(lanes.done(lane, None).next.is_none());
        let mut second = batch(&b, &[3]);
        second.append(batch(&a, &[4]));
        let Pushed::Append(second) = lanes.push(lane, second) else { panic!("the lane is idle again") };
        let Receipts::Some(owed) = lanes.stored(lane, &second, false) else { panic!("the first waits yet") };
        assert_eq!(owed, [((3, place(2)), 1)]);
        assert_eq!(lanes.confirmed(lane, id), [((3, place(1)), 3)]);
        assert!(matches!(lanes.stored(lane, &second, false), Receipts::All));
    }

    #[tokio::test]
    async fn the_early_lane_is_left_when_it_is_empty() {
        let (lanes, link) = (Lanes::default(), Arc::<Link>::default());
        let early = lanes.of_device("d");
        let Pushed::Append(_) = lanes.push(early, batch(&link, &[1])) else { panic!("the lane was idle") };
        lanes.learn(8);
        assert_eq!(lanes.of_device("d"), early, "something is under way in it");
        lanes.push(early, batch(&link, &[2]));
        assert!(lanes.done(early, None).next.is_some());
        assert!(lanes.done(early, None).next.is_none());
        assert_ne!(lanes.of_device("d"), early);
        assert_ne!(lanes.of_device("d"), lanes.of_shadow("d"));
        assert!(matches!(lanes.push(early, batch(&link, &[3])), Pushed::Elsewhere(_)));
    }
}
