//! A broker that speaks TLS only and asks for a password. Needs the feature `tls`.

use std::time::Duration;

use drover_backends::certificates::Certificates;
use drover_backends::kafka::Kafka;
use drover_bus::{AdminError, Bus, TopicConfig};
use drover_bus_kafka::{KafkaBus, KafkaOptions};

use crate::broker::{options, within};

/// One listener for clients, over TLS and with passwords; the node itself uses it, too.
const SASL_SSL: &str = r#"
listeners=SASL_SSL://127.0.0.1:PORT,CONTROLLER://127.0.0.1:CONTROLLER_AT
advertised.listeners=SASL_SSL://127.0.0.1:PORT
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
ssl.keystore.type=PEM
ssl.keystore.location=STORE
ssl.truststore.type=PEM
ssl.truststore.location=AUTHORITY
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="node" password="n" user_node="n" user_drover="right";
"#;

fn config(topic: &str) -> TopicConfig {
    TopicConfig { topic: topic.into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None }
}

/// Asks until the cluster's refusal says `word`, and returns the refusal.
async fn refusal(bus: &KafkaBus, word: &str) -> String {
    within(async {
        loop {
            match bus.create_topic(config("secret")).await {
                Err(AdminError::Unavailable { reason }) if reason.contains(word) => return reason,
                other => assert!(matches!(other, Err(AdminError::Unavailable { .. })), "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_password_works_and_what_does_not_fit_is_one_line_and_no_spin() {
    let directory = tempfile::tempdir().expect("a directory");
    let [ours, other] = ["ours", "other"].map(|name| {
        let place = directory.path().join(name);
        std::fs::create_dir(&place).expect("made");
        Certificates::make(&place).expect("certificates")
    });
    let properties = SASL_SSL
        .replace("STORE", &ours.store.display().to_string())
        .replace("AUTHORITY", &ours.authority.display().to_string());
    let started = tokio::task::spawn_blocking(move || Kafka::start_with(&properties)).await.expect("no panic");
    let Some(kafka) = started.expect("kafka starts") else { return };
    let with = |protocol: &str, authority: &Certificates, password: &str| {
        let client = [
            ("security.protocol", protocol),
            ("ssl.ca.location", &authority.authority.display().to_string()),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "drover"),
            ("sasl.password", password),
        ];
        let client = client.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        KafkaBus::open(KafkaOptions { client, ..options(&kafka) }).expect("opens")
    };
    assert_eq!(within(with("sasl_ssl", &ours, "right").create_topic(config("secret"))).await, Ok(true));

    for (protocol, authority, password, word) in [
        ("sasl_ssl", &ours, "wrong", "uthentication"),
        ("sasl_ssl", &other, "right", "certificate"),
        ("sasl_plaintext", &ours, "right", "onnect"),
    ] {
        let bus = with(protocol, authority, password);
        let line = refusal(&bus, word).await;
        println!("{protocol}: {line}");
        assert!(!line.contains('\n') && !line.contains("right") && !line.contains("wrong"), "{line}");
        let before = cpu_seconds();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(cpu_seconds() - before < 1.0, "{protocol}: it does not spin");
    }
}
