//! ListOffsets and OffsetForLeaderEpoch: where a partition begins, ends, and stood at a time.
//!
//! Adapter layer.

use std::time::Duration;

use drover_bus::{Bus, Offset, ReadError, TopicPartition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use crate::dispatch::Listener;
use crate::metadata::LEADER_EPOCH;
use crate::refusal;
use crate::view::View;

/// "Timestamps" that name the ends of a partition.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// No such offset, no such time.
const NONE: i64 = -1;

/// The partition a client names by number; negative ones do not exist, nor those of topics that the client does not see.
pub fn place(view: &View, topic: &str, partition: i32) -> Result<TopicPartition, ResponseError> {
    if !view.sees(topic) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let partition = u32::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    Ok(TopicPartition::new(topic, partition))
}

/// An epoch ahead of ours means the client knows a newer leader, which cannot be.
pub fn check_epoch(current: i32) -> Result<(), ResponseError> {
    if current > LEADER_EPOCH { Err(ResponseError::UnknownLeaderEpoch) } else { Ok(()) }
}

/// First, next, or the first at or after a time.
pub async fn list(listener: &Listener, view: &View, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            partitions.push(list_one(listener, view, &topic.name, asked).await);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn list_one(
    listener: &Listener,
    view: &View,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    match find(listener, view, topic, asked).await {
        Ok((offset, timestamp)) => answer.with_offset(offset).with_timestamp(timestamp),
        Err(error) => answer.with_error_code(error.code()),
    }
}

/// Offset and timestamp; the ends of a partition have no timestamp.
async fn find(
    listener: &Listener,
    view: &View,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<(i64, i64), ResponseError> {
    check_epoch(asked.current_leader_epoch)?;
    let (bus, at) = (&listener.bus, place(view, topic, asked.partition_index)?);
    let bounds = bus.bounds(&at).await.map_err(|e| refusal::of_read(&e))?;
    match asked.timestamp {
        LATEST => Ok((bounds.end as i64, NONE)),
        EARLIEST => Ok((bounds.earliest as i64, NONE)),
        time if time < 0 => Err(ResponseError::UnsupportedVersion),
        time => {
            let found = first_since(listener, &at, time).await.map_err(|e| refusal::of_read(&e))?;
            Ok(found.map_or((NONE, NONE), |(offset, timestamp)| (offset as i64, timestamp)))
        }
    }
}

async fn first_since(listener: &Listener, at: &TopicPartition, time: i64) -> Result<Option<(Offset, i64)>, ReadError> {
    let offset = listener.bus.offset_at(at, time).await?;
    let found = listener.bus.read(at, offset, 1, Duration::ZERO).await?;
    Ok(found.first().map(|stored| (stored.position.offset, stored.record.timestamp_ms)))
}

/// Where an epoch ended: there is one epoch, it ends at the end.
pub async fn for_leader_epoch(
    listener: &Listener,
    view: &View,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            partitions.push(match epoch_end(listener, view, &topic.topic, asked).await {
                Ok(Some(end)) => answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(end as i64),
                Ok(None) => answer,
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

async fn epoch_end(
    listener: &Listener,
    view: &View,
    topic: &str,
    asked: &OffsetForLeaderPartition,
) -> Result<Option<Offset>, ResponseError> {
    check_epoch(asked.current_leader_epoch)?;
    let bounds = listener.bus.bounds(&place(view, topic, asked.partition)?).await.map_err(|e| refusal::of_read(&e))?;
    Ok((asked.leader_epoch == LEADER_EPOCH).then_some(bounds.end))
}
