//! What is answered, field by field, to requests that consumers seldom send: where an epoch ends, and what becomes of groups
//! that are to be deleted.

use bytes::Bytes;
use drover_bus::embedded::GroupOffset;
use drover_bus::{Bus, Outgoing, Record, TopicPartition};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, GroupId, LeaveGroupRequest, LeaveGroupResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::raw::RawClient;

/// A partition, the epoch its client goes by and the one it asks about; and the answer: an error, an epoch and its end.
type EpochCase = (&'static str, i32, i32, i32, (i16, i32, i64));

#[tokio::test]
async fn the_one_epoch_ends_where_its_partition_does_and_no_other_ends_anywhere() {
    let broker = Broker::start().await;
    broker.topic("t", 2).await;
    let record = Record { value: Some(Bytes::from_static(b"x")), ..Record::default() };
    let outgoing = Outgoing { topic: "t".into(), partition: Some(1), record };
    broker.bus.append(vec![outgoing; 3]).await.expect("taken").await.expect("durable");
    let (ahead, unknown) = (ResponseError::UnknownLeaderEpoch.code(), ResponseError::UnknownTopicOrPartition.code());
    let cases: [EpochCase; 7] = [
        ("t", 0, -1, 0, (0, 0, 0)),
        ("t", 1, 0, 0, (0, 0, 3)),
        ("t", 1, 0, 1, (0, -1, -1)),
        ("t", 1, 1, 0, (ahead, -1, -1)),
        ("t", 2, 0, 0, (unknown, -1, -1)),
        ("t", -1, 0, 0, (unknown, -1, -1)),
        ("none", 0, 0, 0, (unknown, -1, -1)),
    ];
    let topic = |(topic, partition, current, asked, _): EpochCase| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        OffsetForLeaderTopic::default().with_topic(TopicName(topic.into())).with_partitions(vec![partition])
    };
    let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1));
    let request = request.with_topics(cases.map(topic).to_vec());
    let mut client = RawClient::connect(broker.address).await;
    for version in 2..=4 {
        let response: OffsetForLeaderEpochResponse = client.call(version, &request).await;
        assert_eq!(response.topics.len(), cases.len());
        for (answered, (topic, partition, current, asked, answer)) in response.topics.iter().zip(cases) {
            let [end] = &answered.partitions[..] else { panic!("{answered:?}") };
            assert_eq!((answered.topic.as_str(), end.partition), (topic, partition));
            let told = (end.error_code, end.leader_epoch, end.end_offset);
            assert_eq!(told, answer, "{topic} {partition}: epoch {asked}, by {current}, in version {version}");
        }
    }
}

/// Each group with its error code.
async fn delete(client: &mut RawClient, version: i16, groups: &[&'static str]) -> Vec<(String, i16)> {
    let names = groups.iter().map(|&group| GroupId(StrBytes::from_static_str(group))).collect();
    let request = DeleteGroupsRequest::default().with_groups_names(names);
    let response: DeleteGroupsResponse = client.call(version, &request).await;
    response.results.iter().map(|result| (result.group_id.as_str().to_owned(), result.error_code)).collect()
}

#[tokio::test]
async fn groups_are_deleted_each_by_itself_once_they_have_no_members() {
    let broker = Broker::start().await;
    broker.topic("t", 1).await;
    for group in ["drover.rules", "joined", "left"] {
        let offset = GroupOffset { at: TopicPartition::new("t", 0), next: 0, metadata: String::new() };
        broker.bus.store_offsets(group, vec![offset]).await.expect("stored");
    }
    let mut member = RawClient::connect(broker.address).await;
    let joined = member.join("joined", 60_000, Bytes::new()).await;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1), "its only member");

    let mut client = RawClient::connect(broker.address).await;
    let told = |group: &str, error: ResponseError| (group.to_owned(), error.code());
    let gone = |group: &str| (group.to_owned(), 0);
    let expected = [
        gone("left"),
        told("joined", ResponseError::NonEmptyGroup),
        told("nobody", ResponseError::GroupIdNotFound),
        told("drover.rules", ResponseError::GroupAuthorizationFailed),
        told("", ResponseError::InvalidGroupId),
    ];
    assert_eq!(delete(&mut client, 2, &["left", "joined", "nobody", "drover.rules", ""]).await, expected);
    assert_eq!(broker.bus.groups(), ["drover.rules", "joined"], "what was refused keeps its offsets");

    let leave = LeaveGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("joined")))
        .with_member_id(joined.member_id);
    let left: LeaveGroupResponse = member.call(1, &leave).await;
    assert_eq!(left.error_code, 0);
    let expected = [gone("joined"), told("left", ResponseError::GroupIdNotFound)];
    assert_eq!(delete(&mut client, 0, &["joined", "left"]).await, expected);
    assert_eq!(broker.bus.groups(), ["drover.rules"]);
}
