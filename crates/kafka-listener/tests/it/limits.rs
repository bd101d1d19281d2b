//! What hostile, broken and slow clients get: their own connection closed, nobody else's.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions, GroupOffset};
use drover_bus::{Bus, Outgoing, Record, TopicPartition};
use drover_kafka_listener::{ListenerConfig, ListenerError, Metrics, OFFSET_GROUPS_MAX, serve};
use futures::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, GroupId, MetadataRequest, MetadataResponse,
    OffsetCommitRequest, OffsetCommitResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use prometheus_client::registry::Registry;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::broker::{Broker, PATIENCE};
use crate::raw::{RawClient, frame};

fn quick() -> ListenerConfig {
    ListenerConfig { stall_timeout: Duration::from_millis(200), ..ListenerConfig::default() }
}

/// The listener still serves others.
async fn serves(broker: &Broker) {
    let versions: ApiVersionsResponse =
        RawClient::connect(broker.address).await.call(0, &ApiVersionsRequest::default()).await;
    assert_eq!(versions.error_code, 0);
}

#[tokio::test]
async fn off_loopback_it_refuses_to_start_and_says_why() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
    let everywhere = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let address = everywhere.local_addr().expect("bound");
    let refused =
        serve(vec![everywhere], bus.clone(), ListenerConfig::default(), Metrics::default(), std::future::pending())
            .await;
    let Err(error @ ListenerError::NotLoopback { .. }) = refused else { panic!("{refused:?}") };
    let message =
        format!("kafka listener is bound to {address}, without authentication only loopback addresses are allowed");
    assert_eq!(error.to_string(), message);
    let none = serve(vec![], bus, ListenerConfig::default(), Metrics::default(), std::future::pending()).await;
    assert!(matches!(none, Err(ListenerError::NoSocket)));
}

#[tokio::test]
async fn both_sockets_of_a_dual_stack_listener_serve_and_name_the_address_the_client_used() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
    let (four, six) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("[::1]:0").await);
    let sockets = vec![four.expect("a port"), six.expect("a port")];
    let addresses: Vec<_> = sockets.iter().map(|s| s.local_addr().expect("bound")).collect();
    let served =
        tokio::spawn(serve(sockets, bus, ListenerConfig::default(), Metrics::default(), std::future::pending()));
    for address in addresses {
        let metadata: MetadataResponse = RawClient::connect(address).await.call(9, &MetadataRequest::default()).await;
        let broker = &metadata.brokers[0];
        assert_eq!((broker.host.to_string(), broker.port), (address.ip().to_string(), i32::from(address.port())));
    }
    served.abort();
}

#[tokio::test]
async fn an_advertised_address_replaces_the_local_one() {
    let advertised = Some(("kafka.example".to_owned(), 1234));
    let broker = Broker::start_with(ListenerConfig { advertised, ..ListenerConfig::default() }).await;
    let metadata: MetadataResponse =
        RawClient::connect(broker.address).await.call(1, &MetadataRequest::default()).await;
    assert_eq!((metadata.brokers[0].host.as_str(), metadata.brokers[0].port), ("kafka.example", 1234));
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0_with_the_table() {
    let broker = Broker::start().await;
    let mut client = RawClient::connect(broker.address).await;
    let mut request = BytesMut::from(&frame(9, 3, &ApiVersionsRequest::default())[..]);
    request[6..8].copy_from_slice(&77i16.to_be_bytes());
    client.stream.write_all(&request).await.expect("written");
    let mut answer = client.receive().await.expect("an answer");
    assert_eq!(answer.split_to(4)[..], 9i32.to_be_bytes());
    let versions = ApiVersionsResponse::decode(&mut answer, 0).expect("version 0");
    assert_eq!((versions.error_code, versions.api_keys.is_empty()), (35, false));
    let again: ApiVersionsResponse = client.call(3, &ApiVersionsRequest::default()).await;
    assert_eq!(again.error_code, 0, "the connection goes on");
}

#[tokio::test]
async fn frames_at_the_limit_pass_and_larger_ones_close_the_connection() {
    let limit = frame(1, 0, &ApiVersionsRequest::default()).len() - 4;
    let broker = Broker::start_with(ListenerConfig { frame_bytes_max: limit, ..ListenerConfig::default() }).await;
    serves(&broker).await;
    let mut client = RawClient::connect(broker.address).await;
    client.stream.write_u32(limit as u32 + 1).await.expect("written");
    assert_eq!(client.receive().await, None);
    serves(&broker).await;
}

#[tokio::test]
async fn garbage_closes_the_connection_and_is_counted() {
    let broker = Broker::start().await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 4, 1, 2, 3, 4], &[0, 0, 0, 9, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0]]
    {
        let mut client = RawClient::connect(broker.address).await;
        client.stream.write_all(garbage).await.expect("written");
        assert_eq!(client.receive().await, None, "{garbage:?}");
    }
    serves(&broker).await;
    let mut registry = Registry::default();
    broker.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(text.contains("drover_kafka_malformed_total 3"), "{text}");
    assert!(text.contains("drover_kafka_requests_total{api=\"ApiVersions\"} 1"), "{text}");
}

