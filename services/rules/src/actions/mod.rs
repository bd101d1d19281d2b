//! The loop over the outbox for all actions but `republish`: at least once, each action of each rule in a lane of its
//! own, so that a target that hangs delays itself.
//!
//! The log is the queue. A lane takes what fits into memory and reads the rest again when it has room; the group commits
//! where the first unfinished entry of all stands, and where lanes are further is remembered beside it.

mod carry;
mod catch_up;
mod clusters;
mod progress;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Offset, Outgoing, Partition, Polled, Position, Start,
    Stored, TopicPartition,
};
use drover_host::{Backoff, Shutdown};
use drover_proto::rules::v1::outbox_entry::Work;
use drover_types::{Clock, Random, TenantId};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use carry::Carrier;
pub use clusters::{ClusterConfig, Clusters};

use crate::append::append;
use crate::domain::{
    ActionTally, Batch, Board, Due, Entries, Entry, LaneKey, Lanes, LastError, Load, OUTBOX_TOPIC, RuleSet, RuleTally,
    Verdict, Views, fault, source_of,
};
use crate::telemetry::Telemetry;

/// Consumer group of these actions.
pub const ACTIONS_GROUP: &str = "drover.rules.actions";
/// Records of one poll.
const POLL_RECORDS: usize = 500;
/// Longest wait of one poll.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// How often it is written down how far lanes are: what was done since is done again after a crash.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// Requests under way, of all lanes; most of them wait for their turn.
const REQUESTS_MAX: usize = 16_384;
/// Bytes of records in memory, about; beyond, a lane holds one entry.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Attempts whose ends are looked at in one turn.
const SETTLED_MAX: usize = 512;
/// Turns without a poll; then one is made, however many attempts end.
const TURNS_MAX: u32 = 8;
/// Lanes whose entries become dead letters by one append.
const GRAVES_MAX: usize = 64;
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// The loop.
pub struct Actions {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub member: String,
    pub carrier: Arc<Carrier>,
    pub rules: watch::Receiver<Arc<RuleSet>>,
    pub views: Arc<Views>,
    pub board: Arc<Board>,
    pub telemetry: Telemetry,
}

/// One membership, from joining to leaving.
struct Session<'a> {
    actions: &'a Actions,
    consumer: Box<dyn Consumer>,
    partitions: BTreeMap<Partition, Lanes>,
    committed: BTreeMap<Partition, Offset>,
    requests: JoinSet<Finished>,
    /// Which assignment of a partition its lanes are of; what was begun in an earlier one is not theirs.
    assignments: BTreeMap<Partition, u64>,
    assigned: u64,
    /// What this turn has to bury.
    graves: Vec<Grave>,
    checkpoint_at: Instant,
}

/// An attempt that has ended.
struct Finished {
    partition: Partition,
    assignment: u64,
    key: LaneKey,
    entries: Entries,
    verdict: Verdict,
}

/// Entries of a lane that become dead letters.
struct Grave {
    partition: Partition,
    key: LaneKey,
    entries: Entries,
    cause: String,
}

