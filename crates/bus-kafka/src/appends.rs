//! Appends: one idempotent producer, a bounded queue before it, a receipt for each batch.
//!
//! A record is never given up by time. Whoever finds the queue full waits in line; nothing else holds an unbounded
//! number of records. When the producer fails for good, what it had is unacknowledged and a new one takes over.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use drover_bus::{AppendError, Outgoing, Partition, Receipt, partition_of};
use futures::FutureExt;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use tokio::sync::Semaphore;

use crate::ask::{Asker, PATIENCE, Unseen, blocking};
use crate::batch::{Batch, Ticket};
use crate::convert::to_send;
use crate::options::{KafkaOptions, OptionsError, RECORD_BYTES_MAX};
use crate::producer::Producer;
use crate::voice::Voice;
use crate::waiting::{Place, Waiting};

/// What a waiting record costs besides its content: librdkafka's and our own bookkeeping.
const RECORD_COST: usize = 256;
/// What a header costs besides its content, in memory and on the wire.
const HEADER_COST: usize = 16;

/// Takes batches.
pub(crate) struct Appends {
    options: KafkaOptions,
    asker: Arc<Asker>,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: Arc<Waiting>,
    live: RwLock<Arc<Live>>,
    made: AtomicU64,
    /// Where the next record without a key goes.
    turn: AtomicU32,
}

/// A producer that has not failed yet.
struct Live {
    number: u64,
    producer: Arc<Producer<Delivering>>,
    failed: Arc<AtomicBool>,
}

/// Callbacks of a producer: resolves receipts, notices its end.
pub(crate) struct Delivering {
    voice: Voice,
    asker: Option<Arc<Asker>>,
    failed: Arc<AtomicBool>,
}

impl Delivering {
    /// `asker` forgets topics that turn out not to exist any more.
    pub fn new(voice: Voice, asker: Option<Arc<Asker>>, failed: Arc<AtomicBool>) -> Self {
        Self { voice, asker, failed }
    }
}

impl ClientContext for Delivering {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.failed.store(true, Ordering::Release);
        }
        self.voice.error(&error, reason);
    }
}

impl ProducerContext for Delivering {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        use rdkafka::message::Message;
        match result {
            Ok(message) => ticket.delivered(message.offset()),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                if let Some(asker) = self.asker.as_ref().filter(|_| crate::ask::is_unknown(code)) {
                    asker.forget(message.topic());
                }
                ticket.failed(code);
            }
        }
    }
}

