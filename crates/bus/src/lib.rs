//! The Bus port: the log that is the only truth.
//!
//! Shared port: whoever needs the log takes `Arc<dyn Bus>`. Two adapters keep the same promises and pass the same
//! suite ([`conformance`]): the embedded log in this crate, and Kafka. The port is shaped so that a Kafka client can
//! keep every promise; where the two differ, the weaker one is written here.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;

mod bounds;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embedded;
mod error;
mod partition;
pub mod repeats;

pub use bounds::bounds;
pub use drover_types::Headers;
pub use error::{AdminError, AppendError, ConsumeError, ReadError, TransactError, Unacknowledged};
pub use partition::partition_of;

/// Name of a bus topic: 1 to 249 of `A-Z a-z 0-9 . _ -`, not `.` or `..`, as Kafka demands.
pub type Topic = Arc<str>;
/// Number of a partition, from 0.
pub type Partition = u32;
/// Place of a record in its partition, from 0; grows, may have gaps (compaction, transaction markers).
pub type Offset = u64;

/// What is kept: key, value, headers, time. No value on a compacted topic means "deleted" (a tombstone).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// Milliseconds since the Unix epoch, as the producer says. Kafka takes 0 for "now".
    pub timestamp_ms: i64,
}

/// A record on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    pub topic: Topic,
    /// `None`: [`partition_of`] the key; without a key, any.
    pub partition: Option<Partition>,
    pub record: Record,
}

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: Partition,
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub at: TopicPartition,
    pub offset: Offset,
}

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub position: Position,
    pub record: Record,
}

/// First kept offset and the offset the next record will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub earliest: Offset,
    pub end: Offset,
}

/// What a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub topic: Topic,
    /// Set once, 1 to 1,024.
    pub partitions: u32,
    /// Keep the last record of each key for ever, besides what retention keeps.
    pub compact: bool,
    /// Records older than this may go, milliseconds; `None`: never by age.
    pub retention_ms: Option<u64>,
    /// Beyond this many bytes of the whole topic the oldest may go; `None`: never by size.
    pub retention_bytes: Option<u64>,
}

/// Most partitions of one topic.
const PARTITIONS_MAX: u32 = 1_024;
/// Longest name of a topic, in bytes; Kafka's.
const TOPIC_BYTES_MAX: usize = 249;

impl TopicConfig {
    /// Checks name and number of partitions; every adapter refuses by this before it creates anything.
    pub fn check(&self) -> Result<(), AdminError> {
        let topic = || self.topic.to_string();
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let name = &*self.topic;
        let sized = (1..=TOPIC_BYTES_MAX).contains(&name.len());
        if !sized || matches!(name, "." | "..") || !name.bytes().all(allowed) {
            return Err(AdminError::Name { topic: topic() });
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(AdminError::PartitionCount { topic: topic(), wanted: self.partitions, limit: PARTITIONS_MAX });
        }
        Ok(())
    }
}

/// Resolves when every record of one append is durable (positions in the order given), or their fate is unknown.
pub type Receipt = BoxFuture<'static, Result<Vec<Position>, Unacknowledged>>;

/// How a consumer joins.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group: String,
    /// Static member name: a member that comes back under its name within `session_timeout` gets its partitions again
    /// without moving anyone else's.
    pub member: String,
    pub topics: Vec<Topic>,
    /// Where a partition without a committed offset starts.
    pub start: Start,
    /// A member whose process is not heard of for this long loses its partitions and is fenced. Kafka's brokers take 6 s
    /// to 30 min: what is outside counts as the nearest.
    pub session_timeout: Duration,
    /// A member that does not poll for this long counts as stuck, loses its partitions and is fenced; others get them
    /// then, or (Kafka) when `session_timeout` has passed as well. At least `session_timeout`.
    pub max_poll_interval: Duration,
}

/// [`GroupConfig::max_poll_interval`] of a member that reads much back when it gets a partition: Kafka's own default.
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Where to start without a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    End,
}

/// A partition of which a member gets nothing at the moment, because it cannot be read where the member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    pub position: Position,
    pub error: ReadError,
}

impl std::fmt::Display for Stalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Position { at, offset } = &self.position;
        write!(f, "{}/{} stands still at offset {offset}: {}", at.topic, at.partition, self.error)
    }
}

/// What a poll brings.
#[derive(Debug)]
pub enum Polled {
    /// These partitions are now this member's, each with the offset it starts from. Comes before any of their records.
    Assigned(Vec<Position>),
    /// These partitions leave. Until the next call of `poll` they are still this member's: commit what is done now.
    Revoked(Vec<TopicPartition>),
    /// Records of assigned partitions, in order within each partition; never of an open or aborted transaction.
    Records(Vec<Stored>),
    /// Nothing came within the wait.
    Idle,
}

