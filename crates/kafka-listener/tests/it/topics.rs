//! Topics and their settings through librdkafka's admin client.

use drover_bus::{Bus, TopicConfig};
use drover_kafka_listener::ListenerConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::broker::{Broker, PATIENCE};

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    broker.client().create().expect("an admin client")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_described_and_deleted() {
    let broker = Broker::start().await;
    let (admin, options) = (admin(&broker), AdminOptions::new());
    let topic = NewTopic::new("made", 3, TopicReplication::Fixed(1))
        .set("retention.ms", "60000")
        .set("retention.bytes", "1000")
        .set("cleanup.policy", "compact");
    assert_eq!(admin.create_topics([&topic], &options).await.expect("answered"), [Ok("made".to_owned())]);
    let made = TopicConfig {
        topic: "made".into(),
        partitions: 3,
        compact: true,
        retention_ms: Some(60_000),
        retention_bytes: Some(3_000),
    };
    assert_eq!(broker.bus.topics().await, Ok(vec![made]));

    let again = admin.create_topics([&topic], &options).await.expect("answered");
    assert_eq!(again, [Err(("made".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let described = admin.describe_configs([&ResourceSpecifier::Topic("made")], &options).await.expect("answered");
    let described = described.into_iter().next().expect("one").expect("known");
    let settings: Vec<_> = described.entries.iter().map(|e| (e.name.as_str(), e.value.as_deref())).collect();
    let expected = [("cleanup.policy", "compact"), ("retention.ms", "60000"), ("retention.bytes", "1000")];
    assert_eq!(settings, expected.map(|(name, value)| (name, Some(value))));

    assert_eq!(admin.delete_topics(&["made"], &options).await.expect("answered"), [Ok("made".to_owned())]);
    let gone = admin.delete_topics(&["made"], &options).await.expect("answered");
    assert_eq!(gone, [Err(("made".to_owned(), RDKafkaErrorCode::UnknownTopicOrPartition))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_the_platform_and_settings_that_are_not_honoured_are_refused() {
    let broker = Broker::start().await;
    broker.topic("drover.telemetry", 1).await;
    let (admin, options) = (admin(&broker), AdminOptions::new());
    let reserved = NewTopic::new("drover.mine", 1, TopicReplication::Fixed(1));
    let unknown = NewTopic::new("odd", 1, TopicReplication::Fixed(1)).set("segment.bytes", "1");
    let replicated = NewTopic::new("twice", 1, TopicReplication::Fixed(2));
    let refused = admin.create_topics([&reserved, &unknown, &replicated], &options).await.expect("answered");
    let refused: Vec<_> = refused.into_iter().map(|r| r.expect_err("refused").1).collect();
    let expected = [
        RDKafkaErrorCode::TopicAuthorizationFailed,
        RDKafkaErrorCode::InvalidConfig,
        RDKafkaErrorCode::InvalidReplicationFactor,
    ];
    assert_eq!(refused, expected);
    let kept = admin.delete_topics(&["drover.telemetry"], &options).await.expect("answered");
    assert_eq!(kept, [Err(("drover.telemetry".to_owned(), RDKafkaErrorCode::TopicAuthorizationFailed))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_made_for_a_producer_only_where_configured() {
    let broker = Broker::start().await;
    let producer: FutureProducer = broker.client().create().expect("a producer");
    producer.send(FutureRecord::<str, str>::to("wished").payload("x"), PATIENCE).await.expect("delivered");
    assert_eq!(broker.bus.topics().await.expect("known")[0].partitions, 8);

    let strict = ListenerConfig { auto_create_partitions: None, ..ListenerConfig::default() };
    let broker = Broker::start_with(strict).await;
    let metadata = tokio::task::spawn_blocking({
        let config = broker.client();
        move || {
            let client: BaseConsumer = config.create().expect("a client");
            client.fetch_metadata(Some("wished"), PATIENCE).expect("answered").topics()[0].error()
        }
    });
    assert!(metadata.await.expect("no panic").is_some());
    assert_eq!(broker.bus.topics().await, Ok(vec![]));
}