#[tokio::test]
async fn a_half_sent_frame_closes_the_connection_and_an_idle_one_stays() {
    let broker = Broker::start_with(quick()).await;
    let mut idle = RawClient::connect(broker.address).await;
    let mut half = RawClient::connect(broker.address).await;
    half.stream.write_all(&[0, 0, 0, 20, 0, 18]).await.expect("written");
    assert_eq!(half.receive().await, None);
    let versions: ApiVersionsResponse = idle.call(0, &ApiVersionsRequest::default()).await;
    assert_eq!(versions.error_code, 0);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_closed_and_costs_nobody_else() {
    let broker = Broker::start_with(quick()).await;
    broker.topic("wide", 1_000).await;
    let mut greedy = RawClient::connect(broker.address).await;
    let request = frame(1, 1, &MetadataRequest::default());
    let flood = async { while greedy.stream.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("it is closed in the end");
    serves(&broker).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let broker = Broker::start_with(ListenerConfig { connections_max: 2, ..ListenerConfig::default() }).await;
    let mut first = RawClient::connect(broker.address).await;
    let mut second = RawClient::connect(broker.address).await;
    for client in [&mut first, &mut second] {
        let _: ApiVersionsResponse = client.call(0, &ApiVersionsRequest::default()).await;
    }
    assert_eq!(RawClient::connect(broker.address).await.receive().await, None);
    drop(first);
    let admitted = async {
        loop {
            let mut third = RawClient::connect(broker.address).await;
            if third.stream.write_all(&frame(1, 0, &ApiVersionsRequest::default())).await.is_ok()
                && third.receive().await.is_some()
            {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.expect("a place is free again");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let broker = Broker::start().await;
    let mut client = RawClient::connect(broker.address).await;
    let mut all = BytesMut::new();
    for id in 0..50 {
        all.put_slice(&frame(id, 0, &ApiVersionsRequest::default()));
    }
    client.stream.write_all(&all).await.expect("written");
    for id in 0..50i32 {
        let answer = client.receive().await.expect("an answer");
        assert_eq!(answer[..4], id.to_be_bytes());
    }
}

#[tokio::test]
async fn a_fetch_out_of_range_in_a_session_or_of_an_unknown_topic_says_so() {
    let broker = Broker::start().await;
    broker.topic("known", 1).await;
    let fetch = |topic: &'static str, offset: i64| {
        let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1_000);
        let topic = FetchTopic::default()
            .with_topic(TopicName(StrBytes::from_static_str(topic)))
            .with_partitions(vec![partition]);
        FetchRequest::default()
            .with_max_bytes(1_000)
            .with_max_wait_ms(60_000)
            .with_min_bytes(1)
            .with_topics(vec![topic])
    };
    let mut client = RawClient::connect(broker.address).await;
    for (request, code) in [(fetch("known", 1), 1), (fetch("known", -1), 1), (fetch("unknown", 0), 3)] {
        let response: FetchResponse = client.call(12, &request).await;
        assert_eq!(response.responses[0].partitions[0].error_code, code);
    }
    let response: FetchResponse = client.call(12, &fetch("known", 0).with_session_id(5).with_session_epoch(1)).await;
    assert_eq!(response.error_code, 70);
}

#[tokio::test]
async fn a_fetch_that_has_taken_all_it_may_is_answered_although_it_wants_more() {
    let broker = Broker::start().await;
    broker.topic("deep", 1).await;
    let record = Record { value: Some(vec![7; 1_000].into()), ..Record::default() };
    let outgoing = Outgoing { topic: "deep".into(), partition: Some(0), record };
    broker.bus.append(vec![outgoing; 10]).await.expect("taken").await.expect("durable");
    let partition = FetchPartition::default().with_partition_max_bytes(1);
    let topic = FetchTopic::default().with_topic(TopicName("deep".into())).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1_000_000)
        .with_min_bytes(1_000_000)
        .with_max_wait_ms(i32::MAX)
        .with_topics(vec![topic]);
    let mut client = RawClient::connect(broker.address).await;
    let answered =
        tokio::time::timeout(PATIENCE / 2, client.call(12, &request)).await.expect("long before its wait ends");
    let records = answered.responses[0].partitions[0].records.clone().expect("records");
    assert!((1_000..2_000).contains(&records.len()), "one record, however small the limit: {}", records.len());
}

#[tokio::test]
async fn a_first_commit_of_one_group_too_many_is_refused_and_the_others_go_on() {
    let broker = Broker::start().await;
    broker.topic("t", 1).await;
    let names: Vec<String> = (0..OFFSET_GROUPS_MAX).map(|n| format!("g-{n}")).collect();
    let offset = || GroupOffset { at: TopicPartition::new("t", 0), next: 0, metadata: String::new() };
    let stored = join_all(names.iter().map(|name| broker.bus.store_offsets(name, vec![offset()]))).await;
    assert!(stored.iter().all(Result::is_ok));
    let mut client = RawClient::connect(broker.address).await;
    let too_long = "g".repeat(1_025);
    let (full, invalid) = (ResponseError::GroupMaxSizeReached.code(), ResponseError::InvalidGroupId.code());
    for (group, code) in [("more", full), ("g-7", 0), (too_long.as_str(), invalid)] {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(0);
        let topic =
            OffsetCommitRequestTopic::default().with_name(TopicName("t".into())).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let response: OffsetCommitResponse = client.call(8, &request).await;
        assert_eq!(response.topics[0].partitions[0].error_code, code, "{group}");
    }
}

#[tokio::test]
async fn offsets_of_a_group_without_members_expire_while_the_listener_runs() {
    let offsets_retention = Duration::from_millis(100);
    let broker = Broker::start_with(ListenerConfig { offsets_retention, ..ListenerConfig::default() }).await;
    broker.topic("t", 1).await;
    for group in ["drover.rules", "gone"] {
        let offset = GroupOffset { at: TopicPartition::new("t", 0), next: 0, metadata: String::new() };
        broker.bus.store_offsets(group, vec![offset]).await.expect("stored");
    }
    let expired = async {
        while broker.bus.has_offsets("gone") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, expired).await.expect("expires in time");
    assert!(broker.bus.has_offsets("drover.rules"));
}