impl Appends {
    pub fn new(options: KafkaOptions, asker: Arc<Asker>) -> Result<Self, OptionsError> {
        let live = RwLock::new(Arc::new(Live::open(&options, &asker, 0)?));
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits.try_into().unwrap_or(Semaphore::MAX_PERMITS)));
        let (messages, bytes) = (semaphore(options.queue_messages_max), semaphore(options.queue_bytes_max));
        let waiting = Arc::default();
        Ok(Self { options, asker, messages, bytes, waiting, live, made: AtomicU64::new(0), turn: AtomicU32::new(0) })
    }

    /// As the port promises.
    pub async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        let partitions = self.place(&batch).await?;
        let place = self.admit(&batch).await?;
        let (tickets, receipt) = Batch::acknowledged(&batch, &partitions, Some(place));
        let live = self.live()?;
        for ((outgoing, partition), ticket) in batch.iter().zip(&partitions).zip(tickets) {
            if let Err((error, back)) = live.producer.send(to_send(outgoing, *partition, Box::new(ticket))) {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                if code == RDKafkaErrorCode::Fatal {
                    live.failed.store(true, Ordering::Release);
                }
                back.delivery_opaque.failed(code);
            }
        }
        Ok(receipt.boxed())
    }

    /// The partition of each record; refuses the batch if one of them cannot be appended.
    pub async fn place(&self, batch: &[Outgoing]) -> Result<Vec<Partition>, AppendError> {
        let mut partitions = Vec::with_capacity(batch.len());
        for outgoing in batch {
            let topic = &*outgoing.topic;
            // What headers cost is off the limit: callers find the record at fault by its own bytes.
            let bytes = outgoing.record.bytes();
            let limit = RECORD_BYTES_MAX.saturating_sub(HEADER_COST * outgoing.record.headers.len());
            if bytes > limit {
                return Err(AppendError::TooLarge { bytes, limit });
            }
            let count = match self.asker.known(topic) {
                Some(known) => Some(known),
                None => self.asker.partitions(topic).await.map_err(unseen)?,
            };
            let count = count.ok_or_else(|| AppendError::UnknownTopic { topic: topic.to_owned() })?;
            let any = || self.turn.fetch_add(1, Ordering::Relaxed) % count;
            let by_key = || outgoing.record.key.as_ref().map_or_else(any, |key| partition_of(key, count));
            let partition = outgoing.partition.unwrap_or_else(by_key);
            if partition >= count && partition >= self.grown(topic, count).await? {
                return Err(AppendError::UnknownPartition { topic: topic.to_owned(), partition });
            }
            partitions.push(partition);
        }
        Ok(partitions)
    }

    /// Partitions of a topic that may have more than the `known` ones. The producer has to see them, too: by itself it looks
    /// every few minutes.
    async fn grown(&self, topic: &str, known: u32) -> Result<u32, AppendError> {
        let count = self.asker.grown(topic, known).await.map_err(unseen)?;
        if count > known {
            let (live, name) = (self.live()?, topic.to_owned());
            let seen = blocking(move || live.producer.client().fetch_metadata(Some(&name), PATIENCE).map(drop)).await;
            seen.map_err(|error| AppendError::Unavailable { reason: self.asker.away("metadata", &error) })?;
        }
        Ok(count)
    }

    /// Waits in line for room. A batch larger than the whole queue waits until it is alone.
    async fn admit(&self, batch: &[Outgoing]) -> Result<Place, AppendError> {
        let cost =
            |outgoing: &Outgoing| outgoing.record.bytes() + HEADER_COST * outgoing.record.headers.len() + RECORD_COST;
        let bytes = u32::try_from(batch.iter().map(cost).sum::<usize>()).unwrap_or(u32::MAX);
        let messages = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let closed = |_| AppendError::Unavailable { reason: "kafka: the bus is closed".to_owned() };
        let _in_line = self.waiting.line_up();
        let messages = messages.min(self.options.queue_messages_max);
        let messages = self.messages.clone().acquire_many_owned(messages).await.map_err(closed)?;
        let bytes = bytes.min(self.options.queue_bytes_max);
        let bytes = self.bytes.clone().acquire_many_owned(bytes).await.map_err(closed)?;
        Ok(self.waiting.take([messages, bytes]))
    }

    /// The producer of now: a new one if the last has failed.
    fn live(&self) -> Result<Arc<Live>, AppendError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !live.failed.load(Ordering::Acquire) {
            return Ok(live);
        }
        let mut current = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == live.number {
            let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
            let unavailable = |error: OptionsError| AppendError::Unavailable { reason: error.to_string() };
            let next = Live::open(&self.options, &self.asker, number).map_err(unavailable)?;
            tracing::error!(number, "kafka: the producer has failed, a new one takes over");
            retire(std::mem::replace(&mut *current, Arc::new(next)));
        }
        Ok(current.clone())
    }

    /// What is under way now.
    pub fn state(&self) -> AppendState {
        let max = usize::try_from(self.options.queue_messages_max).unwrap_or(usize::MAX);
        let oldest = self.waiting.oldest();
        let failed = self.live.read().unwrap_or_else(PoisonError::into_inner).failed.load(Ordering::Acquire);
        AppendState {
            records_waiting: max.saturating_sub(self.messages.available_permits()),
            callers_waiting: self.waiting.callers(),
            oldest,
            producers_replaced: self.made.load(Ordering::Relaxed),
            producer: match oldest {
                _ if failed => ProducerState::Failed,
                Some(age) if age >= STALLED_AFTER => ProducerState::Stalled,
                Some(_) | None => ProducerState::Working,
            },
        }
    }
}

/// What is known of the records on their way to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendState {
    /// Records that are taken and not yet acknowledged.
    pub records_waiting: usize,
    /// Callers that wait for room in the queue; the devices behind them are not read.
    pub callers_waiting: usize,
    /// How long the oldest of the records has waited.
    pub oldest: Option<Duration>,
    /// Producers that failed for good and were replaced.
    pub producers_replaced: u64,
    pub producer: ProducerState,
}

/// How the producer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    /// Records are acknowledged, or there are none.
    Working,
    /// A record has waited for longer than [`STALLED_AFTER`]: the cluster is away or hangs.
    Stalled,
    /// It has failed for good; the next append opens another.
    Failed,
}

/// Longest wait of a record that counts as ordinary.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);

impl Live {
    fn open(options: &KafkaOptions, asker: &Arc<Asker>, number: u64) -> Result<Self, OptionsError> {
        let failed = Arc::new(AtomicBool::new(false));
        let context = |voice| Delivering::new(voice, Some(asker.clone()), failed.clone());
        let producer = asker.clients().open(&options.producer(), context)?;
        Ok(Self { number, producer, failed })
    }
}

/// Closing a producer waits for its threads, which no caller should.
fn retire(live: Arc<Live>) {
    let closing = std::thread::Builder::new().name("kafka-retire".to_owned()).spawn(move || drop(live));
    if let Err(error) = closing {
        tracing::warn!(%error, "no thread to close a producer");
    }
}

/// What it means for a record that its topic cannot be seen.
fn unseen(unseen: Unseen) -> AppendError {
    match unseen {
        Unseen::Refused { topic, reason } => AppendError::Refused { topic, reason },
        Unseen::Away(reason) => AppendError::Unavailable { reason },
    }
}
