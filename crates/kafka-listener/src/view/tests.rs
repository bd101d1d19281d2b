//! Two tenants at one listener: every API that names topics or groups, with what is theirs, another's, nobody's and the
//! platform's.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tempfile::TempDir;

use super::*;
use crate::config::{ListenerConfig, SaslSsl};
use crate::dispatch::{Outcome, Peer, dispatch};
use crate::metrics::Metrics;
use crate::ports::{Authenticator, NotAdmitted};
use crate::wire::api::{Head, Response};

const UNKNOWN: i16 = ResponseError::UnknownTopicOrPartition.code();
const FORBIDDEN: i16 = ResponseError::TopicAuthorizationFailed.code();
/// One of each kind, as `home` sees them: by claim, by name, another's by name and by claim, nobody's, the platform's.
const TOPICS: [&str; 6] = ["hot", "home.x", "away.y", "home.taken", "lonely", "drover.telemetry"];
/// Those of them that are `home`'s.
const OURS: [&str; 2] = ["hot", "home.x"];

/// Knows of two claims; other topics belong to whom they are named for.
struct Claims;

#[async_trait]
impl Authenticator for Claims {
    async fn authenticate(&self, _: &str, _: &str) -> Result<Principal, NotAdmitted> {
        Err(NotAdmitted::Unknown)
    }

    async fn owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, Unavailable> {
        let owner = |topic: &String| match topic.as_str() {
            "hot" => TenantId::new("home").ok(),
            "home.taken" => TenantId::new("away").ok(),
            other => TenantId::new(other.split_once('.')?.0).ok(),
        };
        Ok(topics.iter().map(owner).collect())
    }
}

struct Stage {
    listener: Arc<Listener>,
    _directory: TempDir,
}

fn peer(tenant: &str, may_write: bool) -> Arc<Peer> {
    let tenant = TenantId::new(tenant).expect("a tenant");
    let (remote, host) = ("127.0.0.1:1".parse().expect("an address"), StrBytes::from_static_str("127.0.0.1"));
    Arc::new(Peer { remote, host, port: 9092, principal: Principal::Tenant { tenant, may_write } })
}

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn group(name: &'static str) -> GroupId {
    GroupId(StrBytes::from_static_str(name))
}

impl Stage {
    async fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
        for topic in TOPICS {
            let (topic, partitions) = (topic.into(), 1);
            let config = TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None };
            bus.create_topic(config.clone()).await.expect("made");
            let record = Record { value: Some("x".into()), ..Record::default() };
            let outgoing = Outgoing { topic: config.topic, partition: Some(0), record };
            bus.append(vec![outgoing]).await.expect("taken").await.expect("durable");
        }
        let tls = Arc::new(|| -> Arc<rustls::ServerConfig> { unreachable!("handlers need no TLS") });
        let security = Security::SaslSsl(SaslSsl { tls, authenticator: Arc::new(Claims) });
        let config = ListenerConfig { security, ..ListenerConfig::default() };
        let listener = Arc::new(Listener::new(bus, config, Metrics::default()));
        Self { listener, _directory: directory }
    }

    async fn ask(&self, peer: &Arc<Peer>, version: i16, request: Request) -> Response {
        let head = Head { api: request.api(), version, correlation_id: 1, client_id: None };
        let reply = dispatch(&self.listener, peer, head, request).await;
        tokio::select! {
            outcome = reply => match outcome {
                Outcome::Answer(response) => response,
                other => panic!("{other:?}"),
            },
            () = self.listener.coordinator.run() => panic!("it runs until dropped"),
        }
    }

    async fn topics(&self) -> Vec<String> {
        let known = self.listener.bus.topics().await.expect("known");
        known.into_iter().map(|config| config.topic.to_string()).collect()
    }
}

/// What the error code of each topic is to be: `theirs` for those of `home`, and one for all others.
fn expected(theirs: i16, others: i16) -> Vec<i16> {
    TOPICS.iter().map(|topic| if OURS.contains(topic) { theirs } else { others }).collect()
}

