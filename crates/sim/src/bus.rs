//! A Bus in memory on virtual time, whose writes fail by seed.
//!
//! One writer task takes writes in the order of their calls, as a broker connection would; faults fall on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Membership, Offset, Outgoing, Polled,
    Position, ReadError, Receipt, Start, Stored, TopicConfig, TopicPartition, TransactError, Transaction, Transactor,
    Unacknowledged,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::groups::{Group, Notice};
use crate::log::Log;
use crate::{BusFaults, Fate, SeededRandom};

/// Writes waiting for the writer.
const QUEUE: usize = 10_000;
/// Bytes one poll takes from one partition.
const POLL_BYTES: usize = 1024 * 1024;

/// The simulated log. It outlives every service that is "killed" by dropping its task.
#[derive(Clone)]
pub struct SimBus(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Wakes whoever waits for records or partitions.
    changed: Notify,
    writes: mpsc::Sender<Write>,
    random: SeededRandom,
}

struct State {
    log: Log,
    groups: BTreeMap<String, Group>,
    transactors: BTreeMap<String, u64>,
    faults: BusFaults,
    /// Whoever was fenced may write nevertheless.
    unfenced: bool,
}

enum Write {
    Append {
        batch: Vec<Outgoing>,
        done: oneshot::Sender<Result<Vec<Position>, Unacknowledged>>,
    },
    Transact {
        id: String,
        epoch: u64,
        transaction: Transaction,
        done: oneshot::Sender<Result<Vec<Position>, TransactError>>,
    },
}

impl SimBus {
    /// An empty log; must be made within the runtime whose clock it lives by.
    pub fn new(seed: u64, faults: BusFaults) -> Self {
        let (writes, queue) = mpsc::channel(QUEUE);
        let state = State {
            log: Log::default(),
            groups: BTreeMap::new(),
            transactors: BTreeMap::new(),
            faults,
            unfenced: false,
        };
        let random = SeededRandom::new(seed);
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: Notify::new(), writes, random });
        tokio::spawn(write(Arc::downgrade(&inner), queue));
        Self(inner)
    }

    /// The same, but that breaks a promise on purpose: transactions of transactors that were replaced, and of members that
    /// hold their partitions no longer, are carried out.
    #[must_use]
    pub fn unfenced(self) -> Self {
        self.0.state().unfenced = true;
        self
    }

    /// Changes the faults from now on; the default has none.
    pub fn set_faults(&self, faults: BusFaults) {
        self.0.state().faults = faults;
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn all(&self, config: &GroupConfig) -> BTreeSet<TopicPartition> {
        let of = |topic: &drover_bus::Topic| {
            let count = self.log.partitions(topic).unwrap_or(0);
            (0..count).map(|partition| TopicPartition { topic: topic.clone(), partition }).collect::<Vec<_>>()
        };
        config.topics.iter().flat_map(of).collect()
    }

    fn append(&mut self, batch: Vec<Outgoing>, fate: Fate) -> Result<Vec<Position>, Unacknowledged> {
        let unknown = |reason: &str| Unacknowledged { reason: reason.to_owned() };
        if fate == Fate::Lost {
            return Err(unknown("simulated: lost"));
        }
        let positions: Option<Vec<_>> = batch.into_iter().map(|outgoing| self.log.push(outgoing)).collect();
        match fate {
            Fate::Acknowledged => positions.ok_or_else(|| unknown("topic was deleted")),
            Fate::Unacknowledged | Fate::Lost => Err(unknown("simulated: acknowledgement lost")),
        }
    }

    fn transact(
        &mut self,
        id: &str,
        epoch: u64,
        transaction: Transaction,
        fate: Fate,
    ) -> Result<Vec<Position>, TransactError> {
        if self.transactors.get(id) != Some(&epoch) && !self.unfenced {
            return Err(TransactError::Fenced { transactional_id: id.to_owned() });
        }
        for outgoing in &*transaction.records {
            self.log.place(outgoing)?;
        }
        if let Some((member, next)) = &transaction.offsets {
            let group = self.groups.get(&member.group);
            let holds = group.is_some_and(|g| g.holds(&member.member, member.generation, next.iter().map(|p| &p.at)));
            if !holds && !self.unfenced {
                return Err(TransactError::Rebalanced { group: member.group.clone() });
            }
        }
        if fate == Fate::Lost {
            return Err(TransactError::Aborted { reason: "simulated".to_owned() });
        }
        let positions = transaction.records.iter().cloned().filter_map(|outgoing| self.log.push(outgoing)).collect();
        if let Some((member, next)) = transaction.offsets {
            self.log.commit(&member.group, next);
        }
        match fate {
            Fate::Acknowledged => Ok(positions),
            Fate::Unacknowledged | Fate::Lost => Err(TransactError::Unknown { reason: "simulated".to_owned() }),
        }
    }
}

