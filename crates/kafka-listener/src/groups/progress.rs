//! OffsetCommit and OffsetFetch: how far a group has come.
//!
//! Adapter layer. Commits of a group are checked and stored one after the other, and read behind those accepted:
//! whoever takes over a partition goes on where its former owner stopped.

use drover_bus::embedded::GroupOffset;
use drover_bus::{Bus, Offset, TopicPartition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::RwLockReadGuard;

use super::check_name;
use super::exchange::Identity;
use crate::dispatch::{Listener, Peer};
use crate::offsets::place;
use crate::refusal;
use crate::view::View;

/// Longest metadata of one committed offset, bytes: Kafka's default.
const METADATA_BYTES_MAX: usize = 4_096;
/// The offset of a partition that has none.
const NO_OFFSET: i64 = -1;

/// Stores the offsets of known partitions in one step, durably.
pub async fn commit(
    listener: &Listener,
    peer: &Peer,
    view: &View,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let commits = listener.coordinator.commits(&request.group_id);
    let _in_turn = commits.lock().await;
    let turn = admit(listener, peer, &request).await;
    let allowed = turn.as_ref().map(|_| ()).map_err(|error| *error);
    let known = listener.bus.topics().await.unwrap_or_default();
    let exists = |at: &TopicPartition| known.iter().any(|t| t.topic == at.topic && at.partition < t.partitions);
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|partition| {
            let taken = allowed.and_then(|()| offset_of(view, &topic.name, partition, exists)).map(|o| offsets.push(o));
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(refusal::code(&taken))
        });
        let partitions = partitions.collect();
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    if !offsets.is_empty()
        && let Err(error) = listener.bus.store_offsets(&request.group_id, offsets).await
    {
        tracing::warn!(%error, group = %*request.group_id, "offsets could not be stored");
        let code = ResponseError::CoordinatorNotAvailable.code();
        topics.iter_mut().flat_map(|t| &mut t.partitions).for_each(|p| p.error_code = code);
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// The right to store these offsets, as long as it is held.
async fn admit<'l>(
    listener: &'l Listener,
    peer: &Peer,
    request: &OffsetCommitRequest,
) -> Result<RwLockReadGuard<'l, ()>, ResponseError> {
    may_commit(listener, peer, request)?;
    listener.retention.admit(&listener.bus, &request.group_id).await.map_err(|error| {
        tracing::warn!(%error, group = %*request.group_id, remote = %peer.remote, "kafka client could not commit");
        ResponseError::GroupMaxSizeReached
    })
}

fn may_commit(listener: &Listener, peer: &Peer, request: &OffsetCommitRequest) -> Result<(), ResponseError> {
    check_name(&request.group_id, peer)?;
    let who = Identity {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(StrBytes::to_string),
    };
    let generation = request.generation_id_or_member_epoch;
    let allowed = listener
        .coordinator
        .act(&request.group_id, |group, now_ms| (group.may_commit(now_ms, &who, generation), Vec::new()));
    // Without members there is no generation: only those that claim none may commit.
    let unclaimed = if generation < 0 { Ok(()) } else { Err(ResponseError::IllegalGeneration) };
    allowed.unwrap_or(unclaimed)
}

fn offset_of(
    view: &View,
    topic: &str,
    partition: &OffsetCommitRequestPartition,
    exists: impl Fn(&TopicPartition) -> bool,
) -> Result<GroupOffset, ResponseError> {
    let at = place(view, topic, partition.partition_index)?;
    let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    if !exists(&at) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    let next = Offset::try_from(partition.committed_offset).map_err(|_| ResponseError::InvalidCommitOffsetSize)?;
    Ok(GroupOffset { at, next, metadata: metadata.to_owned() })
}

/// The committed offsets of one group, or (since version 8) of several.
pub async fn committed(listener: &Listener, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version >= 8 {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let asked = group.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            groups.push(of_group(listener, group.group_id, asked).await);
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let asked = request.topics.map(|topics| topics.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    let group = of_group(listener, request.group_id, asked).await;
    let code = if version >= 2 { group.error_code } else { 0 };
    OffsetFetchResponse::default().with_error_code(code).with_topics(group.topics.into_iter().map(single).collect())
}

/// The same in the words of older versions.
fn single(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|p| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(p.partition_index)
            .with_committed_offset(p.committed_offset)
            .with_metadata(p.metadata)
            .with_error_code(p.error_code)
    });
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
}

/// `None` for `asked`: all there are.
async fn of_group(
    listener: &Listener,
    group: GroupId,
    asked: Option<Vec<(TopicName, Vec<i32>)>>,
) -> OffsetFetchResponseGroup {
    let commits = listener.coordinator.commits(&group);
    let _in_turn = commits.lock().await;
    let stored = listener.bus.group_offsets(&group);
    let asked = asked.unwrap_or_else(|| everything(&stored));
    let topics = asked.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|partition| of_partition(&stored, &name, partition)).collect();
        OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetFetchResponseGroup::default().with_group_id(group).with_topics(topics)
}

fn everything(stored: &[GroupOffset]) -> Vec<(TopicName, Vec<i32>)> {
    let mut topics: std::collections::BTreeMap<&str, Vec<i32>> = Default::default();
    for offset in stored {
        topics.entry(&offset.at.topic).or_default().push(offset.at.partition as i32);
    }
    topics
        .into_iter()
        .map(|(name, partitions)| (TopicName(StrBytes::from_string(name.to_owned())), partitions))
        .collect()
}

fn of_partition(stored: &[GroupOffset], topic: &str, partition: i32) -> OffsetFetchResponsePartitions {
    let is_it = |o: &&GroupOffset| *o.at.topic == *topic && i64::from(o.at.partition) == i64::from(partition);
    let (offset, metadata) =
        stored.iter().find(is_it).map_or((NO_OFFSET, String::new()), |o| (o.next as i64, o.metadata.clone()));
    OffsetFetchResponsePartitions::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_metadata(Some(StrBytes::from_string(metadata)))
}
