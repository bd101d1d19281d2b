//! A bus that breaks promises on purpose, so that a test can show that it would notice.
//!
//! It stands between a service and any other bus: what is broken is broken here, and no service knows of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Membership, Offset, Outgoing, Polled,
    Position, ReadError, Receipt, Stalled, Stored, TopicConfig, TopicPartition, TransactError, Transaction, Transactor,
    repeats,
};
use drover_types::repeat::ID_PROPERTY;
use drover_types::{TELEMETRY_TOPIC, header};

/// What is broken; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broken {
    /// Receipts of telemetry say that it is durable before it is appended, so its device is told so.
    pub ack_before_append: bool,
    /// The messages of one device go to two partitions.
    pub scatter_devices: bool,
    /// A transaction commits its offsets first, its records after.
    pub offset_before_output: bool,
    /// A transaction commits its records first, its offsets after.
    pub document_without_offset: bool,
    /// Every message that a consumer gets has a name of its own, so that no window recognises one that was sent again.
    pub no_repeat_window: bool,
    /// Reads of this topic bring nothing, so that whoever goes by its last records begins without them.
    pub unread_topic: Option<&'static str>,
    /// The last record of each partition of this topic is seen only by who has asked for settled bounds since a transactor
    /// was opened last: so is a transaction that is decided, and whose partitions have not heard of it.
    pub late_topic: Option<&'static str>,
    /// Settled bounds are no other than bounds.
    pub never_settles: bool,
    /// Whoever was fenced may write nevertheless; for the simulated bus itself, which is to be made [`SimBus::unfenced`].
    ///
    /// [`SimBus::unfenced`]: crate::SimBus::unfenced
    pub unfenced: bool,
    /// Records of this topic are left out of transactions, as if nobody had written them.
    pub forgotten_topic: Option<&'static str>,
}

/// Another bus, but for what is [`Broken`].
pub struct BrokenBus {
    bus: Arc<dyn Bus>,
    broken: Broken,
    /// Partitions of the late topic that are seen as they are.
    settled: Mutex<HashSet<TopicPartition>>,
}

impl BrokenBus {
    pub fn new(bus: Arc<dyn Bus>, broken: Broken) -> Self {
        Self { bus, broken, settled: Mutex::default() }
    }

    fn settled(&self) -> MutexGuard<'_, HashSet<TopicPartition>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last record of a partition is not seen.
    fn is_late(&self, at: &TopicPartition) -> bool {
        self.broken.late_topic.is_some_and(|topic| topic == &*at.topic) && !self.settled().contains(at)
    }

    /// Says at once that a batch is durable, at places made up, and only then appends it. Nobody learns whether it was.
    fn append_later(&self, batch: Vec<Outgoing>) -> Receipt {
        let made_up = |outgoing: &Outgoing| Position {
            at: TopicPartition::new(outgoing.topic.clone(), outgoing.partition.unwrap_or_default()),
            offset: 0,
        };
        let positions: Vec<Position> = batch.iter().map(made_up).collect();
        let bus = self.bus.clone();
        tokio::spawn(async move {
            if let Ok(receipt) = bus.append(batch).await {
                drop(receipt.await);
            }
        });
        Box::pin(async move { Ok(positions) })
    }
}

/// Puts telemetry into the one or the other of two partitions, by its packet id.
fn scattered(outgoing: Outgoing) -> Outgoing {
    if &*outgoing.topic != TELEMETRY_TOPIC {
        return outgoing;
    }
    let last_digit = outgoing.record.header(header::PACKET_ID).and_then(|packet_id| packet_id.last());
    let partition = last_digit.map_or(0, |digit| u32::from(digit % 2));
    Outgoing { partition: Some(partition), ..outgoing }
}

