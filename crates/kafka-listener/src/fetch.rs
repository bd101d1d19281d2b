//! Fetch: records of many partitions, at once or when enough have come.
//!
//! Adapter layer. Every answer is read-committed: the embedded log shows a transaction only once it is committed, so
//! there are no aborted ones to list. There are no fetch sessions: every request names all its partitions.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use drover_bus::{Bounds, Bus, Offset, ReadError, Stored, TopicPartition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::time::Instant;

use crate::batch;
use crate::dispatch::Listener;
use crate::offsets::{check_epoch, place};
use crate::refusal;
use crate::view::View;

/// Longest a fetch waits for records, milliseconds; Kafka's clients ask for half a second.
const WAIT_MS_MAX: i32 = 60_000;
/// Id of the session that is none.
const NO_SESSION: i32 = 0;

/// One pass over the partitions asked for.
#[derive(Default)]
struct Pass {
    responses: Vec<FetchableTopicResponse>,
    /// Encoded records of all partitions together.
    bytes: usize,
    /// Waiting would bring nothing: a partition failed, or has more than it was allowed to give.
    is_due: bool,
    /// Where the next record of each partition will stand.
    ends: Vec<(TopicPartition, Offset)>,
}

/// Reads what there is; while it is less than the client wants, waits for more until its time is up.
pub async fn fetch(listener: &Listener, view: &View, request: FetchRequest) -> FetchResponse {
    if request.session_id != NO_SESSION {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let wait_ms = request.max_wait_ms.clamp(0, WAIT_MS_MAX);
    let deadline = Instant::now() + Duration::from_millis(wait_ms as u64).min(view.lasts());
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let pass = read_all(listener, view, &request).await;
        let left = deadline.saturating_duration_since(Instant::now());
        if pass.bytes >= wanted || pass.is_due || left.is_zero() {
            return FetchResponse::default().with_responses(pass.responses);
        }
        listener.bus.wait_for(&pass.ends, left).await;
    }
}

async fn read_all(listener: &Listener, view: &View, request: &FetchRequest) -> Pass {
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0).min(listener.config.fetch_bytes_max);
    let mut pass = Pass::default();
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let left = bytes_max.saturating_sub(pass.bytes);
            partitions.push(read_one(listener, view, &topic.topic, asked, left, &mut pass).await);
        }
        let response = FetchableTopicResponse::default().with_topic(topic.topic.clone());
        pass.responses.push(response.with_partitions(partitions));
    }
    pass
}

/// Reads one partition into at most about `left` bytes. The first records of a response always pass, however large.
async fn read_one(
    listener: &Listener,
    view: &View,
    topic: &str,
    asked: &FetchPartition,
    left: usize,
    pass: &mut Pass,
) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(asked.partition).with_aborted_transactions(Some(vec![]));
    let bytes_max = left.min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
    let is_full = left == 0 && pass.bytes > 0;
    match records(listener, view, topic, asked, (!is_full).then_some(bytes_max)).await {
        Ok(Read { at, bounds, records, next }) => {
            pass.bytes += records.len();
            pass.is_due |= next < bounds.end;
            pass.ends.push((at, next));
            let end = bounds.end as i64;
            answer
                .with_high_watermark(end)
                .with_last_stable_offset(end)
                .with_log_start_offset(bounds.earliest as i64)
                .with_records(Some(records))
        }
        Err(error) => {
            pass.is_due = true;
            answer.with_error_code(error.code()).with_high_watermark(-1).with_records(Some(Bytes::new()))
        }
    }
}

/// What one partition gave.
struct Read {
    at: TopicPartition,
    bounds: Bounds,
    records: Bytes,
    /// Offset behind them.
    next: Offset,
}

/// `None` for `bytes_max` looks at the bounds only.
async fn records(
    listener: &Listener,
    view: &View,
    topic: &str,
    asked: &FetchPartition,
    bytes_max: Option<usize>,
) -> Result<Read, ResponseError> {
    check_epoch(asked.current_leader_epoch)?;
    let at = place(view, topic, asked.partition)?;
    let from = Offset::try_from(asked.fetch_offset).map_err(|_| ResponseError::OffsetOutOfRange)?;
    let read = async {
        let bounds = listener.bus.bounds(&at).await?;
        if !(bounds.earliest..=bounds.end).contains(&from) {
            return Err(ReadError::OutOfRange { from, earliest: bounds.earliest, end: bounds.end });
        }
        let stored = match bytes_max {
            Some(bytes_max) if from < bounds.end => listener.bus.read(&at, from, bytes_max, Duration::ZERO).await?,
            Some(_) | None => Vec::new(),
        };
        Ok((bounds, stored))
    };
    let (bounds, stored) = read.await.map_err(|error| refusal::of_read(&error))?;
    let (records, next) = match bytes_max {
        Some(_) => encode(from, bounds.end, &stored),
        None => (Bytes::new(), from),
    };
    // What was read may be newer than the bounds looked at before.
    let bounds = Bounds { end: bounds.end.max(next), ..bounds };
    Ok(Read { at, bounds, records, next })
}

/// The batches, and the offset behind them. Where everything from `from` to `end` was compacted away, an empty batch
/// moves the consumer on.
fn encode(from: Offset, end: Offset, stored: &[Stored]) -> (Bytes, Offset) {
    let mut buffer = BytesMut::new();
    match stored.last() {
        Some(last) => {
            batch::encode(stored, &mut buffer);
            (buffer.freeze(), last.position.offset + 1)
        }
        None if from < end => {
            batch::encode_gap(from, end, &mut buffer);
            (buffer.freeze(), end)
        }
        None => (Bytes::new(), from),
    }
}
