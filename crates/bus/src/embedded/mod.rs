//! The embedded adapter of the Bus port: an in-process log in segment files, one writer, group commit.
//!
//! One rule keeps it simple: a single writer thread makes things durable in rounds and only then publishes and answers;
//! everybody else encodes before it or reads what it has published. `docs/adr/0002-embedded-log.md` tells why it is built
//! this way; the modules in the order of a record's way: `batch`, `queue`, `writer`, `topic_writer`, `topic`, `reader`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use drover_types::Clock;
use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

mod batch;
mod codec;
mod command;
mod compaction;
mod consumer;
mod disk;
mod frame;
mod groups;
mod index;
mod journal;
mod kept;
mod log_file;
mod look;
mod producers;
mod queue;
mod reader;
mod recovery;
mod section;
mod segment;
mod shared;
mod tail;
mod topic;
mod topic_files;
mod topic_writer;
mod transactor;
mod writer;

pub use disk::{Disk, FileError, SystemDisk};
pub use kept::GroupOffset;
pub use look::{Sight, look};
pub use recovery::{Cut, FORMAT, OpenError, Recovery, Rewound};
pub use section::ProducerSequence;

use batch::Batch;
use command::{Append, AppendSequenced, Command, Commit, CommitError, Committer, Sequenced};
use consumer::GroupMember;
use disk::Files;
use producers::Verdict;
use section::Section;
use shared::Shared;
use topic::{TopicLog, listen};
use transactor::EmbeddedTransactor;
use writer::Writer;

use crate::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Offset, Outgoing, Position, ReadError,
    Receipt, Record, Stored, Topic, TopicConfig, TopicPartition, TransactError, Transactor, Unacknowledged,
};

/// Why nothing is taken after [`EmbeddedBus::close`].
const CLOSED: &str = "bus is closed";

/// How the embedded log is kept. The defaults suit a small machine.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Bytes at which a segment is sealed; retention and compaction go by segments.
    pub segment_bytes: u64,
    /// Bytes of the newest records kept in memory, over all topics; each for two seconds, or a little longer.
    pub tail_bytes: usize,
    /// Records that may wait for the writer; as many KiB at most.
    pub queue_records: usize,
    /// Largest record: key, value and headers with their lengths together, in bytes.
    pub record_bytes_max: usize,
    /// How long a compacted topic keeps tombstones after their timestamp, milliseconds.
    pub tombstone_ms: u64,
    /// Bytes of journal at which the topics are synced and it starts anew; also bounds what is unsynced of transactions.
    pub journal_bytes: u64,
    /// Says what time it is for retention; without one nothing expires by age.
    pub clock: Option<Arc<dyn Clock>>,
    /// Groups that must have a topic's records before retention may take them: whatever age and size say, what one of them
    /// has not committed stays. Where a group has committed nothing, all of the partition does.
    pub retained_for: BTreeMap<Topic, Vec<String>>,
    /// How files are changed; tests pass one that fails.
    pub disk: Arc<dyn Disk>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            tail_bytes: 16 * 1024 * 1024,
            queue_records: 16 * 1024,
            record_bytes_max: 1024 * 1024,
            tombstone_ms: 24 * 3600 * 1000,
            journal_bytes: 4 * 1024 * 1024,
            clock: None,
            retained_for: BTreeMap::new(),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// Why an idempotent producer's batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    #[error("sequence number {got} is out of order, expected is {expected}")]
    OutOfOrder { expected: i32, got: i32 },
    #[error("producer epoch {got} was replaced by {newest}")]
    Fenced { newest: i16, got: i16 },
    #[error("a batch has at least one record")]
    Empty,
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The embedded log. Clones share it; the last one dropped closes it.
#[derive(Clone)]
pub struct EmbeddedBus {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(writer.join());
        }
    }
}

