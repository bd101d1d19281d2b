//! TLS and SASL/PLAIN: who is let in, who is not and what they are told, and that two tenants never meet.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BufMut;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Outgoing, Record};
use drover_kafka_listener::{ListenerConfig, Metrics, serve};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use prometheus_client::registry::Registry;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::broker::{Broker, PATIENCE};
use crate::java::tool;
use crate::kcat::kcat;
use crate::raw::{RawClient, frame};
use crate::users::{Secured, Users, authenticate, config, handshake, said};

/// A request that a client must be known for.
fn metadata() -> MetadataRequest {
    MetadataRequest::default().with_topics(None)
}

fn fetch(topic: &'static str) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1_000);
    let topic = FetchTopic::default().with_topic(TopicName(StrBytes::from_static_str(topic)));
    FetchRequest::default().with_max_bytes(1_000).with_topics(vec![topic.with_partitions(vec![partition])])
}

/// How many clients were not let in for this reason.
fn failures(broker: &Broker, reason: &str) -> u64 {
    let mut registry = Registry::default();
    broker.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("fits");
    let line = format!("drover_kafka_authentication_failures_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|said| said.strip_prefix(&line)).map_or(0, |count| count.parse().expect("a number"))
}

/// Waits until that many were not let in for this reason; that a connection is closed may be seen before it is counted.
async fn failed(broker: &Broker, reason: &str, count: u64) {
    let counted = async {
        while failures(broker, reason) != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.unwrap_or_else(|_| panic!("{count} for {reason}"));
}

async fn append(broker: &Broker, topic: &str) {
    broker.topic(topic, 1).await;
    let record = Record { value: Some("21.5".into()), ..Record::default() };
    let outgoing = Outgoing { topic: topic.into(), partition: Some(0), record };
    drover_bus::Bus::append(&broker.bus, vec![outgoing]).await.expect("taken").await.expect("durable");
}

#[tokio::test]
async fn a_client_is_known_in_every_version_and_finds_only_what_is_its_own() {
    let secured = Secured::start(ListenerConfig::default()).await;
    for topic in ["hot", "home.x", "away.y", "lonely", "drover.telemetry"] {
        append(&secured.broker, topic).await;
    }
    let all = vec!["away.y", "drover.telemetry", "home.x", "hot", "lonely"];
    let cases = [("home", 0, vec!["home.x", "hot"]), ("away", 1, vec!["away.y"]), ("admin", 2, all)];
    for (user, version, seen) in cases {
        let mut client = secured.connect().await;
        let versions: ApiVersionsResponse = client.call(3, &ApiVersionsRequest::default()).await;
        assert_eq!(versions.error_code, 0, "asked before anybody is known");
        let known = authenticate(&mut client, version, user, "s3cret").await;
        assert_eq!((known.error_code, known.session_lifetime_ms, known.error_message), (0, 0, None));
        let told: MetadataResponse = client.call(9, &metadata()).await;
        let names: Vec<&str> = told.topics.iter().filter_map(|t| t.name.as_ref()).map(|name| name.as_str()).collect();
        assert_eq!(names, seen, "{user}");
        for topic in ["hot", "home.x", "away.y", "lonely"] {
            let fetched: FetchResponse = client.call(12, &fetch(topic)).await;
            let partition = &fetched.responses[0].partitions[0];
            let expected = if seen.contains(&topic) { 0 } else { ResponseError::UnknownTopicOrPartition.code() };
            assert_eq!(partition.error_code, expected, "{user} fetches {topic}");
            let is_empty = partition.records.as_ref().is_none_or(|records| records.is_empty());
            assert_eq!(is_empty, expected != 0, "{user} fetches {topic}");
        }
    }
}

#[tokio::test]
async fn after_a_handshake_of_version_0_words_come_without_headers() {
    let secured = Secured::start(ListenerConfig::default()).await;
    let mut client = secured.connect().await;
    assert_eq!(handshake(&mut client, 0).await.error_code, 0);
    let words = said("home", "s3cret");
    let mut bare = Vec::new();
    bare.put_u32(words.len() as u32);
    bare.put_slice(&words);
    client.stream.write_all(&bare).await.expect("sent");
    assert_eq!(client.receive().await.expect("an answer").len(), 0);
    let told: MetadataResponse = client.call(9, &metadata()).await;
    assert_eq!(told.topics, []);

    let mut wrong = secured.connect().await;
    assert_eq!(handshake(&mut wrong, 0).await.error_code, 0);
    wrong.stream.write_all(&[0, 0, 0, 3, b'a', 0, b'b']).await.expect("sent");
    assert_eq!(wrong.receive().await, None);
}

#[tokio::test]
async fn whoever_is_not_known_is_told_the_same_whatever_there_is_and_has_one_attempt() {
    let secured = Secured::start(ListenerConfig::default()).await;
    let mut told = Vec::new();
    for (user, password) in [("home", "wrong"), ("nobody", "s3cret"), ("away", "")] {
        let mut client = secured.connect().await;
        let answer = authenticate(&mut client, 2, user, password).await;
        assert_eq!(answer.error_code, ResponseError::SaslAuthenticationFailed.code());
        assert_eq!(client.receive().await, None, "the connection is closed");
        told.push(answer);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    failed(&secured.broker, "password", 3).await;
}

#[tokio::test]
async fn another_mechanism_is_refused_with_the_one_there_is() {
    let secured = Secured::start(ListenerConfig::default()).await;
    let mut client = secured.connect().await;
    let scram = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("SCRAM-SHA-512"));
    let answer: SaslHandshakeResponse = client.call(1, &scram).await;
    assert_eq!(answer.error_code, ResponseError::UnsupportedSaslMechanism.code());
    assert_eq!(answer.mechanisms, [StrBytes::from_static_str("PLAIN")]);
    assert_eq!(client.receive().await, None);
    failed(&secured.broker, "mechanism", 1).await;
}

#[tokio::test]
async fn nothing_else_is_answered_before_a_client_is_known() {
    let secured = Secured::start(ListenerConfig::default()).await;
    let mut client = secured.connect().await;
    client.stream.write_all(&frame(1, 9, &metadata())).await.expect("sent");
    assert_eq!(client.receive().await, None);
    let mut client = secured.connect().await;
    handshake(&mut client, 1).await;
    client.stream.write_all(&frame(1, 12, &fetch("hot"))).await.expect("sent");
    assert_eq!(client.receive().await, None);
    failed(&secured.broker, "request", 2).await;

    // Small talk has an end, and a large word is not even read.
    let mut client = secured.connect().await;
    for _ in 0..8 {
        let _: ApiVersionsResponse = client.call(3, &ApiVersionsRequest::default()).await;
    }
    assert_eq!(client.receive().await, None);
    failed(&secured.broker, "request", 3).await;
    let mut client = secured.connect().await;
    client.stream.write_all(&(16 * 1024 + 1_u32).to_be_bytes()).await.expect("sent");
    assert_eq!(client.receive().await, None);
}

#[tokio::test]
async fn a_client_that_is_not_known_in_time_is_closed_before_and_after_its_handshake() {
    let authentication_timeout = Duration::from_secs(1);
    let secured = Secured::start(ListenerConfig { authentication_timeout, ..ListenerConfig::default() }).await;
    let mut silent = RawClient::<TcpStream>::connect(secured.broker.address).await;
    assert_eq!(silent.receive().await, None);
    failed(&secured.broker, "timeout", 1).await;
    let mut idle = secured.connect().await;
    assert_eq!(idle.receive().await, None);
    failed(&secured.broker, "timeout", 2).await;
    // Who is known may be silent for longer.
    let mut known = secured.known("home").await;
    tokio::time::sleep(authentication_timeout * 2).await;
    let told: MetadataResponse = known.call(9, &metadata()).await;
    assert_eq!(told.topics, []);
}

#[tokio::test]
async fn a_client_without_tls_is_closed() {
    let secured = Secured::start(ListenerConfig::default()).await;
    let mut plain = RawClient::<TcpStream>::connect(secured.broker.address).await;
    plain.stream.write_all(&frame(1, 3, &ApiVersionsRequest::default())).await.expect("sent");
    // An alert of TLS may come first; it is no frame.
    plain.receive().await;
    assert_eq!(plain.receive().await, None);
    failed(&secured.broker, "tls", 1).await;
}

#[tokio::test]
async fn while_nobody_can_be_asked_clients_are_closed_and_come_again() {
    let secured = Secured::start(ListenerConfig::default()).await;
    append(&secured.broker, "home.x").await;
    let mut known = secured.known("home").await;
    secured.users.is_away.store(true, Ordering::Relaxed);
    let mut client = secured.connect().await;
    handshake(&mut client, 1).await;
    let words = SaslAuthenticateRequest::default().with_auth_bytes(said("home", "s3cret"));
    client.stream.write_all(&frame(2, 2, &words)).await.expect("sent");
    assert_eq!(client.receive().await, None, "it is not told that its password is wrong");
    failed(&secured.broker, "unavailable", 1).await;
    assert_eq!(failures(&secured.broker, "password"), 0);
    known.stream.write_all(&frame(3, 9, &metadata())).await.expect("sent");
    assert_eq!(known.receive().await, None, "whose topics are is not known either");
    secured.users.is_away.store(false, Ordering::Relaxed);
    let told: MetadataResponse = secured.known("home").await.call(9, &metadata()).await;
    assert_eq!(told.topics.len(), 1);
}

#[tokio::test]
async fn a_connection_ends_with_its_password_even_while_it_waits_for_records() {
    let verify_interval = Duration::from_millis(50);
    let secured = Secured::start(ListenerConfig { verify_interval, ..ListenerConfig::default() }).await;
    append(&secured.broker, "away.y").await;
    let (mut home, mut away) = (secured.known("home").await, secured.known("away").await);
    let mut at_the_end = fetch("away.y").with_min_bytes(1_000_000).with_max_wait_ms(i32::MAX);
    at_the_end.topics[0].partitions[0].fetch_offset = 1;
    away.stream.write_all(&frame(1, 12, &at_the_end)).await.expect("sent");
    secured.users.forget("away");
    assert_eq!(away.receive().await, None);
    secured.users.is_away.store(true, Ordering::Relaxed);
    tokio::time::sleep(verify_interval * 4).await;
    secured.users.is_away.store(false, Ordering::Relaxed);
    let told: MetadataResponse = home.call(9, &metadata()).await;
    assert_eq!(told.topics, [], "nobody is turned out because nobody can be asked");
}

#[tokio::test]
async fn the_name_that_a_client_calls_it_by_is_the_one_it_is_told() {
    let secured = Secured::start(ListenerConfig::default()).await;
    for (called, told) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        let mut client = secured.connect_to(called).await;
        assert_eq!(authenticate(&mut client, 2, "home", "s3cret").await.error_code, 0);
        let answer: MetadataResponse = client.call(9, &metadata()).await;
        assert_eq!(
            (answer.brokers[0].host.as_str(), answer.brokers[0].port as u16),
            (told, secured.broker.address.port())
        );
    }
}

#[tokio::test]
async fn with_passwords_it_starts_off_loopback() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
    let everywhere = TcpListener::bind("0.0.0.0:0").await.expect("a port");
    let (config, _) = config(&Arc::new(Users::default()), ListenerConfig::default());
    let served = serve(vec![everywhere], bus, config, Metrics::default(), std::future::ready(())).await;
    assert!(served.is_ok(), "{served:?}");
}