#[tokio::test]
async fn a_tenant_is_told_of_its_own_topics_and_of_no_others_whether_it_names_them_or_not() {
    let stage = Stage::new().await;
    let home = peer("home", true);
    let listed = stage.ask(&home, 9, Request::Metadata(MetadataRequest::default().with_topics(None))).await;
    let Response::Metadata(listed) = listed else { panic!("{listed:?}") };
    let names: Vec<String> = listed.topics.iter().filter_map(|t| t.name.as_ref()).map(|n| n.to_string()).collect();
    assert_eq!(names, ["home.x", "hot"]);

    let topics = TOPICS.map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic)))).to_vec();
    let asked = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true);
    let told = stage.ask(&home, 9, Request::Metadata(asked)).await;
    let Response::Metadata(told) = told else { panic!("{told:?}") };
    assert_eq!(told.topics.iter().map(|t| t.error_code).collect::<Vec<_>>(), expected(0, UNKNOWN));
    assert!(told.topics.iter().all(|t| t.error_code == 0 || t.partitions.is_empty()));

    let resource = |topic: &str| {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
        resource.with_resource_name(StrBytes::from_string(topic.to_owned())).with_configuration_keys(None)
    };
    let asked = DescribeConfigsRequest::default().with_resources(TOPICS.map(resource).to_vec());
    let told = stage.ask(&home, 4, Request::DescribeConfigs(asked)).await;
    let Response::DescribeConfigs(told) = told else { panic!("{told:?}") };
    assert_eq!(told.results.iter().map(|r| r.error_code).collect::<Vec<_>>(), expected(0, UNKNOWN));
}

#[tokio::test]
async fn records_and_offsets_of_others_are_those_of_topics_that_do_not_exist() {
    let stage = Stage::new().await;
    let home = peer("home", false);
    let topic = |topic: &str| {
        let partition = FetchPartition::default().with_partition_max_bytes(1_000);
        FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition])
    };
    let fetch = FetchRequest::default().with_max_bytes(1_000_000).with_topics(TOPICS.map(topic).to_vec());
    let fetched = stage.ask(&home, 12, Request::Fetch(fetch)).await;
    let Response::Fetch(fetched) = fetched else { panic!("{fetched:?}") };
    let of = |t: &fetch_response::FetchableTopicResponse| t.partitions[0].clone();
    let fetched: Vec<_> = fetched.responses.iter().map(of).collect();
    assert_eq!(fetched.iter().map(|p| p.error_code).collect::<Vec<_>>(), expected(0, UNKNOWN));
    let have_records = fetched.iter().map(|p| p.records.as_ref().is_some_and(|records| !records.is_empty()));
    assert_eq!(have_records.collect::<Vec<_>>(), TOPICS.map(|topic| OURS.contains(&topic)));

    let topic = |topic: &str| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition])
    };
    let list = ListOffsetsRequest::default().with_topics(TOPICS.map(topic).to_vec());
    let listed = stage.ask(&home, 6, Request::ListOffsets(list)).await;
    let Response::ListOffsets(listed) = listed else { panic!("{listed:?}") };
    let codes: Vec<i16> = listed.topics.iter().map(|t| t.partitions[0].error_code).collect();
    assert_eq!(codes, expected(0, UNKNOWN));

    let topic = |topic: &str| {
        let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
        OffsetForLeaderTopic::default().with_topic(name(topic)).with_partitions(vec![partition])
    };
    let epochs = OffsetForLeaderEpochRequest::default().with_topics(TOPICS.map(topic).to_vec());
    let ends = stage.ask(&home, 4, Request::OffsetForLeaderEpoch(epochs)).await;
    let Response::OffsetForLeaderEpoch(ends) = ends else { panic!("{ends:?}") };
    assert_eq!(ends.topics.iter().map(|t| t.partitions[0].error_code).collect::<Vec<_>>(), expected(0, UNKNOWN));
}

#[tokio::test]
async fn only_who_may_write_writes_and_only_to_what_it_sees() {
    let stage = Stage::new().await;
    let topic = |topic: &str| {
        let partition = PartitionProduceData::default().with_records(Some("no batch".into()));
        TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![partition])
    };
    let request = ProduceRequest::default().with_acks(-1).with_topic_data(TOPICS.map(topic).to_vec());
    let damaged = ResponseError::CorruptMessage.code();
    for (may_write, theirs) in [(true, damaged), (false, FORBIDDEN)] {
        let produced = stage.ask(&peer("home", may_write), 9, Request::Produce(request.clone())).await;
        let Response::Produce(produced) = produced else { panic!("{produced:?}") };
        let codes: Vec<i16> = produced.responses.iter().map(|t| t.partition_responses[0].error_code).collect();
        assert_eq!(codes, expected(theirs, UNKNOWN));
    }
    for (may_write, code) in [(true, 0), (false, ResponseError::ClusterAuthorizationFailed.code())] {
        let request = Request::InitProducerId(InitProducerIdRequest::default().with_transactional_id(None));
        let answered = stage.ask(&peer("home", may_write), 4, request).await;
        let Response::InitProducerId(answered) = answered else { panic!("{answered:?}") };
        assert_eq!(answered.error_code, code);
    }
}

