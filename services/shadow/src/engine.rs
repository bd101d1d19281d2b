//! The loop that keeps P6: requests in; documents, changes, replies and next offsets out in one transaction.
//!
//! A partition has one owner, and the owner has no state but the store, which it keeps up to the last document: before
//! it reads on, and again if it finds the store behind what it has put there. Whatever leaves the fate of a batch in doubt ends the session; the next one begins from the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Offset, Partition, Polled, Position, ReadError, Start,
    Stored, TopicPartition, TransactError, Transaction, Transactor,
};
use drover_host::{Backoff, Ready, Shutdown};
use drover_proto::shadow::v1::Delivery;
use drover_types::repeat::{Verdict, identity};
use drover_types::shadow::{SHADOW_REQUESTS_TOPIC, ShadowName};
use futures::future::try_join_all;
use prost::Message as _;
use tokio::time::Instant;

use crate::domain::{Answered, Asked, Batch, Forget, Malformed, Repeats, Request, ShadowKey};
use crate::ports::{ShadowStore, StoreError};
use crate::restore::{self, RestoreError};
use crate::telemetry::Telemetry;
use crate::topics::{DOCUMENTS_TOPIC, REPLIES_TOPIC};

/// Consumer group of the engine.
pub const GROUP: &str = "drover.shadow";
/// Requests of one poll; the shadows they are about are in memory together.
const POLL_RECORDS: usize = 100;
/// Bytes written by one transaction, about; a single request comes to 1.3 MB at most.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Partitions that are read back at a time.
const RESTORED_AT_ONCE: usize = 8;
/// How long a poll waits for a request.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests through shadows.
pub struct Engine {
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn ShadowStore>,
    pub telemetry: Telemetry,
    pub ready: Ready,
    pub member: String,
}

/// A record of the requests.
type Read = (Position, Result<Request, Malformed>);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Transact(#[from] TransactError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One membership, from joining to leaving.
struct Session<'e> {
    engine: &'e Engine,
    consumer: Box<dyn Consumer>,
    transactor: Box<dyn Transactor>,
    owned: HashMap<Partition, Owned>,
}