/// Names a message by its place in the log; a record that is none stays as it is.
fn name_by_place(stored: &mut Stored) {
    let Ok(mut message) = repeats::telemetry(stored) else { return };
    let Position { at, offset } = &stored.position;
    let place = format!("{}/{}/{offset}", at.topic, at.partition);
    message.properties.retain(|(property, _)| property != ID_PROPERTY);
    message.properties.push((ID_PROPERTY.to_owned(), place));
    stored.record.headers = message.headers();
}

#[async_trait]
impl Bus for BrokenBus {
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        self.bus.create_topic(config).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        self.bus.delete_topic(topic).await
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        self.bus.topics().await
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        let batch: Vec<Outgoing> =
            if self.broken.scatter_devices { batch.into_iter().map(scattered).collect() } else { batch };
        if self.broken.ack_before_append && batch.iter().any(|outgoing| &*outgoing.topic == TELEMETRY_TOPIC) {
            return Ok(self.append_later(batch));
        }
        self.bus.append(batch).await
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        if self.broken.unread_topic.is_some_and(|topic| topic == &*at.topic) {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let mut records = self.bus.read(at, from, bytes_max, wait).await?;
        if self.is_late(at) {
            let seen = self.bounds(at).await?.end;
            records.retain(|stored| stored.position.offset < seen);
        }
        Ok(records)
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        let Bounds { earliest, end } = self.bus.bounds(at).await?;
        let end = if self.is_late(at) { end.saturating_sub(1).max(earliest) } else { end };
        Ok(Bounds { earliest, end })
    }

    async fn settled_bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        if !self.broken.never_settles {
            self.settled().insert(at.clone());
        }
        self.bounds(at).await
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        self.bus.offset_at(at, timestamp_ms).await
    }

    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        let consumer = self.bus.join(config).await?;
        if self.broken.no_repeat_window {
            return Ok(Box::new(Renaming(consumer)));
        }
        Ok(consumer)
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        self.bus.committed(group, topic).await
    }

    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        let transactor = self.bus.transactor(transactional_id).await?;
        self.settled().clear();
        let Broken { offset_before_output, document_without_offset, forgotten_topic, .. } = self.broken;
        if let Some(topic) = forgotten_topic {
            return Ok(Box::new(Forgetting { inner: transactor, topic }));
        }
        if offset_before_output || document_without_offset {
            return Ok(Box::new(TwoSteps { inner: transactor, offsets_first: offset_before_output }));
        }
        Ok(transactor)
    }
}

/// Names every message anew.
struct Renaming(Box<dyn Consumer>);

#[async_trait]
impl Consumer for Renaming {
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError> {
        let mut polled = self.0.poll(records_max, wait).await?;
        if let Polled::Records(records) = &mut polled {
            records.iter_mut().for_each(name_by_place);
        }
        Ok(polled)
    }

    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError> {
        self.0.commit(next).await
    }

    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError> {
        self.0.seek(to).await
    }

    fn membership(&self) -> Membership {
        self.0.membership()
    }

    fn stalled(&self) -> Vec<Stalled> {
        self.0.stalled()
    }
}

/// Leaves the records of one topic out.
struct Forgetting {
    inner: Box<dyn Transactor>,
    topic: &'static str,
}

#[async_trait]
impl Transactor for Forgetting {
    async fn commit(&mut self, mut transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        let kept = transaction.records.iter().filter(|outgoing| &*outgoing.topic != self.topic);
        transaction.records = kept.cloned().collect();
        self.inner.commit(transaction).await
    }
}

/// Commits records and offsets one after the other.
struct TwoSteps {
    inner: Box<dyn Transactor>,
    offsets_first: bool,
}

#[async_trait]
impl Transactor for TwoSteps {
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        let Transaction { records, offsets } = transaction;
        let records = Transaction { records, offsets: None };
        let offsets = Transaction { records: Arc::default(), offsets };
        if self.offsets_first {
            self.inner.commit(offsets).await?;
            return self.inner.commit(records).await;
        }
        let positions = self.inner.commit(records).await?;
        self.inner.commit(offsets).await?;
        Ok(positions)
    }
}