#[tokio::test]
async fn a_tenant_makes_topics_of_its_name_and_deletes_its_own_and_nothing_is_said_of_others() {
    let stage = Stage::new().await;
    let wanted = ["home.new", "away.y", "away.new", "lonely", "new", "drover.new", "home.taken", "home.x"];
    let topic = |topic: &str| CreatableTopic::default().with_name(name(topic)).with_num_partitions(1);
    let topics = |topics: &[&str]| topics.iter().map(|t| topic(t).with_replication_factor(1)).collect();
    let create = CreateTopicsRequest::default().with_topics(topics(&wanted));
    let weak = stage.ask(&peer("home", false), 6, Request::CreateTopics(create.clone())).await;
    let Response::CreateTopics(weak) = weak else { panic!("{weak:?}") };
    assert!(weak.topics.iter().all(|topic| topic.error_code == FORBIDDEN), "{weak:?}");
    let home = peer("home", true);
    let made = stage.ask(&home, 6, Request::CreateTopics(create)).await;
    let Response::CreateTopics(made) = made else { panic!("{made:?}") };
    let codes: Vec<i16> = made.topics.iter().map(|topic| topic.error_code).collect();
    let exists = ResponseError::TopicAlreadyExists.code();
    assert_eq!(codes, [0, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, exists]);

    let names = ["home.new", "hot", "away.y", "lonely", "none", "drover.telemetry", "home.taken"];
    let delete = DeleteTopicsRequest::default().with_topic_names(names.map(name).to_vec());
    let weak = stage.ask(&peer("home", false), 5, Request::DeleteTopics(delete.clone())).await;
    let Response::DeleteTopics(weak) = weak else { panic!("{weak:?}") };
    let codes: Vec<i16> = weak.responses.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [FORBIDDEN, FORBIDDEN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]);
    let gone = stage.ask(&home, 5, Request::DeleteTopics(delete)).await;
    let Response::DeleteTopics(gone) = gone else { panic!("{gone:?}") };
    let codes: Vec<i16> = gone.responses.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [0, 0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]);
    assert_eq!(stage.topics().await, ["away.y", "drover.telemetry", "home.taken", "home.x", "lonely"]);
}

#[tokio::test]
async fn topics_come_into_being_for_a_tenant_under_its_name_and_within_its_bound_only() {
    let stage = Stage::new().await;
    let metadata = |topics: &[&str]| {
        let topics = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
        let asked = MetadataRequest::default().with_topics(Some(topics.collect()));
        Request::Metadata(asked.with_allow_auto_topic_creation(true))
    };
    let wished = ["home.wished", "wished", "away.wished", "drover.wished"];
    for (may_write, codes) in [(false, [UNKNOWN; 4]), (true, [0, UNKNOWN, UNKNOWN, UNKNOWN])] {
        let told = stage.ask(&peer("home", may_write), 9, metadata(&wished)).await;
        let Response::Metadata(told) = told else { panic!("{told:?}") };
        assert_eq!(told.topics.iter().map(|t| t.error_code).collect::<Vec<_>>(), codes);
    }
    let config = |topic: &str, partitions| TopicConfig {
        topic: topic.into(),
        partitions,
        compact: false,
        retention_ms: None,
        retention_bytes: None,
    };
    let tenant = TenantId::new("home").expect("a tenant");
    let view = View::Of(Own { tenant, may_write: true, topics: HashSet::new() });
    let others = [config("home", 1_000), config("homes.x", 1_000), config("away.home.x", 1_000)];
    assert!(view.has_room(&others, TENANT_PARTITIONS_MAX as u32), "they do not count");
    let own = [config("home.a", 1_000), config("home.b", 1_000)];
    let rest = (TENANT_PARTITIONS_MAX - 2_000) as u32;
    assert!(view.has_room(&own, rest) && !view.has_room(&own, rest + 1));
}

#[tokio::test]
async fn a_request_that_names_too_many_topics_ends_its_connection() {
    let stage = Stage::new().await;
    let home = peer("home", false).principal.clone();
    let named = |names: usize| Topics::Named((0..names).map(|name| format!("home.{name}")).collect());
    assert!(stage.listener.view(&home, named(NAMES_MAX)).await.is_ok());
    let refused = stage.listener.view(&home, named(NAMES_MAX + 1)).await;
    assert!(matches!(refused, Err(NoView::TooMany { names }) if names == NAMES_MAX + 1), "{refused:?}");
}