async fn write(inner: std::sync::Weak<Inner>, mut queue: mpsc::Receiver<Write>) {
    while let Some(next) = queue.recv().await {
        let Some(bus) = inner.upgrade() else { return };
        let faults = bus.state().faults;
        tokio::time::sleep(faults.delay(&bus.random)).await;
        let fate = faults.fate(&bus.random);
        // Whoever waited may be gone; what is written stays.
        match next {
            Write::Append { batch, done } => drop(done.send(bus.state().append(batch, fate))),
            Write::Transact { id, epoch, transaction, done } => {
                drop(done.send(bus.state().transact(&id, epoch, transaction, fate)));
            }
        }
        bus.changed.notify_waiters();
    }
}

#[async_trait]
impl Bus for SimBus {
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        self.0.state().log.create(config)
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        self.0.state().log.delete(topic)
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        Ok(self.0.state().log.topics())
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        for outgoing in &batch {
            self.0.state().log.place(outgoing)?;
        }
        let (done, receipt) = oneshot::channel();
        let stopped = |_| AppendError::Unavailable { reason: "simulation has ended".to_owned() };
        self.0.writes.send(Write::Append { batch, done }).await.map_err(stopped)?;
        Ok(Box::pin(async move {
            receipt.await.unwrap_or_else(|_| Err(Unacknowledged { reason: "simulation has ended".to_owned() }))
        }))
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        let until = Instant::now() + wait;
        loop {
            let changed = self.0.changed.notified();
            let records = self.0.state().log.read(at, from, bytes_max)?;
            if !records.is_empty() || tokio::time::timeout_at(until, changed).await.is_err() {
                return Ok(records);
            }
        }
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.0.state().log.bounds(at)
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        self.0.state().log.offset_at(at, timestamp_ms)
    }

    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        let mut state = self.0.state();
        if let Some(topic) = config.topics.iter().find(|topic| state.log.partitions(topic).is_none()) {
            return Err(ConsumeError::UnknownTopic { topic: topic.to_string() });
        }
        let all = state.all(&config);
        let instance = state.groups.entry(config.group.clone()).or_default().join(&config, &all);
        drop(state);
        self.0.changed.notify_waiters();
        Ok(Box::new(SimConsumer { bus: self.clone(), config, instance, positions: BTreeMap::new() }))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        let state = self.0.state();
        let count =
            state.log.partitions(topic).ok_or_else(|| ReadError::Unknown { at: TopicPartition::new(topic, 0) })?;
        let partitions = (0..count).map(|partition| TopicPartition::new(topic, partition));
        Ok(partitions.filter_map(|at| state.log.committed(group, &at).map(|offset| Position { at, offset })).collect())
    }

    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        let mut state = self.0.state();
        let epoch = state.transactors.entry(transactional_id.to_owned()).or_default();
        *epoch += 1;
        Ok(Box::new(SimTransactor { bus: self.clone(), id: transactional_id.to_owned(), epoch: *epoch }))
    }
}

struct SimConsumer {
    bus: SimBus,
    config: GroupConfig,
    instance: u64,
    positions: BTreeMap<TopicPartition, Offset>,
}

impl SimConsumer {
    fn fenced(&self) -> ConsumeError {
        ConsumeError::Fenced { group: self.config.group.clone(), member: self.config.member.clone() }
    }