/// One partition of ours.
#[derive(Default)]
struct Owned {
    repeats: Repeats,
    /// The offset after the last document that the store has.
    next: Offset,
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
            match ended {
                Ok(()) => return Ok(()),
                Err(Interrupted::Transact(fenced @ TransactError::Fenced { .. })) => return Err(fenced.into()),
                Err(interrupted) => {
                    tracing::warn!(%interrupted, "shadows begin again from the committed offsets");
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
            topics: vec![SHADOW_REQUESTS_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        // The transactor first: it ends what an earlier process of this name left open.
        let transactor = self.bus.transactor(&format!("{GROUP}.{}", self.member)).await?;
        let consumer = self.bus.join(config).await?;
        Ok(Session { engine: self, consumer, transactor, owned: HashMap::new() })
    }

    /// Makes the batch know the shadows that requests are about; those of deleted devices are learned when it is their turn.
    async fn learn(&self, batch: &mut Batch, read: &[Read]) -> Result<(), StoreError> {
        let key = |(_, request): &Read| match request {
            Ok(Request::Shadow(asked)) => Some(asked.key.clone()),
            Ok(Request::Forget(_)) | Err(_) => None,
        };
        let keys: BTreeSet<ShadowKey> = read.iter().filter_map(key).collect();
        let learned = try_join_all(keys.into_iter().map(async |key| {
            let shadow = self.store.get(&key).await?;
            let of_device = if shadow.is_none() { self.store.names(&key.device).await?.len() } else { 0 };
            Ok::<_, StoreError>((key, shadow, of_device))
        }));
        for (key, shadow, of_device) in learned.await? {
            batch.learn(key, shadow, of_device);
        }
        Ok(())
    }

    /// What a partition needs whose next request is at `position`.
    async fn restored(&self, position: &Position) -> Result<Owned, Interrupted> {
        let Self { bus, store, telemetry, .. } = self;
        let partition = position.at.partition;
        let next = restore::view(&**bus, &**store, partition, telemetry).await?;
        let repeats = restore::repeats(&**bus, position).await?;
        tracing::info!(partition, offset = position.offset, seen = repeats.len(), "assigned");
        Ok(Owned { repeats, next })
    }

    /// The answer that stands at `offset` of the replies.
    async fn answer_at(&self, partition: Partition, offset: Offset) -> Result<Option<Delivery>, ReadError> {
        let at = TopicPartition::new(REPLIES_TOPIC, partition);
        let found = match self.bus.read(&at, offset, 1, Duration::ZERO).await {
            Err(ReadError::OutOfRange { .. }) => return Ok(None),
            found => found?,
        };
        let stored = found.into_iter().next().filter(|stored| stored.position.offset == offset);
        Ok(stored.and_then(|stored| Delivery::decode(stored.record.value?).ok()))
    }
}

impl Session<'_> {
    async fn work(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), Interrupted> {
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                polled = self.consumer.poll(POLL_RECORDS, POLL_WAIT) => polled?,
            };
            match polled {
                Polled::Assigned(positions) => {
                    for some in positions.chunks(RESTORED_AT_ONCE) {
                        let owned = try_join_all(some.iter().map(|position| self.engine.restored(position))).await?;
                        self.owned.extend(some.iter().map(|position| position.at.partition).zip(owned));
                    }
                }
                // Whatever was done is committed: nothing is in hand between two polls.
                Polled::Revoked(partitions) => partitions.iter().for_each(|at| drop(self.owned.remove(&at.partition))),
                Polled::Records(records) => {
                    self.carry_out(records).await?;
                    backoff.reset();
                }
                Polled::Idle => {}
            }
            // Only now: what came with a partition has been read back, so the store answers.
            self.engine.ready.ready();
        }
    }

    async fn carry_out(&mut self, records: Vec<Stored>) -> Result<(), Interrupted> {
        let engine = self.engine;
        let read: Vec<Read> = records.iter().map(|stored| (stored.position.clone(), Request::read(stored))).collect();
        let mut batch = self.learned(&read).await?;
        for (position, request) in read {
            batch.pass(&position);
            match request {
                Ok(Request::Shadow(asked)) => self.carry_out_one(position.at.partition, &asked, &mut batch).await?,
                Ok(Request::Forget(forget)) => self.forget(position.at.partition, &forget, &mut batch).await?,
                Err(error) => engine.telemetry.malformed(&position, &error),
            }
            if batch.bytes() >= BATCH_BYTES {
                self.commit(&mut batch).await?;
            }
        }
        self.commit(&mut batch).await
    }

    /// A batch that knows the shadows that requests are about, as of the last documents.
    async fn learned(&mut self, read: &[Read]) -> Result<Batch, Interrupted> {
        let Engine { bus, store, telemetry, .. } = self.engine;
        let partitions: BTreeSet<Partition> = read.iter().map(|(position, _)| position.at.partition).collect();
        loop {
            let mut batch = Batch::default();
            self.engine.learn(&mut batch, read).await?;
            let mut sound = true;
            for partition in &partitions {
                // After the shadows: a store that has lost them has lost its offset with them.
                let (kept, owned) = (store.next(*partition).await?.unwrap_or_default(), self.owned(*partition));
                if kept < owned.next {
                    tracing::warn!(partition, kept, put = owned.next, "the shadow store has lost documents");
                    owned.next = restore::view(&**bus, &**store, *partition, telemetry).await?;
                    sound = false;
                }
            }
            if sound {
                return Ok(batch);
            }
        }
    }

    fn owned(&mut self, partition: Partition) -> &mut Owned {
        self.owned.get_mut(&partition).expect("records follow their partition's assignment")
    }

    async fn carry_out_one(
        &mut self,
        partition: Partition,
        asked: &Asked,
        batch: &mut Batch,
    ) -> Result<(), Interrupted> {
        let repeat = self.owned(partition).repeats.observe(&asked.message) == Verdict::Repeat;
        let Some(identity) = identity(&asked.message).filter(|_| repeat) else {
            batch.take(partition, asked);
            return Ok(());
        };
        let mut first = batch.answer_of(&identity);
        if let (None, Some(offset)) = (&first, self.owned(partition).repeats.answer(&identity)) {
            first = self.engine.answer_at(partition, offset).await?;
        }
        batch.repeat(partition, asked, first);
        Ok(())
    }

    /// Deletes the shadows of a device that was deleted: those the store has by now, and those this batch makes.
    async fn forget(&mut self, partition: Partition, forget: &Forget, batch: &mut Batch) -> Result<(), Interrupted> {
        if self.owned(partition).repeats.observe(&forget.message) == Verdict::Repeat {
            return Ok(());
        }
        let store = &self.engine.store;
        let stored = store.names(&forget.device).await?;
        let mut names: BTreeSet<ShadowName> = batch.names(&forget.device).into_iter().collect();
        names.extend(stored.into_iter().filter(|(_, there)| *there).map(|(name, _)| name));
        for name in names {
            let key = ShadowKey { device: forget.device.clone(), name };
            // One by one, and gone from memory with its deletion: a device's shadows may be many megabytes.
            if !batch.knows(&key) {
                batch.learn(key.clone(), store.get(&key).await?, 0);
            }
            batch.forget(partition, &key, forget);
        }
        let (kept, from) = (store.next(partition).await?.unwrap_or_default(), self.owned(partition).next);
        // What the store has lost it did not name.
        if kept < from { Err(StoreError::Behind { partition, kept, from }.into()) } else { Ok(()) }
    }

    async fn commit(&mut self, batch: &mut Batch) -> Result<(), Interrupted> {
        if batch.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let positions = self.transact(batch).await?;
        for answered in batch.answered(&positions) {
            let Answered { partition, identity, time_ms, offset } = answered;
            self.owned(partition).repeats.answered(identity, time_ms, offset);
        }
        let mut changes = batch.changes();
        for (partition, next) in next_documents(&positions) {
            let shadows = changes.remove(&partition).unwrap_or_default();
            let from = self.owned(partition).next;
            self.engine.store.put(partition, from, next, shadows).await?;
            self.owned(partition).next = next;
        }
        self.engine.telemetry.committed(&batch.tally, started.elapsed());
        batch.written();
        Ok(())
    }

    async fn transact(&mut self, batch: &Batch) -> Result<Vec<Position>, TransactError> {
        let (records, offsets) = (batch.records(), Some((self.consumer.membership(), batch.offsets())));
        self.transactor.commit(Transaction { records, offsets }).await
    }
}

/// The offset after the last document of each partition.
fn next_documents(positions: &[Position]) -> BTreeMap<Partition, Offset> {
    let documents = positions.iter().filter(|position| &*position.at.topic == DOCUMENTS_TOPIC);
    documents.map(|position| (position.at.partition, position.offset + 1)).collect()
}
