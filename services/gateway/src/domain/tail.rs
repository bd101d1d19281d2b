//! Follows the log for one live stream: a reader per partition, one bounded queue to the client.
//!
//! Domain layer over the [`Bus`] port. The log is the buffer: a slow client makes its readers wait, and nothing is
//! copied for it. Only three things are ever left out, and all are told to the client: what a stream that began with
//! "now" would show too late, what retention deleted before it was read, and what the log has lost. With each event the
//! place behind it is known, from where another stream goes on.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use drover_bus::{Bus, Offset, Partition, ReadError, Topic, TopicPartition};
use drover_types::{ApiError, ErrorCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::live::{Message, Selection, Start};
use super::place::Place;

/// Bytes of one read of a partition; bounds what a stream holds in memory per partition.
const READ_BYTES: usize = 256 * 1024;
/// How long one read waits for a record before it asks again.
const READ_WAIT: Duration = Duration::from_secs(5);

/// Bounds of one stream.
#[derive(Clone, Copy, Debug)]
pub struct TailLimits {
    /// Messages waiting for a client.
    pub queue_messages: usize,
    /// Records of one partition a live stream may be behind before it jumps to the end.
    pub lag_records_max: u64,
}

/// What a stream brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Message(Message),
    /// This many records of the log were left out without a look at whether they are selected.
    Dropped {
        records: u64,
        reason: DropReason,
    },
    /// Records were looked at that are not selected: only the place is another.
    Passed,
    /// The stream ends with this error.
    Failed(ApiError),
}

/// Why records were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The client read too slowly to stay live.
    Slow,
    /// They were deleted before they were read.
    Retention,
    /// The log ends before the place of the stream: it was cut, or is another one. So many are gone at least.
    Reset,
}

impl DropReason {
    /// The reason as clients and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Retention => "retention",
            Self::Reset => "reset",
        }
    }
}

/// A running stream; dropping it stops its readers.
pub struct Tail {
    steps: mpsc::Receiver<Step>,
    place: Place,
    _readers: JoinSet<()>,
}

/// What a partition brings, and the offset behind it.
struct Step {
    partition: Partition,
    next: Offset,
    event: Event,
}

impl Tail {
    /// Starts to follow. When this returns, the place where the stream begins is fixed.
    ///
    /// `not_found` if the topic does not exist, `out_of_range` if it has fewer partitions than the place to begin behind.
    pub async fn open(
        bus: &Arc<dyn Bus>,
        selection: Selection,
        start: Start,
        limits: TailLimits,
    ) -> Result<Self, ApiError> {
        let selection = Arc::new(selection);
        let begins = begins(bus.as_ref(), selection.log_topic(), &start).await?;
        if let Start::Behind(place) = &start {
            place.check(begins.len())?;
        }
        let place = Place::new(selection.log_topic(), begins.iter().map(|(_, next)| *next).collect());
        let lag_records_max = match start {
            Start::Now => Some(limits.lag_records_max),
            Start::Earliest | Start::At(_) | Start::Behind(_) => None,
        };
        let (out, steps) = mpsc::channel(limits.queue_messages);
        let mut readers = JoinSet::new();
        for (at, next) in begins {
            let reader = Reader { bus: bus.clone(), at, next, lag_records_max, selection: selection.clone() };
            readers.spawn(reader.run(out.clone()));
        }
        Ok(Self { steps, place, _readers: readers })
    }

    /// The next event; `None` when there will be no other.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let step = ready!(self.steps.poll_recv(cx));
        Poll::Ready(step.map(|Step { partition, next, event }| {
            self.place.advance(partition, next);
            event
        }))
    }

    /// The id of the last event: the place behind it. Before the first, the place where the stream begins.
    pub fn id(&self) -> String {
        self.place.id()
    }
}

/// Where to begin in each partition: the log is asked for one after the other until there is no more, since a list of its
/// topics would have all of them.
async fn begins(bus: &dyn Bus, topic: &str, start: &Start) -> Result<Vec<(TopicPartition, Offset)>, ApiError> {
    let (topic, mut begins) = (Topic::from(topic), Vec::new());
    for partition in 0.. {
        let at = TopicPartition::new(topic.clone(), partition);
        match begin(bus, &at, start).await {
            Ok(next) => begins.push((at, next)),
            Err(ReadError::Unknown { .. }) => break,
            Err(error) => return Err(failed(&error)),
        }
    }
    if begins.is_empty() {
        return Err(ApiError::new(ErrorCode::NotFound, format!("topic {topic} does not exist")));
    }
    Ok(begins)
}