#[tokio::test]
async fn where_no_password_is_asked_for_one_is_out_of_turn() {
    let broker = Broker::start().await;
    let mut client = RawClient::<TcpStream>::connect(broker.address).await;
    let illegal = ResponseError::IllegalSaslState.code();
    let plain = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    for version in 0..=1 {
        let answer: SaslHandshakeResponse = client.call(version, &plain).await;
        assert_eq!(answer.error_code, illegal);
    }
    for version in 0..=2 {
        let words = SaslAuthenticateRequest::default().with_auth_bytes(said("home", "s3cret"));
        let answer: SaslAuthenticateResponse = client.call(version, &words).await;
        assert_eq!(answer.error_code, illegal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_writes_and_reads_as_a_tenant() {
    let secured = Secured::start(ListenerConfig::default()).await;
    append(&secured.broker, "away.y").await;
    secured.broker.topic("home.written", 1).await;
    let ca = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ca.path(), &secured.certificate_pem).expect("written");
    let ca = format!("ssl.ca.location={}", ca.path().display());
    let login = ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN", "sasl.username=home", "sasl.password=s3cret"];
    let options: Vec<&str> = login.into_iter().chain([ca.as_str()]).flat_map(|option| ["-X", option]).collect();
    let as_home = |arguments: &[&'static str]| [&options[..], arguments].concat();
    let lines = "one\ntwo\n";
    let Some(_) = kcat(&secured.broker, &as_home(&["-P", "-t", "home.written"]), lines).await else { return };
    let read = kcat(&secured.broker, &as_home(&["-C", "-t", "home.written", "-e", "-q"]), "").await;
    assert_eq!(read.as_deref(), Some(lines));
    let listing = kcat(&secured.broker, &as_home(&["-L"]), "").await.expect("it is installed");
    assert!(listing.contains("topic \"home.written\"") && !listing.contains("away.y"), "{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_console_tools_make_a_topic_and_read_in_a_group_as_a_tenant() {
    let secured = Secured::start(ListenerConfig::default()).await;
    append(&secured.broker, "away.y").await;
    append(&secured.broker, "home.x").await;
    let directory = tempfile::TempDir::new().expect("a directory");
    let (ca, properties) = (directory.path().join("ca.pem"), directory.path().join("home.properties"));
    std::fs::write(&ca, &secured.certificate_pem).expect("written");
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let text = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         sasl.jaas.config={module} username=\"home\" password=\"s3cret\";\n",
        ca.display()
    );
    std::fs::write(&properties, text).expect("written");
    let properties = properties.to_str().expect("text");

    let topics = "org.apache.kafka.tools.TopicCommand";
    let create = ["--command-config", properties, "--create", "--topic", "home.java", "--partitions", "1"];
    let Some(_) = tool(&secured.broker, topics, &create, "").await else { return };
    let list = ["--command-config", properties, "--list"];
    assert_eq!(tool(&secured.broker, topics, &list, "").await.as_deref(), Some("home.java\nhome.x\n"));
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let reading = ["--consumer.config", properties, "--topic", "home.x", "--group", "readers"];
    let until = ["--from-beginning", "--max-messages", "1", "--timeout-ms", "60000"];
    let read = tool(&secured.broker, consumer, &[&reading[..], &until].concat(), "").await;
    assert!(read.expect("it ran").lines().any(|line| line == "21.5"));
    let groups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    assert_eq!(tool(&secured.broker, groups, &list, "").await.as_deref(), Some("readers\n"));
    assert_eq!(secured.broker.bus.groups(), ["home/readers"]);
}

#[tokio::test]
async fn a_topic_that_is_not_there_and_one_of_another_tenant_are_told_alike() {
    let secured = Secured::start(ListenerConfig::default()).await;
    append(&secured.broker, "away.y").await;
    let mut client = secured.known("guest").await;
    let mut told = Vec::new();
    for name in ["away.y", "away.none"] {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic]));
        let answer = tokio::time::timeout(PATIENCE, client.call(9, &request)).await.expect("answered");
        told.push(answer.topics.into_iter().map(|topic| topic.with_name(None)).collect::<Vec<_>>());
    }
    assert_eq!(told[0], told[1]);
}
