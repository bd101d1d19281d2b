//! The loop that keeps "exactly once": records in, outputs and next offsets out in one transaction.
//!
//! Rules that group messages have states, which are written in the same transaction and read back before a partition's
//! records are looked at; their windows also close by the clock, where no record comes.
//!
//! Whatever leaves the fate of a batch in doubt ends the session: everything in memory is dropped, and the next session
//! starts from the committed offsets with windows rebuilt from the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drover_bus::{
    AppendError, Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Partition, Polled, Position, ReadError,
    Stalled, Start, Stored, TopicPartition, TransactError, Transaction, Transactor, repeats,
};
use drover_host::{Backoff, Ready, Shutdown};
use drover_types::object::FunctionSpec;
use drover_types::repeat::RepeatWindow;
use drover_types::{Clock, TELEMETRY_TOPIC, TenantId};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::domain::{Batch, Board, Evaluation, InForce, RuleSet, States, Views, Waiting};
use crate::functions::{BATCH_MAX, Functions};
use crate::restore;
use crate::telemetry::{self, Telemetry};

/// Consumer group of the engine.
pub const GROUP: &str = "drover.rules";
/// Records of one poll.
const POLL_RECORDS: usize = 500;
/// Records written by one transaction, about; bounds its memory and how long others wait for it.
const BATCH_OUTPUTS: usize = 5_000;
/// Bytes of states written by one transaction, about; a single one comes to 64 KiB at most.
const BATCH_STATE_BYTES: usize = 4 * 1024 * 1024;
/// Longest that windows are closed at a stretch, about: meanwhile nobody looks at records, revocations or shutdown.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// Longest that records are evaluated at a stretch, about, for the same reason; what is left of a poll is read again.
const EVALUATING_MAX: Duration = Duration::from_secs(5);
/// How often rules that group messages are told what the clock says.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait for what the log says of the partitions where no record comes.
const ASKED_MAX: Duration = Duration::from_millis(200);
/// A partition that did not answer is asked again after this: by then the Kafka client has given up as well.
const SILENT: Duration = Duration::from_secs(15);
/// Offsets of records that matched nothing are committed this often; outputs do not wait for others for longer.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Telemetry through rules.
pub struct Engine {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub rules: watch::Receiver<Arc<RuleSet>>,
    pub board: Arc<Board>,
    pub in_force: Arc<InForce>,
    pub functions: Functions,
    pub views: Arc<Views>,
    pub telemetry: Telemetry,
    pub ready: Ready,
    pub member: String,
    /// Set when the log knows an output topic no longer.
    pub missing: Arc<AtomicBool>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("{0}")]
    Consume(#[from] ConsumeError),
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Transact(#[from] TransactError),
    #[error("records of partition {0} came without its assignment")]
    Unassigned(Partition),
    #[error("functions cannot be called: {0}")]
    Functions(String),
    #[error("process is stopping")]
    Stopping,
}

/// One membership, from joining to leaving.
struct Session<'e> {
    engine: &'e Engine,
    consumer: Box<dyn Consumer>,
    transactor: Box<dyn Transactor>,
    windows: HashMap<Partition, RepeatWindow>,
    /// The rules that `states` are of.
    rules: Arc<RuleSet>,
    states: States,
    batch: Batch,
    /// When the last commit ended, and how long it took.
    committed: (Instant, Duration),
    ticked_at: Instant,
    /// Partitions of which the log did not say in time where they end, and when they were asked.
    silent: HashMap<Partition, Instant>,
    /// Partitions that cannot be read, as readiness says.
    stalled: Vec<Stalled>,
}