impl Actions {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let mut backoff = Backoff::default();
        loop {
            let ended = match self.join().await {
                Ok(mut session) => session.work(&shutdown, &mut backoff).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "actions begin again from the committed offsets"),
            }
            if !backoff.wait(&shutdown).await {
                return;
            }
        }
    }

    async fn join(&self) -> Result<Session<'_>, ConsumeError> {
        let config = GroupConfig {
            group: ACTIONS_GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![OUTBOX_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        let consumer = self.bus.join(config).await?;
        Ok(Session {
            actions: self,
            consumer,
            partitions: BTreeMap::new(),
            committed: BTreeMap::new(),
            requests: JoinSet::new(),
            assignments: BTreeMap::new(),
            assigned: 0,
            graves: Vec::new(),
            checkpoint_at: Instant::now(),
        })
    }

    /// Appends records and waits until they are durable.
    async fn append(&self, records: Vec<Outgoing>) -> Result<(), ConsumeError> {
        let unavailable = |reason: String| ConsumeError::Unavailable { reason };
        let receipt = self.bus.append(records).await.map_err(|error| unavailable(error.to_string()))?;
        receipt.await.map(drop).map_err(|error| unavailable(error.to_string()))
    }

    /// Makes dead letters of entries, and error actions of their rules, by one append.
    async fn bury(&self, graves: &[Grave]) -> Result<(), ConsumeError> {
        let (rules, mut batch) = (self.rules.borrow().clone(), Batch::default());
        let mut buried = 0;
        for Grave { key, entries, cause, .. } in graves {
            tracing::warn!(
                tenant = key.tenant,
                rule = key.rule,
                action = key.action,
                cause,
                "actions become dead letters"
            );
            for (_, entry) in entries {
                batch.fail_entry(&entry.work, &entry.stored, cause, &rules, &self.views);
            }
            buried += entries.len() as u64;
        }
        append(&*self.bus, &*self.clock, &mut batch).await.map_err(|reason| ConsumeError::Unavailable { reason })?;
        self.telemetry.actions_failed.inc_by(buried);
        batch.by_rule().for_each(|(key, tally)| self.board.add(key, tally));
        Ok(())
    }

    /// A number from 0 to 1.
    fn jitter(&self) -> f64 {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// Adds to the rule's status.
    fn tell(&self, key: &LaneKey, tally: ActionTally, error: Option<LastError>) {
        let Ok(tenant) = TenantId::new(&key.tenant) else { return };
        let mut told = RuleTally { last_error: error, ..RuleTally::default() };
        *told.action(key.action) = tally;
        self.board.add(&(tenant, key.rule.clone()), &told);
    }
}

impl Session<'_> {
    async fn work(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), ConsumeError> {
        let (mut wake, mut turns) = (None::<Instant>, 0);
        loop {
            let settles = turns < TURNS_MAX;
            let wait = wake.map_or(POLL_WAIT, |at| at.saturating_duration_since(Instant::now()));
            let most = if settles { POLL_WAIT } else { Duration::from_millis(1) };
            let wait = wait.clamp(Duration::from_millis(1), most);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.checkpoint().await,
                Some(finished) = self.requests.join_next(), if settles => {
                    turns += 1;
                    self.settle(ended(finished)?);
                    for _ in 1..SETTLED_MAX {
                        let Some(finished) = self.requests.try_join_next() else { break };
                        self.settle(ended(finished)?);
                    }
                }
                polled = self.consumer.poll(POLL_RECORDS, wait) => {
                    turns = 0;
                    self.take(polled?).await?;
                    backoff.reset();
                }
            }
            self.bury().await?;
            self.catch_up().await;
            wake = self.begin();
            self.bury().await?;
            if self.checkpoint_at.elapsed() >= CHECKPOINT {
                self.checkpoint().await?;
            }
        }
    }

    async fn take(&mut self, polled: Polled) -> Result<(), ConsumeError> {
        match polled {
            Polled::Idle => {}
            Polled::Assigned(positions) => {
                for Position { at, offset } in positions {
                    let remembered = progress::read(&*self.actions.bus, at.partition).await?;
                    self.partitions.insert(at.partition, Lanes::new(offset, remembered));
                    self.committed.insert(at.partition, offset);
                    self.assigned += 1;
                    self.assignments.insert(at.partition, self.assigned);
                }
            }
            Polled::Revoked(partitions) => {
                self.checkpoint().await?;
                for at in partitions {
                    self.partitions.remove(&at.partition);
                    self.committed.remove(&at.partition);
                    self.assignments.remove(&at.partition);
                }
            }
            Polled::Records(records) => {
                let room = self.has_room();
                records.into_iter().for_each(|stored| self.take_one(stored, room));
            }
        }
        Ok(())
    }

    fn take_one(&mut self, stored: Stored, room: bool) {
        let Position { at, offset } = stored.position.clone();
        let Some(lanes) = self.partitions.get_mut(&at.partition) else { return };
        match Entry::read(stored) {
            // Those are the other group's, and so is what nobody can read. What a newer version has to do, and this one does
            // not know, has a lane as any: its entries become dead letters, by which it can be done again.
            Ok(entry) if matches!(entry.work.work, Some(Work::Republish(_))) => {}
            Ok(entry) => lanes.take(entry, room),
            Err(error) => tracing::error!(%error, at.partition, offset, "an entry of the outbox cannot be read"),
        }
        lanes.passed(offset + 1);
    }

    fn has_room(&self) -> bool {
        self.load().bytes < BYTES_MAX
    }

    /// What lanes of all partitions hold.
    fn load(&self) -> Load {
        let mut load = Load::default();
        self.partitions.values().for_each(|lanes| load.add(lanes.load()));
        load
    }

    /// Begins what is due; when the next will be.
    fn begin(&mut self) -> Option<Instant> {
        let (now, now_ms) = (Instant::now(), self.actions.clock.now_ms());
        let mut wake = None::<Instant>;
        for (partition, lanes) in &mut self.partitions {
            let budget = REQUESTS_MAX.saturating_sub(self.requests.len());
            let (due, at) = lanes.due(now, now_ms, budget);
            wake = [wake, at].into_iter().flatten().min();
            let assignment = self.assignments.get(partition).copied().unwrap_or_default();
            for (key, due) in due {
                match due {
                    Due::Nothing(_) => {}
                    Due::GiveUp(entries) => {
                        let cause = "its target has not answered for a day".to_owned();
                        self.graves.push(Grave { partition: *partition, key, entries, cause });
                    }
                    Due::Try(entries) => {
                        let (carrier, partition) = (self.actions.carrier.clone(), *partition);
                        self.requests.spawn(async move {
                            let work: Vec<Arc<Entry>> = entries.iter().map(|(_, entry)| entry.clone()).collect();
                            // One that ends in a panic would be tried again after each, and all others with it.
                            let attempt = AssertUnwindSafe(carrier.carry_out(&work)).catch_unwind();
                            let verdict = attempt.await.unwrap_or_else(|panic| Verdict::Refused(fault(&*panic)));
                            Finished { partition, assignment, key, entries, verdict }
                        });
                    }
                }
            }
        }
        wake
    }

    /// Buries what this turn has brought.
    async fn bury(&mut self) -> Result<(), ConsumeError> {
        let graves = std::mem::take(&mut self.graves);
        for some in graves.chunks(GRAVES_MAX) {
            self.actions.bury(some).await?;
            for Grave { partition, key, entries, .. } in some {
                if let Some(lanes) = self.partitions.get_mut(partition) {
                    lanes.remove(key, &offsets(entries));
                }
            }
        }
        Ok(())
    }

    /// What came of an attempt.
    fn settle(&mut self, finished: Finished) {
        let Finished { partition, assignment, key, entries, verdict } = finished;
        let (now, jitter) = ((Instant::now(), self.actions.clock.now_ms()), self.actions.jitter());
        for (_, others) in self.partitions.iter_mut().filter(|(other, _)| **other != partition) {
            others.hear(&key, &verdict, now.0);
        }
        // It has left meanwhile: another member does this again, or this one, if it has come back.
        if self.assignments.get(&partition) != Some(&assignment) {
            return;
        }
        let Some(lanes) = self.partitions.get_mut(&partition) else { return };
        let spent = lanes.settle(&key, &offsets(&entries), &verdict, now, jitter);
        let (count, telemetry) = (entries.len() as u64, &self.actions.telemetry);
        let cause = match verdict {
            Verdict::Done => {
                telemetry.actions_delivered.inc_by(count);
                self.actions.tell(&key, ActionTally { delivered: count, ..ActionTally::default() }, None);
                return;
            }
            Verdict::Later(cause) | Verdict::Away(cause) | Verdict::Refused(cause) => cause,
        };
        let retried = count - spent.len() as u64;
        if retried > 0 {
            tracing::debug!(tenant = key.tenant, rule = key.rule, action = key.action, cause, "an action waits");
            telemetry.actions_retries.inc_by(retried);
            let error = entries.first().map(|(_, entry)| waiting(entry, &cause));
            self.actions.tell(&key, ActionTally { retried, ..ActionTally::default() }, error);
        }
        if !spent.is_empty() {
            self.graves.push(Grave { partition, key, entries: spent, cause });
        }
    }

    /// Commits what is done, and writes down which lanes are further.
    async fn checkpoint(&mut self) -> Result<(), ConsumeError> {
        self.checkpoint_at = Instant::now();
        let now_ms = self.actions.clock.now_ms();
        let (mut finished, mut news, mut records) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, lanes) in &mut self.partitions {
            let offset = lanes.finished();
            if self.committed.insert(*partition, offset) != Some(offset) {
                finished.push(Position { at: TopicPartition::new(OUTBOX_TOPIC, *partition), offset });
            }
            let of_lanes = lanes.news();
            records.extend(of_lanes.iter().map(|(key, at)| progress::record(*partition, key, *at, now_ms)));
            news.push((*partition, of_lanes));
        }
        let load = self.load();
        self.actions.telemetry.actions_held(load.entries, load.suspended);
        if !finished.is_empty() {
            self.consumer.commit(finished).await?;
        }
        if !records.is_empty() {
            self.actions.append(records).await?;
        }
        for (partition, news) in news {
            if let Some(lanes) = self.partitions.get_mut(&partition) {
                lanes.remember(news);
            }
        }
        Ok(())
    }
}

fn ended(finished: Result<Finished, tokio::task::JoinError>) -> Result<Finished, ConsumeError> {
    finished.map_err(|error| ConsumeError::Unavailable { reason: format!("an action has panicked: {error}") })
}

fn offsets(entries: &Entries) -> Vec<Offset> {
    entries.iter().map(|(offset, _)| *offset).collect()
}

/// What the status says of an entry that is tried again.
fn waiting(entry: &Entry, cause: &str) -> LastError {
    let source = source_of(&entry.work, &entry.stored);
    let cause = format!("action {} waits: {cause}", entry.work.action);
    match drover_bus::repeats::telemetry(&source) {
        Ok(telemetry) => LastError::of(&source, &telemetry, &cause),
        Err(_) => LastError::of_record(&source, &cause),
    }
}