impl EmbeddedBus {
    /// Opens the log in `dir`, making it if there is none, and takes its lock. Tells what a crash had left to repair.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<(Self, Recovery), OpenError> {
        let opened = recovery::open(&Files::new(options.disk.clone()), dir, options.segment_bytes)?;
        let logs = opened.topics.values().map(|writer| writer.log.clone()).collect();
        let shared = Arc::new(Shared::new(options, opened.kept, logs));
        let writer = Writer::new(shared.clone(), opened.journal, opened.topics, dir.to_owned(), opened.lock);
        let thread = std::thread::Builder::new().name("drover-bus".into()).spawn(move || writer.run());
        let thread = thread.map_err(FileError::at("start the writer of", dir))?;
        Ok((Self { inner: Arc::new(Inner { shared, writer: Mutex::new(Some(thread)) }) }, opened.recovery))
    }

    /// Takes nothing more, makes durable what was queued, syncs everything and releases the lock.
    pub async fn close(&self) {
        self.shared().queue.close();
        let writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the writer of the log ended in a panic");
            }
        }
    }

    /// Returns if the writer ends in a panic: from then on nothing is written, and only a new start helps.
    pub async fn broken(&self) {
        let mut broken = self.shared().broken.subscribe();
        if broken.wait_for(|broken| *broken).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Commits offsets for consumers of another group protocol, which does its own fencing. Durable when it returns.
    pub async fn store_offsets(&self, group: &str, offsets: Vec<GroupOffset>) -> Result<(), ReadError> {
        if let Some(unknown) = offsets.iter().find(|offset| self.shared().partition(&offset.at).is_none()) {
            return Err(ReadError::Unknown { at: unknown.at.clone() });
        }
        let (answer, answered) = oneshot::channel();
        let records = offsets.len();
        let offsets = Some(Committer::Outside(group.to_owned(), offsets));
        let commit = Command::Commit(Commit { transactor: None, topics: Vec::new(), offsets, answer });
        let unavailable = |reason| ReadError::Unavailable { reason };
        self.send(records, 0, commit).await.map_err(unavailable)?;
        match answered.await.unwrap_or_else(|_| Err(CommitError::Unknown(CLOSED.into()))) {
            Ok(_) => Ok(()),
            Err(CommitError::Undone(reason) | CommitError::Unknown(reason)) => Err(unavailable(reason)),
            Err(error @ (CommitError::Superseded | CommitError::Rebalanced | CommitError::TopicGone(_))) => {
                Err(unavailable(format!("{error:?}")))
            }
        }
    }

    /// All committed offsets of a group, sorted.
    pub fn group_offsets(&self, group: &str) -> Vec<GroupOffset> {
        self.shared().kept().offsets(group)
    }

    /// Whether a group has committed offsets.
    pub fn has_offsets(&self, group: &str) -> bool {
        self.shared().kept().has_offsets(group)
    }

    /// Groups with committed offsets, sorted.
    pub fn groups(&self) -> Vec<String> {
        self.shared().kept().groups()
    }

    /// Forgets a group's committed offsets. Durable when it returns.
    pub async fn delete_group(&self, group: &str) -> Result<(), ReadError> {
        let (answer, answered) = oneshot::channel();
        let unavailable = |reason| ReadError::Unavailable { reason };
        self.send(1, 0, Command::DeleteGroup(group.to_owned(), answer)).await.map_err(unavailable)?;
        answered.await.unwrap_or_else(|_| Err(CLOSED.into())).map_err(unavailable)
    }

    /// Waits until any of the partitions has a record at or behind its offset, at most for `wait`. Also returns when one of
    /// the topics is gone.
    pub async fn wait_for(&self, any: &[(TopicPartition, Offset)], wait: Duration) {
        let deadline = Instant::now() + wait;
        let topics: Vec<Arc<TopicLog>> = any.iter().filter_map(|(at, _)| self.shared().topic(&at.topic)).collect();
        let ready = || {
            let behind = |at: &TopicPartition, offset: Offset| {
                self.shared().partition(at).is_none_or(|topic| topic.view().bounds(at.partition).end > offset)
            };
            any.iter().any(|(at, offset)| behind(at, *offset))
        };
        loop {
            // Listening begins before looking, so that nothing that happens in between is missed.
            let changes = listen(topics.iter().map(|topic| &topic.changed));
            if ready() {
                return;
            }
            let woken = if changes.is_empty() {
                tokio::time::sleep_until(deadline).await;
                false
            } else {
                tokio::time::timeout_at(deadline, select_all(changes)).await.is_ok()
            };
            if !woken {
                return;
            }
        }
    }

    /// Appends one batch of an idempotent producer to one partition and waits until it is durable. A batch that was
    /// written before is answered with its first positions.
    pub async fn append_sequenced(
        &self,
        at: TopicPartition,
        producer: ProducerSequence,
        records: Vec<Record>,
    ) -> Result<Receipt, SequenceError> {
        let topic = self.append_target(&at)?;
        records.iter().try_for_each(|record| batch::check_size(self.shared(), record))?;
        if records.is_empty() {
            return Err(SequenceError::Empty);
        }
        let mut section = Section::encode(at.partition, (0..).zip(&records));
        section.head.producer = Some(producer);
        let (answer, answered) = oneshot::channel();
        let (count, bytes) = (records.len(), section.body.len());
        let command = Command::AppendSequenced(AppendSequenced { topic, section, answer });
        self.admit().map_err(unavailable)?;
        self.send(count, bytes, command).await.map_err(unavailable)?;
        let positions = |base: Offset| {
            let offsets = base..base + count as Offset;
            offsets.map(|offset| Position { at: at.clone(), offset }).collect()
        };
        let result = match answered.await.unwrap_or_else(|_| Sequenced::Unacknowledged(CLOSED.into())) {
            Sequenced::Written(base) => Ok(positions(base)),
            Sequenced::Unacknowledged(reason) => Err(Unacknowledged { reason }),
            Sequenced::Refused(Verdict::OutOfOrder { expected }) => {
                return Err(SequenceError::OutOfOrder { expected, got: producer.first });
            }
            Sequenced::Refused(Verdict::Fenced { epoch }) => {
                return Err(SequenceError::Fenced { newest: epoch, got: producer.epoch });
            }
            Sequenced::Refused(Verdict::New | Verdict::Repeat(_)) => Err(Unacknowledged { reason: CLOSED.into() }),
        };
        Ok(std::future::ready(result).boxed())
    }

    /// A producer id that was never given before. Durable when it returns.
    pub async fn allocate_producer_id(&self) -> Result<i64, AppendError> {
        let (answer, answered) = oneshot::channel();
        self.send(1, 0, Command::AllocateProducer(answer)).await.map_err(unavailable)?;
        answered.await.unwrap_or_else(|_| Err(CLOSED.into())).map_err(unavailable)
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Queues a command; the error says why it was not taken.
    async fn send(&self, records: usize, bytes: usize, command: Command) -> Result<(), String> {
        self.shared().queue.push(records, bytes, command).await.map_err(|queue::Closed| CLOSED.to_owned())
    }

    /// Refuses appends while the log cannot be written.
    fn admit(&self) -> Result<(), String> {
        self.shared().refusal().map_or(Ok(()), Err)
    }

    fn append_target(&self, at: &TopicPartition) -> Result<Arc<TopicLog>, AppendError> {
        let topic = self.shared().topic(&at.topic);
        let topic = topic.ok_or_else(|| AppendError::UnknownTopic { topic: at.topic.to_string() })?;
        if at.partition < topic.config.partitions {
            return Ok(topic);
        }
        Err(AppendError::UnknownPartition { topic: at.topic.to_string(), partition: at.partition })
    }

    fn readable(&self, at: &TopicPartition) -> Result<Arc<TopicLog>, ReadError> {
        self.shared().partition(at).ok_or_else(|| ReadError::Unknown { at: at.clone() })
    }
}

fn unavailable(reason: String) -> AppendError {
    AppendError::Unavailable { reason }
}

#[async_trait]
impl Bus for EmbeddedBus {
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        let (answer, answered) = oneshot::channel();
        let unavailable = |reason| AdminError::Unavailable { reason };
        self.send(1, 0, Command::CreateTopic(config, answer)).await.map_err(unavailable)?;
        answered.await.unwrap_or_else(|_| Err(unavailable(CLOSED.into())))
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        let (answer, answered) = oneshot::channel();
        let unavailable = |reason| AdminError::Unavailable { reason };
        self.send(1, 0, Command::DeleteTopic(topic.to_owned(), answer)).await.map_err(unavailable)?;
        answered.await.unwrap_or_else(|_| Err(unavailable(CLOSED.into())))
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        Ok(self.shared().topics().iter().map(|topic| topic.config.clone()).collect())
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        let Batch { topics, records, bytes, places } = Batch::encode(self.shared(), &batch)?;
        if batch.is_empty() {
            return Ok(std::future::ready(Ok(Vec::new())).boxed());
        }
        self.admit().map_err(unavailable)?;
        let (answer, answered) = oneshot::channel();
        self.send(records, bytes, Command::Append(Append { topics, answer })).await.map_err(unavailable)?;
        let receipt = async move {
            match answered.await {
                Ok(Ok(offsets)) => Ok(places.positions(&offsets)),
                Ok(Err(reason)) => Err(Unacknowledged { reason }),
                Err(_) => Err(Unacknowledged { reason: CLOSED.into() }),
            }
        };
        Ok(receipt.boxed())
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        let topic = self.readable(at)?;
        reader::check_range(&topic, at.partition, from)?;
        self.wait_for(&[(at.clone(), from)], wait).await;
        let topic = self.readable(at)?;
        reader::read(&topic, at.partition, from, reader::Limit { bytes: bytes_max, records: usize::MAX }).await
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        Ok(self.readable(at)?.view().bounds(at.partition))
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        reader::offset_at(&self.readable(at)?, at.partition, timestamp_ms).await
    }

    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        Ok(Box::new(GroupMember::join(self.clone(), config)?))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        let all = self.shared().kept().offsets(group).into_iter();
        let of_topic = all.filter(|offset| &*offset.at.topic == topic);
        Ok(of_topic.map(|offset| Position { at: offset.at, offset: offset.next }).collect())
    }

    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        Ok(Box::new(EmbeddedTransactor::open(self.clone(), transactional_id).await?))
    }
}