/// Proof of membership, to fence a transaction by the group's generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub group: String,
    pub member: String,
    pub generation: u64,
}

/// Records and consumer offsets that appear together or not at all.
#[derive(Debug, Default)]
pub struct Transaction {
    /// Shared, so that whoever may have to send them again keeps them without a copy.
    pub records: Arc<[Outgoing]>,
    /// Next offsets to read, committed for the group in the same step.
    pub offsets: Option<(Membership, Vec<Position>)>,
}

/// The log. Cheap to share; every call may be made concurrently.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Creates a topic. `Ok(true)`: it was missing. `Ok(false)`: it was there with as many partitions.
    /// [`AdminError::Partitions`] if it is there with another number; [`AdminError::Setting`] where the adapter is not the
    /// only one that makes topics (Kafka), if it is there and not compacted as it is to be.
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError>;
    /// Deletes a topic with its records and committed offsets.
    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError>;
    /// All topics, sorted by name.
    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError>;

    /// Appends records. Returns when their order is fixed: later calls come later in each partition. Waits while the
    /// bounded queue is full (backpressure); dropping the future then appends nothing. The batch is not atomic: after
    /// [`Unacknowledged`] any part of it may appear, then or later.
    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError>;

    /// Records from `from` on, at most about `bytes_max` (at least one record if there is any); waits up to `wait`
    /// for the first one, then answers with none. Offsets in gaps are skipped. Read-committed. Who reads on from where the last
    /// read ended is served best; `bytes_max` of 1 is a look at one record, after which nothing is kept for going on.
    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError>;
    /// First kept and next offset of a partition.
    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError>;
    /// As [`Bus::bounds`], once all that was written before the call is decided: whatever is committed by then can be read
    /// up to `end`. Who takes a partition over reads its state back by this. Where an adapter decides a transaction
    /// before its partitions have heard of it, it waits, bounded; [`ReadError::Unavailable`] if one stays open.
    async fn settled_bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.bounds(at).await
    }
    /// First offset whose record is at or after `timestamp_ms`; the end if there is none.
    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError>;

    /// Joins a group; partitions arrive by [`Polled::Assigned`]. Dropping the consumer leaves: others get its partitions
    /// at once, or (Kafka keeps them for a member that may come back) when `session_timeout` has passed.
    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError>;
    /// Committed next offsets of a group for a topic; partitions without one are left out.
    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError>;

    /// Opens the one live producer of `transactional_id`; an earlier holder is fenced from now on.
    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError>;
}

/// One member of a group. A partition belongs to at most one member at a time.
#[async_trait]
pub trait Consumer: Send {
    /// Next event. Calling it again after [`Polled::Revoked`] gives the partitions up. Cancel-safe: what a dropped
    /// call would have brought comes with the next.
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError>;
    /// Commits next offsets. [`ConsumeError::Fenced`] if a partition is no longer this member's.
    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError>;
    /// Moves the reading position of an assigned partition.
    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError>;
    /// Proof of membership for [`Transaction::offsets`].
    fn membership(&self) -> Membership;
    /// Partitions held that cannot be read at the moment, as of the last poll. The others go on meanwhile; these are tried
    /// again now and then, and after a [`Consumer::seek`]. Empty with an adapter that cannot tell.
    fn stalled(&self) -> Vec<Stalled> {
        Vec::new()
    }
}

/// The producer of one transactional id.
#[async_trait]
pub trait Transactor: Send {
    /// Makes the transaction durable and visible as one step; positions of `records` in the order given.
    ///
    /// [`TransactError::Aborted`]: nothing of it is or will be visible, the same may be tried again.
    /// [`TransactError::Rebalanced`]: nothing is visible, and the offsets are another member's now: drop the work.
    /// [`TransactError::Fenced`]: another holder has taken the transactional id: stop.
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError>;
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Topic>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl Outgoing {
    /// A record for `topic`, its partition chosen by the key.
    pub fn keyed(topic: impl Into<Topic>, record: Record) -> Self {
        Self { topic: topic.into(), partition: None, record }
    }
}

impl Record {
    /// The last header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name)
    }

    /// Bytes of key, value and headers together, and of the headers' lengths.
    pub fn bytes(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.as_ref().map_or(0, Bytes::len) + self.headers.bytes()
    }
}
