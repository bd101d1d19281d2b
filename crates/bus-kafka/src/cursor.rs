//! One place in one partition, from which records are fetched a little ahead.

use std::sync::Arc;

use drover_bus::{Offset, Stored, TopicPartition};
use futures::FutureExt;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::util::DefaultRuntime;
use tokio::time::Instant;

use crate::ask::{is_unknown, one};
use crate::convert::{offset, places, stored};
use crate::readers::Lane;
use crate::voice::Plain;

/// A reader of one partition; dropping it frees the partition on its lane.
pub(crate) struct Cursor {
    lane: Arc<Lane>,
    at: TopicPartition,
    queue: StreamPartitionQueue<Plain, DefaultRuntime>,
    /// Where the last read ended.
    next: Offset,
    /// From `next` up to here there are only gaps.
    clear_to: Offset,
    used: Instant,
}

/// What came.
pub(crate) enum Took {
    Records(Vec<Stored>),
    /// The end of what may be read, before any record.
    End,
    /// Nothing within the time.
    Nothing,
    /// The place is not in the log any more.
    Gone,
}

impl Cursor {
    /// Stands at `from`. The partition must be taken on the lane; it is freed if this fails.
    pub fn open(lane: Arc<Lane>, at: &TopicPartition, from: Offset) -> Result<Self, KafkaError> {
        let partition = crate::convert::raw_partition(at.partition);
        // Split off first, so that nothing that is fetched goes elsewhere.
        let queue = lane.client.split_partition_queue(&at.topic, partition);
        let opened = one(at, from).and_then(|start| {
            let queue = queue.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
            lane.client.incremental_assign(&start)?;
            Ok(queue)
        });
        match opened {
            Ok(queue) => Ok(Self { lane, at: at.clone(), queue, next: from, clear_to: from, used: Instant::now() }),
            Err(error) => {
                lane.release(at);
                Err(error)
            }
        }
    }

    pub fn stands_at(&self, at: &TopicPartition, from: Offset) -> bool {
        self.next == from && self.at == *at
    }

    pub fn is_on(&self, at: &TopicPartition) -> bool {
        self.at == *at
    }

    pub fn lane(&self) -> Arc<Lane> {
        self.lane.clone()
    }

    /// Nobody reads by it for now.
    pub fn rest(&mut self) {
        self.used = Instant::now();
    }

    pub fn rested(&self, now: Instant) -> std::time::Duration {
        now.saturating_duration_since(self.used)
    }

    /// Whether nothing can come before `end`.
    pub fn is_clear_to(&self, end: Offset) -> bool {
        end <= self.clear_to.max(self.next)
    }

    /// Up to `end` there are only gaps.
    pub fn note_clear_to(&mut self, end: Offset) {
        self.clear_to = end;
    }

    /// What comes until `until`. With `to_end` the end counts as an answer. Dropping this loses nothing but the cursor.
    pub async fn take(&mut self, bytes_max: usize, until: Instant, to_end: bool) -> Took {
        let mut records: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        loop {
            let came = if records.is_empty() {
                // A record that is here already comes even if the time is over.
                match self.queue.recv().now_or_never() {
                    Some(came) => came,
                    None => match tokio::time::timeout_at(until, self.queue.recv()).await {
                        Ok(came) => came,
                        Err(_) => return Took::Nothing,
                    },
                }
            } else {
                match self.queue.recv().now_or_never() {
                    Some(came) => came,
                    None => break,
                }
            };
            match came {
                Ok(message) if offset(message.offset()) < self.next => {}
                Ok(message) => {
                    let record = stored(&message, &self.at.topic);
                    bytes += record.record.bytes();
                    self.next = record.position.offset + 1;
                    records.push(record);
                    if bytes >= bytes_max {
                        break;
                    }
                }
                Err(error) => match self.heard(&error) {
                    None if to_end && records.is_empty() && matches!(error, KafkaError::PartitionEOF(_)) => {
                        return Took::End;
                    }
                    None => {}
                    // What was read before is fine; the next read meets the error again, by a cursor of its own.
                    Some(_) if !records.is_empty() => break,
                    Some(gone) => return gone,
                },
            }
        }
        Took::Records(records)
    }

    /// What an error means; `None`: librdkafka goes on by itself. Whether a partition is gone that nobody knows is found out by
    /// who asks for its bounds.
    fn heard(&self, error: &KafkaError) -> Option<Took> {
        let code = error.rdkafka_error_code()?;
        let gone =
            is_unknown(code) || matches!(code, RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset);
        gone.then_some(Took::Gone)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if let Err(error) = self.lane.client.incremental_unassign(&places(std::slice::from_ref(&self.at))) {
            tracing::debug!(%error, topic = &*self.at.topic, self.at.partition, "kafka: partition not given back");
        }
        self.lane.release(&self.at);
    }
}