impl Engine {
    /// Works until `shutdown`. An error: another process has taken this member's name.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        loop {
            let ended = match self.join().await {
                Ok(mut session) => session.work(&shutdown, &mut backoff).await,
                Err(error) => Err(error),
            };
            self.in_force.leave();
            match ended {
                Ok(()) | Err(Interrupted::Stopping) => return Ok(()),
                Err(Interrupted::Transact(fenced @ TransactError::Fenced { .. })) => return Err(fenced.into()),
                Err(interrupted) => {
                    tracing::debug!(%interrupted, "rules begin again from the committed offsets");
                    self.telemetry.restarts.inc();
                    self.ready.waiting(interrupted.to_string());
                }
            }
            if !backoff.wait(&shutdown).await {
                return Ok(());
            }
        }
    }

    async fn join(&self) -> Result<Session<'_>, Interrupted> {
        let config = GroupConfig {
            group: GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![TELEMETRY_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        // The transactor first: it ends what an earlier process of this name left open.
        let transactor = self.bus.transactor(&format!("{GROUP}.{}", self.member)).await?;
        let consumer = self.bus.join(config).await?;
        let (windows, batch) = (HashMap::new(), Batch::default());
        let (rules, states) = (self.rules.borrow().clone(), States::default());
        self.in_force.follow(&rules, &states.offsets());
        let (committed, ticked_at) = ((Instant::now(), Duration::ZERO), Instant::now());
        let (silent, stalled) = (HashMap::new(), Vec::new());
        let engine = self;
        Ok(Session {
            engine,
            consumer,
            transactor,
            windows,
            rules,
            states,
            batch,
            committed,
            ticked_at,
            silent,
            stalled,
        })
    }

    /// What time it is in a partition where no record comes; `None` if the log does not say.
    async fn clock_of(&self, waiting: Waiting, now_ms: u64) -> Option<u64> {
        match self.bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, waiting.partition)).await {
            Ok(bounds) if bounds.end <= waiting.next.max(bounds.earliest) => Some(now_ms),
            Ok(_) => Some(waiting.clock_ms),
            Err(error) => {
                tracing::debug!(%error, "windows wait for the log");
                None
            }
        }
    }

    /// An error if a function could not be called, so that the batch in hand is dropped and its messages come again:
    /// their rows would be missing through no fault of theirs.
    fn refuse_outage(&self) -> Result<(), Interrupted> {
        self.functions.take_outage().map_or(Ok(()), |reason| Err(Interrupted::Functions(reason)))
    }
}