/// Commits offset 1 of these topics in group `g`; the codes.
async fn commit(stage: &Stage, peer: &Arc<Peer>, topics: &[&str]) -> Vec<i16> {
    let topics = topics.iter().map(|topic| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition])
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect());
    let committed = stage.ask(peer, 8, Request::OffsetCommit(request)).await;
    let Response::OffsetCommit(committed) = committed else { panic!("{committed:?}") };
    committed.topics.iter().map(|topic| topic.partitions[0].error_code).collect()
}

/// The topics with an offset in group `g`.
async fn committed(stage: &Stage, peer: &Arc<Peer>) -> Vec<String> {
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let fetched = stage.ask(peer, 8, Request::OffsetFetch(request)).await;
    let Response::OffsetFetch(fetched) = fetched else { panic!("{fetched:?}") };
    let [fetched] = &fetched.groups[..] else { panic!("{fetched:?}") };
    assert_eq!(fetched.group_id, group("g"), "as the tenant calls it");
    fetched.topics.iter().map(|topic| topic.name.to_string()).collect()
}

/// All groups a client is told of.
async fn groups(stage: &Stage, peer: &Arc<Peer>) -> Vec<String> {
    let listed = stage.ask(peer, 5, Request::ListGroups(ListGroupsRequest::default())).await;
    let Response::ListGroups(listed) = listed else { panic!("{listed:?}") };
    listed.groups.iter().map(|group| group.group_id.to_string()).collect()
}

/// State of group `g`.
async fn state(stage: &Stage, peer: &Arc<Peer>) -> String {
    let request = DescribeGroupsRequest::default().with_groups(vec![group("g")]);
    let described = stage.ask(peer, 5, Request::DescribeGroups(request)).await;
    let Response::DescribeGroups(described) = described else { panic!("{described:?}") };
    assert_eq!(described.groups[0].group_id, group("g"));
    described.groups[0].group_state.to_string()
}

#[tokio::test]
async fn groups_of_one_name_are_two_groups_of_two_tenants() {
    let stage = Stage::new().await;
    let [home, away] = ["home", "away"].map(|tenant| peer(tenant, true));
    assert_eq!(commit(&stage, &home, &TOPICS).await, expected(0, UNKNOWN));
    assert_eq!((state(&stage, &home).await.as_str(), state(&stage, &away).await.as_str()), ("Empty", "Dead"));
    assert_eq!((groups(&stage, &home).await, groups(&stage, &away).await), (vec!["g".to_owned()], vec![]));
    assert_eq!(commit(&stage, &away, &["away.y"]).await, [0]);
    assert_eq!(committed(&stage, &home).await, ["home.x", "hot"]);
    assert_eq!(committed(&stage, &away).await, ["away.y"]);
    assert_eq!(stage.listener.bus.groups(), ["away/g", "home/g"]);

    let delete = || Request::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![group("g")]));
    let viewer = ResponseError::GroupAuthorizationFailed.code();
    for (peer, code) in [(peer("home", false), viewer), (home, 0)] {
        let deleted = stage.ask(&peer, 2, delete()).await;
        let Response::DeleteGroups(deleted) = deleted else { panic!("{deleted:?}") };
        assert_eq!((&deleted.results[0].group_id, deleted.results[0].error_code), (&group("g"), code));
    }
    assert_eq!(stage.listener.bus.groups(), ["away/g"]);
}

#[tokio::test]
async fn members_of_groups_of_one_name_never_meet() {
    let stage = Stage::new().await;
    let mut leaders = BTreeMap::new();
    for tenant in ["home", "away"] {
        let peer = peer(tenant, false);
        let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
        let join = JoinGroupRequest::default()
            .with_group_id(group("g"))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        let joined = stage.ask(&peer, 3, Request::JoinGroup(join)).await;
        let Response::JoinGroup(joined) = joined else { panic!("{joined:?}") };
        assert_eq!((joined.error_code, &joined.leader, joined.members.len()), (0, &joined.member_id, 1));
        assert_eq!(groups(&stage, &peer).await, ["g"]);
        leaders.insert(tenant, joined);
    }
    let heartbeat = |joined: &JoinGroupResponse| {
        let heartbeat = HeartbeatRequest::default().with_group_id(group("g"));
        let heartbeat = heartbeat.with_generation_id(joined.generation_id);
        Request::Heartbeat(heartbeat.with_member_id(joined.member_id.clone()))
    };
    let foreign = stage.ask(&peer("away", false), 4, heartbeat(&leaders["home"])).await;
    let Response::Heartbeat(foreign) = foreign else { panic!("{foreign:?}") };
    assert_eq!(foreign.error_code, ResponseError::UnknownMemberId.code());
}