async fn begin(bus: &dyn Bus, at: &TopicPartition, start: &Start) -> Result<Offset, ReadError> {
    match start {
        Start::Earliest => Ok(bus.bounds(at).await?.earliest),
        Start::Now => Ok(bus.bounds(at).await?.end),
        Start::At(ms) => bus.offset_at(at, *ms).await,
        // Asked for in any case, to know that the partition is there; of one that the topic has grown since, all came later.
        Start::Behind(place) => {
            let earliest = bus.bounds(at).await?.earliest;
            Ok(place.next(at.partition).unwrap_or(earliest))
        }
    }
}

fn failed(error: &ReadError) -> ApiError {
    let code = match error {
        ReadError::Unknown { .. } => ErrorCode::NotFound,
        ReadError::OutOfRange { .. } => ErrorCode::OutOfRange,
        ReadError::Corrupt { .. } => ErrorCode::DataLoss,
        ReadError::Unavailable { .. } => ErrorCode::Unavailable,
    };
    ApiError::new(code, format!("the log cannot be read: {error}"))
}

/// Why a reader stops.
enum Stop {
    /// Nobody listens any more.
    Closed,
    Failed(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

impl From<mpsc::error::SendError<Step>> for Stop {
    fn from(_: mpsc::error::SendError<Step>) -> Self {
        Self::Closed
    }
}

/// Reads one partition.
struct Reader {
    bus: Arc<dyn Bus>,
    at: TopicPartition,
    next: Offset,
    /// `None`: a replay, or one that goes on, which shows everything however long it takes.
    lag_records_max: Option<u64>,
    selection: Arc<Selection>,
}

impl Reader {
    async fn run(mut self, out: mpsc::Sender<Step>) {
        loop {
            match self.step(&out).await {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(Stop::Failed(error)) => {
                    tracing::warn!(%error, topic = %self.at.topic, partition = self.at.partition, "live stream ends");
                    // The receiver may be gone already; then nobody has to be told.
                    drop(self.tell(Event::Failed(failed(&error)), &out).await);
                    return;
                }
            }
        }
    }

    /// One read, and whatever it brought into the queue.
    async fn step(&mut self, out: &mpsc::Sender<Step>) -> Result<(), Stop> {
        let records = match self.bus.read(&self.at, self.next, READ_BYTES, READ_WAIT).await {
            Ok(records) => records,
            Err(ReadError::OutOfRange { earliest, .. }) if earliest > self.next => {
                return self.jump(earliest, DropReason::Retention, out).await;
            }
            Err(ReadError::OutOfRange { end, .. }) if end < self.next => {
                return self.jump(end, DropReason::Reset, out).await;
            }
            Err(error) => return Err(error.into()),
        };
        let mut passed = false;
        for stored in &records {
            self.next = stored.position.offset + 1;
            let shown = self.selection.show(stored);
            passed = shown.is_none();
            if let Some(message) = shown {
                self.tell(Event::Message(message), out).await?;
            }
        }
        if passed {
            self.tell(Event::Passed, out).await?;
        }
        if records.is_empty() { Ok(()) } else { self.stay_live(out).await }
    }

    async fn stay_live(&mut self, out: &mpsc::Sender<Step>) -> Result<(), Stop> {
        let Some(lag_records_max) = self.lag_records_max else { return Ok(()) };
        let end = self.bus.bounds(&self.at).await?.end;
        if end.saturating_sub(self.next) <= lag_records_max {
            return Ok(());
        }
        self.jump(end, DropReason::Slow, out).await
    }

    async fn jump(&mut self, to: Offset, reason: DropReason, out: &mpsc::Sender<Step>) -> Result<(), Stop> {
        let records = to.abs_diff(self.next);
        self.next = to;
        self.tell(Event::Dropped { records, reason }, out).await
    }

    /// Queues an event with the place behind it.
    async fn tell(&self, event: Event, out: &mpsc::Sender<Step>) -> Result<(), Stop> {
        Ok(out.send(Step { partition: self.at.partition, next: self.next, event }).await?)
    }
}