impl Session<'_> {
    async fn work(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), Interrupted> {
        self.say_whether_ready();
        let mut all_closed = true;
        loop {
            let wait = if all_closed { self.gathering() } else { Duration::ZERO }.max(Duration::from_millis(1));
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.commit(shutdown, backoff).await.map(|_| ()),
                polled = self.consumer.poll(POLL_RECORDS, wait) => polled?,
            };
            let stalled = self.consumer.stalled();
            if stalled != self.stalled {
                self.stalled = stalled;
                self.say_whether_ready();
            }
            self.follow_rules();
            match polled {
                Polled::Assigned(positions) => self.assigned(&positions).await?,
                Polled::Revoked(partitions) => {
                    self.commit(shutdown, backoff).await?;
                    for at in &partitions {
                        self.windows.remove(&at.partition);
                        self.states.revoke(at.partition);
                        self.engine.in_force.revoke(at.partition);
                    }
                }
                Polled::Records(records) => self.evaluate(records, shutdown, backoff).await?,
                Polled::Idle => {}
            }
            all_closed = self.close_windows().await?;
            if !all_closed || self.gathering().is_zero() {
                self.commit(shutdown, backoff).await?;
            }
        }
    }

    /// How long the batch still waits for more. Outputs wait as long as the last commit took: where commits are quick they
    /// leave at once, and a log that takes its time over one gets fewer and larger ones. What comes to a whole poll waits for
    /// as much as the interval brings: under such a load the transactions themselves are what costs.
    fn gathering(&self) -> Duration {
        let (ended, took) = self.committed;
        let pause = match self.batch.outputs() {
            1..POLL_RECORDS => took.min(COMMIT_INTERVAL),
            _ => COMMIT_INTERVAL,
        };
        pause.saturating_sub(ended.elapsed())
    }

    /// One damaged partition does not stop the others, but the engine is not ready with it.
    fn say_whether_ready(&self) {
        match self.stalled.first() {
            None => self.engine.ready.ready(),
            Some(stalled) => self.engine.ready.waiting(stalled.to_string()),
        }
    }

    async fn assigned(&mut self, positions: &[Position]) -> Result<(), Interrupted> {
        let windows = repeats::windows_before(&*self.engine.bus, positions).await?;
        let started = Instant::now();
        let states = restore::states(&*self.engine.bus, positions).await?;
        let took = started.elapsed();
        for ((Position { at, offset }, window), held) in positions.iter().zip(windows).zip(states) {
            tracing::info!(at.partition, offset, seen = window.len(), groups = held.groups(), ?took, "assigned");
            self.engine.telemetry.restored(&held);
            self.windows.insert(at.partition, window);
            self.states.assign(at.partition, *offset, held, &self.rules);
            self.engine.in_force.assign(at.partition, *offset);
        }
        Ok(())
    }

    /// States go with the rules they are of.
    fn follow_rules(&mut self) {
        let rules = self.engine.rules.borrow().clone();
        if !Arc::ptr_eq(&rules, &self.rules) {
            self.engine.in_force.follow(&rules, &self.states.offsets());
            self.states.reconcile(&rules);
            self.rules = rules;
        }
    }

    /// Closes windows that are over, by what came and by the clock, as many as go into the batch. Whether none is left.
    async fn close_windows(&mut self) -> Result<bool, Interrupted> {
        if self.ticked_at.elapsed() >= TICK {
            self.ticked_at = Instant::now();
            self.tick().await;
        }
        let functions = &self.engine.functions;
        let call =
            |tenant: &TenantId, function: &FunctionSpec, inputs: &[String]| functions.call(tenant, function, inputs);
        let started = Instant::now();
        let is_enough = |records, bytes| {
            is_full(records, bytes) || started.elapsed() >= CLOSING_MAX || functions.taken() >= BATCH_MAX
        };
        let all = self.batch.close_windows(&self.rules, &call, &mut self.states, is_enough);
        self.engine.refuse_outage()?;
        Ok(all)
    }

    /// Tells the states what time it is: that of a partition's last message, or of the clock once all are read. Where the
    /// log does not say in time whether they are, windows wait.
    async fn tick(&mut self) {
        let (engine, now_ms) = (self.engine, self.engine.clock.now_ms());
        self.silent.retain(|_, asked_at| asked_at.elapsed() < SILENT);
        let mut asked = Vec::new();
        for waiting in self.states.waiting() {
            if !waiting.is_idle(now_ms) {
                self.states.tick(waiting.partition, &self.rules, waiting.clock_ms);
            } else if !self.silent.contains_key(&waiting.partition) {
                asked.push(
                    async move { (waiting.partition, timeout(ASKED_MAX, engine.clock_of(waiting, now_ms)).await) },
                );
            }
        }
        for (partition, answer) in join_all(asked).await {
            match answer {
                Ok(Some(clock_ms)) => self.states.tick(partition, &self.rules, clock_ms),
                Ok(None) => {}
                Err(_) => {
                    self.silent.insert(partition, Instant::now());
                }
            }
        }
        self.engine.board.groups(&self.states.groups());
    }

    /// Whether the batch has to be written before more goes into it.
    fn is_full(&self) -> bool {
        let (records, bytes) = self.states.changed();
        is_full(self.batch.outputs() + records, bytes) || self.engine.functions.taken() >= BATCH_MAX
    }

    async fn evaluate(
        &mut self,
        records: Vec<Stored>,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), Interrupted> {
        let rules = self.rules.clone();
        let functions = &self.engine.functions;
        let call =
            |tenant: &TenantId, function: &FunctionSpec, inputs: &[String]| functions.call(tenant, function, inputs);
        let (mut records, started) = (records.into_iter(), Instant::now());
        for stored in records.by_ref() {
            let partition = stored.position.at.partition;
            let Some(window) = self.windows.get_mut(&partition) else {
                return Err(Interrupted::Unassigned(partition));
            };
            let (states, call, trace) = (&mut self.states, &call, &telemetry::continue_trace);
            let views = &self.engine.views;
            self.batch.take(stored, &mut Evaluation { rules: &rules, window, states, views, call, trace });
            self.engine.refuse_outage()?;
            if self.is_full() && !self.commit(shutdown, backoff).await? {
                // What is left of the poll comes again from the committed offsets.
                return Ok(());
            }
            if started.elapsed() >= EVALUATING_MAX {
                break;
            }
        }
        self.put_back(records).await
    }

    /// Records of a poll that are read again by the next: each partition goes back to its first.
    async fn put_back(&mut self, records: impl Iterator<Item = Stored> + Send) -> Result<(), Interrupted> {
        let mut first: BTreeMap<TopicPartition, Position> = BTreeMap::new();
        for Stored { position, .. } in records {
            first.entry(position.at.clone()).or_insert(position);
        }
        for position in first.into_values() {
            self.consumer.seek(position).await?;
        }
        Ok(())
    }

    /// Commits the batch, however long that takes. False: the group moved on; the work in hand was dropped.
    async fn commit(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<bool, Interrupted> {
        let begun = Instant::now();
        self.engine.functions.begin_batch();
        self.batch.keep(&mut self.states);
        while !self.batch.is_empty() {
            let started = Instant::now();
            match self.try_commit().await {
                Ok(()) => {
                    self.engine.telemetry.committed(&self.batch.tally, started.elapsed());
                    for (key, tally) in self.batch.by_rule() {
                        self.engine.board.add(key, tally);
                    }
                    self.batch = Batch::default();
                    self.say_whether_ready();
                    backoff.reset();
                }
                Err(TransactError::Rebalanced { .. }) => {
                    self.restore().await?;
                    return Ok(false);
                }
                Err(TransactError::Refused(refusal)) if self.batch.divert(&refusal) => {
                    tracing::warn!(%refusal, "outputs become dead letters");
                    self.engine.missing.store(true, Ordering::Relaxed);
                }
                Err(
                    again @ (TransactError::Aborted { .. } | TransactError::Refused(AppendError::Unavailable { .. })),
                ) => {
                    tracing::debug!(%again, "a batch of the rules waits");
                    self.engine.ready.waiting(again.to_string());
                    if !backoff.wait(shutdown).await {
                        return Err(Interrupted::Stopping);
                    }
                }
                Err(
                    fatal @ (TransactError::Fenced { .. } | TransactError::Refused(_) | TransactError::Unknown { .. }),
                ) => {
                    return Err(fatal.into());
                }
            }
        }
        self.committed = (Instant::now(), begun.elapsed());
        Ok(true)
    }

    async fn try_commit(&mut self) -> Result<(), TransactError> {
        let offsets = Some((self.consumer.membership(), self.batch.offsets()));
        let records = self.batch.records(self.engine.clock.now_ms());
        self.transactor.commit(Transaction { records, offsets }).await?;
        Ok(())
    }

    /// Drops the work in hand and goes back to the committed offsets of all partitions held.
    async fn restore(&mut self) -> Result<(), Interrupted> {
        self.batch = Batch::default();
        let committed = self.engine.bus.committed(GROUP, TELEMETRY_TOPIC).await?;
        let mut positions = Vec::new();
        for partition in self.windows.keys() {
            let at = TopicPartition::new(TELEMETRY_TOPIC, *partition);
            let offset = match committed.iter().find(|position| position.at == at) {
                Some(position) => position.offset,
                None => self.engine.bus.bounds(&at).await?.earliest,
            };
            positions.push(Position { at, offset });
        }
        let windows = repeats::windows_before(&*self.engine.bus, &positions).await?;
        let states = restore::states(&*self.engine.bus, &positions).await?;
        for ((position, window), held) in positions.into_iter().zip(windows).zip(states) {
            self.windows.insert(position.at.partition, window);
            self.states.assign(position.at.partition, position.offset, held, &self.rules);
            self.engine.in_force.assign(position.at.partition, position.offset);
            // Where it cannot go back, it would leave out what was dropped: then the session begins anew.
            self.consumer.seek(position).await?;
        }
        Ok(())
    }
}

/// Whether so many records, with so many bytes of states among them, are a transaction.
fn is_full(records: usize, state_bytes: usize) -> bool {
    records >= BATCH_OUTPUTS || state_bytes >= BATCH_STATE_BYTES
}
