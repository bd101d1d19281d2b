//! One request of every API with all arrays filled, for tests.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::api::Api;

const fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// Appends the sample of `api` in `version`.
pub fn encode(api: Api, version: i16, buffer: &mut BytesMut) {
    let topic = TopicName(text("a-topic"));
    let group = GroupId(text("a-group"));
    let since = |first: i16| version >= first;
    let encoded = match api {
        Api::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(if since(3) { text("sample") } else { text("") })
            .encode(buffer, version),
        Api::SaslHandshake => SaslHandshakeRequest::default().with_mechanism(text("PLAIN")).encode(buffer, version),
        Api::SaslAuthenticate => SaslAuthenticateRequest::default()
            .with_auth_bytes(Bytes::from_static(b"\0home\0secret"))
            .encode(buffer, version),
        Api::Metadata => MetadataRequest::default()
            .with_topics(Some(vec![metadata_request::MetadataRequestTopic::default().with_name(Some(topic))]))
            .encode(buffer, version),
        Api::DescribeCluster => DescribeClusterRequest::default().encode(buffer, version),
        Api::ListOffsets => {
            let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
            let topic =
                list_offsets_request::ListOffsetsTopic::default().with_name(topic).with_partitions(vec![partition]);
            ListOffsetsRequest::default().with_topics(vec![topic]).encode(buffer, version)
        }
        Api::OffsetForLeaderEpoch => {
            let partition = offset_for_leader_epoch_request::OffsetForLeaderPartition::default();
            let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                .with_topic(topic)
                .with_partitions(vec![partition]);
            OffsetForLeaderEpochRequest::default().with_topics(vec![topic]).encode(buffer, version)
        }
        Api::Fetch => {
            let partition = fetch_request::FetchPartition::default().with_partition_max_bytes(1_000);
            let fetched =
                fetch_request::FetchTopic::default().with_topic(topic.clone()).with_partitions(vec![partition; 2]);
            let forgotten = fetch_request::ForgottenTopic::default().with_topic(topic).with_partitions(vec![1, 2]);
            FetchRequest::default()
                .with_max_bytes(1_000)
                .with_topics(vec![fetched])
                .with_forgotten_topics_data(if since(7) { vec![forgotten] } else { vec![] })
                .encode(buffer, version)
        }
        Api::Produce => {
            let partition =
                produce_request::PartitionProduceData::default().with_records(Some(Bytes::from_static(b"r")));
            let topic =
                produce_request::TopicProduceData::default().with_name(topic).with_partition_data(vec![partition]);
            ProduceRequest::default().with_topic_data(vec![topic]).encode(buffer, version)
        }
        Api::InitProducerId => InitProducerIdRequest::default().encode(buffer, version),
        Api::FindCoordinator if since(4) => {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![text("a"), text("b")]).encode(buffer, version)
        }
        Api::FindCoordinator => FindCoordinatorRequest::default().with_key(text("a")).encode(buffer, version),
        Api::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(b"m"));
            JoinGroupRequest::default()
                .with_group_id(group)
                .with_group_instance_id(since(5).then(|| text("i")))
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol; 2])
                .with_reason(since(8).then(|| text("why")))
                .encode(buffer, version)
        }
        Api::SyncGroup => {
            let share = sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(text("m"))
                .with_assignment(Bytes::from_static(b"a"));
            SyncGroupRequest::default()
                .with_group_id(group)
                .with_group_instance_id(since(3).then(|| text("i")))
                .with_assignments(vec![share; 2])
                .encode(buffer, version)
        }
        Api::Heartbeat => HeartbeatRequest::default()
            .with_group_id(group)
            .with_group_instance_id(since(3).then(|| text("i")))
            .encode(buffer, version),
        Api::LeaveGroup if since(3) => {
            let member = leave_group_request::MemberIdentity::default().with_member_id(text("m"));
            LeaveGroupRequest::default().with_group_id(group).with_members(vec![member; 2]).encode(buffer, version)
        }
        Api::LeaveGroup => {
            LeaveGroupRequest::default().with_group_id(group).with_member_id(text("m")).encode(buffer, version)
        }
        Api::OffsetCommit => {
            let partition =
                offset_commit_request::OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("x")));
            let topic = offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(topic)
                .with_partitions(vec![partition]);
            OffsetCommitRequest::default().with_group_id(group).with_topics(vec![topic]).encode(buffer, version)
        }
        Api::OffsetFetch if since(8) => {
            let topic = offset_fetch_request::OffsetFetchRequestTopics::default()
                .with_name(topic)
                .with_partition_indexes(vec![0, 1]);
            let asked = offset_fetch_request::OffsetFetchRequestGroup::default()
                .with_group_id(group)
                .with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![asked]).encode(buffer, version)
        }
        Api::OffsetFetch => {
            let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(topic)
                .with_partition_indexes(vec![0, 1]);
            OffsetFetchRequest::default().with_group_id(group).with_topics(Some(vec![topic])).encode(buffer, version)
        }
        Api::DescribeGroups => DescribeGroupsRequest::default().with_groups(vec![group]).encode(buffer, version),
        Api::ListGroups => ListGroupsRequest::default()
            .with_states_filter(if since(4) { vec![text("Stable")] } else { vec![] })
            .with_types_filter(if since(5) { vec![text("classic")] } else { vec![] })
            .encode(buffer, version),
        Api::DeleteGroups => DeleteGroupsRequest::default().with_groups_names(vec![group]).encode(buffer, version),
        Api::CreateTopics => {
            let assignment =
                create_topics_request::CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let config = create_topics_request::CreatableTopicConfig::default()
                .with_name(text("retention.ms"))
                .with_value(Some(text("1")));
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(topic)
                .with_assignments(vec![assignment])
                .with_configs(vec![config]);
            CreateTopicsRequest::default().with_topics(vec![topic]).encode(buffer, version)
        }
        Api::DeleteTopics => DeleteTopicsRequest::default().with_topic_names(vec![topic]).encode(buffer, version),
        Api::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("a-topic"))
                .with_configuration_keys(Some(vec![text("retention.ms")]));
            DescribeConfigsRequest::default().with_resources(vec![resource]).encode(buffer, version)
        }
    };
    encoded.expect("a sample fits every version spoken");
}
