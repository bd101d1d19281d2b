//! What cannot work says so in one line.

use std::time::Duration;

use drover_backends::ports;
use drover_bus::{AdminError, AppendError, Bounds, Bus, Outgoing, ReadError, TopicConfig, TopicPartition, Transaction};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;

use crate::broker::{bus, options, own, record, shared, topic, values, within};

/// One listener for clients, with passwords; the node itself uses it, too.
const SASL: &str = r#"
listeners=SASL_PLAINTEXT://127.0.0.1:PORT,CONTROLLER://127.0.0.1:CONTROLLER_AT
advertised.listeners=SASL_PLAINTEXT://127.0.0.1:PORT
inter.broker.listener.name=SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="node" password="n" user_node="n" user_drover="right";
"#;

/// A second listener, with passwords, behind which nobody has rights; the first is the administrator's.
const WITHOUT_RIGHTS: &str = r#"
listeners=PLAINTEXT://127.0.0.1:PORT,SASL_PLAINTEXT://127.0.0.1:ANOTHER,CONTROLLER://127.0.0.1:CONTROLLER_AT
advertised.listeners=PLAINTEXT://127.0.0.1:PORT,SASL_PLAINTEXT://127.0.0.1:ANOTHER
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_drover="right";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"#;

/// Options of a client that shows a password.
fn with_password(options: KafkaOptions, password: &str) -> KafkaOptions {
    let client = [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "drover"),
        ("sasl.password", password),
    ];
    KafkaOptions { client: client.map(|(key, value)| (key.to_owned(), value.to_owned())).into(), ..options }
}

fn config(topic: &str) -> TopicConfig {
    TopicConfig { topic: topic.into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_brokers_for_the_replicas_are_named() {
    let Some(kafka) = shared().await else { return };
    let bus = KafkaBus::open(KafkaOptions { replication_factor: 3, ..options(kafka) }).expect("opens");
    let refused = within(bus.create_topic(config("replicas"))).await.expect_err("one broker");
    assert_eq!(
        refused.to_string(),
        "topic replicas is refused: replication factor 3 wants as many brokers, there is 1; see bus.kafka.replication_factor"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_another_number_of_partitions_is_named_with_both() {
    let Some(kafka) = shared().await else { return };
    let bus = KafkaBus::open(options(kafka)).expect("opens");
    assert_eq!(bus.create_topic(config("counted")).await, Ok(true));
    let refused = bus.create_topic(TopicConfig { partitions: 5, ..config("counted") }).await.expect_err("has 1");
    assert_eq!(refused.to_string(), "topic counted exists with 1 partitions, 5 were asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_refused_until_its_topic_has_grown_it() {
    let Some(kafka) = shared().await else { return };
    let bus = bus(kafka);
    let grown = topic(&bus, "grown", 1).await;
    let third = || vec![Outgoing { partition: Some(2), ..record(&grown, "k", "v") }];
    let mut transactor = within(bus.transactor("grown")).await.expect("opens");
    let mut commit = async |partition: u32, value: &str| {
        let records = vec![Outgoing { partition: Some(partition), ..record(&grown, "k", value) }];
        transactor.commit(Transaction { records: records.into(), offsets: None }).await
    };
    // Both producers know the topic as it is now.
    let first = within(bus.append(vec![Outgoing { partition: Some(0), ..record(&grown, "k", "0") }])).await;
    within(first.expect("there")).await.expect("appended");
    within(commit(0, "1")).await.expect("commits");
    let refused = within(bus.append(third())).await.err().expect("it has 1");
    assert!(matches!(refused, AppendError::UnknownPartition { partition: 2, .. }), "{refused}");
    // A process that only reads.
    let (reader, second) = (KafkaBus::open(options(kafka)).expect("opens"), TopicPartition::new(grown.clone(), 1));
    assert_eq!(within(reader.bounds(&second)).await, Err(ReadError::Unknown { at: second.clone() }));
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", kafka.brokers()).create().expect("a client");
    let more = [NewPartitions::new(&grown, 3)];
    let made = within(admin.create_partitions(&more, &AdminOptions::new())).await.expect("answered");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    within(async {
        while bus.append(third()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while values(&bus, &grown, 2).await != ["v"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    within(async {
        while reader.bounds(&second).await != Ok(Bounds { earliest: 0, end: 0 }) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    within(commit(2, "w")).await.expect("commits");
    assert_eq!(values(&bus, &grown, 2).await, ["v", "w"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_cannot_be_reached_are_waited_for_and_named() {
    let brokers = vec!["127.0.0.1:1".to_owned()];
    let bus = KafkaBus::open(KafkaOptions { brokers, ..KafkaOptions::default() }).expect("opens");
    let refused = within(bus.append(vec![record(&"t".into(), "k", "v")])).await.err().expect("nobody is there");
    assert!(matches!(&refused, AppendError::Unavailable { reason } if reason.contains("127.0.0.1:1")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_said_and_the_right_one_works() {
    let Some(kafka) = own(SASL).await else { return };
    let with = |password: &str| KafkaBus::open(with_password(options(&kafka), password)).expect("opens");
    let wrong = with("wrong");
    let refused = within(async {
        loop {
            match wrong.create_topic(config("secret")).await {
                Err(AdminError::Unavailable { reason }) if reason.contains("uthentication") => return reason,
                other => assert!(matches!(other, Err(AdminError::Unavailable { .. })), "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!refused.contains('\n') && !refused.contains("wrong"), "{refused}");
    assert_eq!(within(with("right").create_topic(config("secret"))).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_rights_and_a_name_that_is_none_are_refused_at_once() {
    let another = ports::free().expect("a port");
    let Some(kafka) = own(WITHOUT_RIGHTS.replace("ANOTHER", &another.to_string())).await else { return };
    let administrator = bus(&kafka);
    let theirs = topic(&administrator, "theirs", 1).await;
    let brokers = vec![format!("127.0.0.1:{another}")];
    let ours = with_password(KafkaOptions { brokers, ..options(&kafka) }, "right");
    let ours = KafkaBus::open(ours).expect("opens");
    let refused = within(ours.append(vec![record(&theirs, "k", "v")])).await.err().expect("no rights");
    assert!(matches!(&refused, AppendError::Refused { reason, .. } if reason.contains("uthorization")), "{refused}");
    let unnamed = vec![record(&"no/name".into(), "k", "v")];
    let refused = within(administrator.append(unnamed)).await.err().expect("no name");
    assert!(matches!(&refused, AppendError::Refused { reason, .. } if reason.contains("nvalid")), "{refused}");
}