    /// One look: what there is to tell now, if anything.
    fn look(&mut self, records_max: usize) -> Result<Option<Polled>, ConsumeError> {
        let bus = self.bus.clone();
        let mut state = bus.0.state();
        let all = state.all(&self.config);
        let shuffle = state.faults.rebalance;
        let group = state.groups.entry(self.config.group.clone()).or_default();
        if bus.0.random.chance(shuffle) {
            group.shuffle(1);
        }
        let notice = group.poll(&self.config.member, self.instance, &all).ok_or_else(|| self.fenced())?;
        match notice {
            Some(Notice::Assigned(partitions)) => Ok(Some(Polled::Assigned(self.start(&state, partitions)?))),
            Some(Notice::Revoked(partitions)) => {
                self.positions.retain(|at, _| !partitions.contains(at));
                Ok(Some(Polled::Revoked(partitions)))
            }
            None => {
                let owned = state.groups.get(&self.config.group).map(|g| g.owned(&self.config.member));
                self.take(&state, &owned.unwrap_or_default(), records_max)
            }
        }
    }

    fn start(&mut self, state: &State, partitions: Vec<TopicPartition>) -> Result<Vec<Position>, ConsumeError> {
        let mut starts = Vec::new();
        for at in partitions {
            let offset = match (state.log.committed(&self.config.group, &at), self.config.start) {
                (Some(committed), _) => committed,
                (None, Start::Earliest) => state.log.bounds(&at)?.earliest,
                (None, Start::End) => state.log.bounds(&at)?.end,
            };
            self.positions.insert(at.clone(), offset);
            starts.push(Position { at, offset });
        }
        Ok(starts)
    }

    fn take(
        &mut self,
        state: &State,
        owned: &[TopicPartition],
        records_max: usize,
    ) -> Result<Option<Polled>, ConsumeError> {
        let mut taken = Vec::new();
        for at in owned {
            let Some(position) = self.positions.get_mut(at) else { continue };
            let mut records = state.log.read(at, *position, POLL_BYTES)?;
            records.truncate(records_max - taken.len());
            *position += records.len() as Offset;
            taken.extend(records);
        }
        Ok((!taken.is_empty()).then_some(Polled::Records(taken)))
    }
}

impl Drop for SimConsumer {
    fn drop(&mut self) {
        let mut state = self.bus.0.state();
        let all = state.all(&self.config);
        if let Some(group) = state.groups.get_mut(&self.config.group) {
            group.leave(&self.config.member, self.instance, &all);
        }
        drop(state);
        self.bus.0.changed.notify_waiters();
    }
}

#[async_trait]
impl Consumer for SimConsumer {
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError> {
        let until = Instant::now() + wait;
        let bus = self.bus.clone();
        loop {
            let changed = bus.0.changed.notified();
            if let Some(polled) = self.look(records_max)? {
                bus.0.changed.notify_waiters();
                return Ok(polled);
            }
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return Ok(Polled::Idle);
            }
        }
    }

    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError> {
        let mut state = self.bus.0.state();
        let group = state.groups.get(&self.config.group);
        let holds = group.is_some_and(|g| g.holds(&self.config.member, self.instance, next.iter().map(|p| &p.at)));
        if !holds {
            return Err(self.fenced());
        }
        state.log.commit(&self.config.group, next);
        Ok(())
    }

    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError> {
        match self.positions.get_mut(&to.at) {
            Some(position) => {
                *position = to.offset;
                Ok(())
            }
            None => Err(self.fenced()),
        }
    }

    fn membership(&self) -> Membership {
        Membership { group: self.config.group.clone(), member: self.config.member.clone(), generation: self.instance }
    }
}

struct SimTransactor {
    bus: SimBus,
    id: String,
    epoch: u64,
}

#[async_trait]
impl Transactor for SimTransactor {
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        let unknown = |reason: &str| TransactError::Unknown { reason: reason.to_owned() };
        let (done, receipt) = oneshot::channel();
        let write = Write::Transact { id: self.id.clone(), epoch: self.epoch, transaction, done };
        self.bus.0.writes.send(write).await.map_err(|_| unknown("simulation has ended"))?;
        receipt.await.unwrap_or_else(|_| Err(unknown("simulation has ended")))
    }
}
