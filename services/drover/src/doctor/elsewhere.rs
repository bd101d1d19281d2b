//! Kafka and Cassandra, asked as the platform asks them where its configuration names them; nothing is made there.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::TopicConfig;
use drover_host::config::{BusConfig, CassandraConfig};
use drover_host::{Cassandra, Metrics, SystemClock, bus};
use drover_types::TELEMETRY_TOPIC;
use serde_json::Value;

use super::Finding;
use crate::plan::Plan;

/// Longest wait for Kafka; Cassandra's is `cassandra.connect_timeout`.
const KAFKA_PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for questions whose answer nobody waits for any more.
const LAST_WAIT: Duration = Duration::from_millis(100);
/// Where the section of a service says that it keeps something in a database.
const KINDS: [&str; 2] = ["/store/kind", "/owners/kind"];

/// Asks everything that the configuration says is elsewhere.
pub(super) fn look(plan: &Plan) -> anyhow::Result<Vec<Finding>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let findings = runtime.block_on(async {
        let mut findings = Vec::new();
        if !plan.has_embedded_log() {
            findings.push(kafka(&plan.shared.bus).await);
        }
        if plan.services.iter().any(|service| uses_cassandra(&service.section)) {
            findings.push(cassandra(&plan.shared.cassandra).await);
        }
        findings
    });
    runtime.shutdown_timeout(LAST_WAIT);
    Ok(findings)
}

async fn kafka(config: &BusConfig) -> Finding {
    // The directory is for an embedded log only.
    let opened = bus::open(config, Path::new(""), Arc::new(SystemClock), &[], &Metrics::default());
    let answer = match opened {
        Ok(log) => match tokio::time::timeout(KAFKA_PATIENCE, log.bus.topics()).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {KAFKA_PATIENCE:?}")),
        },
        Err(error) => Err(error.to_string()),
    };
    judge_kafka(&config.kafka.brokers, config.partitions, answer)
}

fn judge_kafka(brokers: &str, wanted: u32, answer: Result<Vec<TopicConfig>, String>) -> Finding {
    let topics = match answer {
        Ok(topics) => topics,
        Err(why) => {
            return Finding::fail("log", format!("Kafka at {brokers}: {why}"), "start it, or mend [bus.kafka]");
        }
    };
    match topics.iter().find(|config| &*config.topic == TELEMETRY_TOPIC) {
        Some(TopicConfig { partitions, .. }) if *partitions != wanted => {
            let message = format!("{TELEMETRY_TOPIC} has {partitions} partitions, bus.partitions is {wanted}");
            Finding::fail("log", message, format!("set bus.partitions to {partitions}"))
        }
        Some(_) | None => Finding::ok("log", format!("Kafka at {brokers} answers and has {} topics", topics.len())),
    }
}

/// Whether a service keeps something in Cassandra, by its section.
fn uses_cassandra(section: &Value) -> bool {
    KINDS.iter().any(|kind| section.pointer(kind).is_some_and(|kind| kind == "cassandra"))
}

async fn cassandra(config: &CassandraConfig) -> Finding {
    let options = match config.options() {
        Ok(options) => options,
        Err((key, why)) => return Finding::fail("cassandra", format!("{key}: {why}"), "mend [cassandra]"),
    };
    let (hosts, keyspace) = (options.hosts.join(", "), options.keyspace.clone());
    let answer = Cassandra::new(options).look().await;
    judge_cassandra(&hosts, &keyspace, answer.map_err(|error| error.to_string()))
}

fn judge_cassandra(hosts: &str, keyspace: &str, answer: Result<bool, String>) -> Finding {
    match answer {
        Ok(true) => Finding::ok("cassandra", format!("{hosts} answers and has the keyspace {keyspace}")),
        Ok(false) => {
            Finding::ok("cassandra", format!("{hosts} answers; the first start makes the keyspace {keyspace}"))
        }
        Err(why) => Finding::fail("cassandra", why, "start it, or mend [cassandra]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn telemetry(partitions: u32) -> TopicConfig {
        let topic = TELEMETRY_TOPIC.into();
        TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None }
    }

    #[test]
    fn what_does_not_answer_and_what_a_start_would_refuse_fails_with_advice() {
        for (finding, verdict) in [
            (judge_kafka("k:1", 8, Ok(vec![])), Verdict::Ok),
            (judge_kafka("k:1", 8, Ok(vec![telemetry(8)])), Verdict::Ok),
            (judge_kafka("k:1", 8, Ok(vec![telemetry(4)])), Verdict::Fail),
            (judge_kafka("k:1", 8, Err("away".to_owned())), Verdict::Fail),
            (judge_cassandra("c:1", "drover", Ok(true)), Verdict::Ok),
            (judge_cassandra("c:1", "drover", Ok(false)), Verdict::Ok),
            (judge_cassandra("c:1", "drover", Err("away".to_owned())), Verdict::Fail),
        ] {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.advice.is_some(), verdict != Verdict::Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_store_or_owners_in_cassandra_make_it_needed() {
        let section = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert!(uses_cassandra(&section(r#"{"store": {"kind": "cassandra"}}"#)));
        assert!(uses_cassandra(&section(r#"{"store": {"kind": "embedded"}, "owners": {"kind": "cassandra"}}"#)));
        assert!(!uses_cassandra(&section(r#"{"store": {"kind": "embedded"}}"#)));
    }
}
