//! `drover up` over real Kafka instead of the embedded log.

use std::process::Stdio;
use std::time::{Duration, Instant};

use drover_backends::kafka::Kafka;

use crate::process::{Up, drover, free_offset, one_line, refused};

/// Arguments for a cluster of one broker.
pub fn over(brokers: &str) -> Vec<String> {
    with_replicas(brokers, 1)
}

fn with_replicas(brokers: &str, replicas: u16) -> Vec<String> {
    let (brokers, factor) = (format!("kafka.brokers={brokers}"), format!("kafka.replication_factor={replicas}"));
    let settings = ["kind=kafka", &brokers, &factor, "kafka.min_insync_replicas=1"];
    settings.map(|setting| format!("--set=bus.{setting}")).into()
}

#[test]
fn it_runs_over_a_cluster_without_a_listener_of_its_own_and_again_on_the_same_topics() {
    let Some(kafka) = Kafka::start().expect("kafka starts") else { return };
    for _ in 0..2 {
        let up = Up::start_at(free_offset(), drover(&["up", "--ephemeral"]).args(over(&kafka.brokers())));
        assert_eq!(up.admin("/readyz"), (200, r#"{"ready":true}"#.to_owned()));
        assert!(!up.printed.contains(&(9092 + up.offset).to_string()), "{}", up.printed);
        assert!(up.stop().success());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
fn a_cluster_that_is_away_is_waited_for_and_named_by_readyz() {
    let offset = free_offset();
    let mut command = drover(&["up", "--ephemeral", "--port-offset", &offset.to_string()]);
    let child = command.args(over("127.0.0.1:1")).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let up = Up { child, offset, printed: String::new(), log: None };
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("http://127.0.0.1:{}/readyz", 9464 + offset);
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < Duration::from_secs(120), "it does not say what it waits for");
        let answer = agent.get(&url).call().map(|mut answer| answer.body_mut().read_to_string().expect("text"));
        if answer.is_ok_and(|text| text.contains("127.0.0.1:1")) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(up.stop().success(), "it stops without the cluster");
}

#[test]
fn a_cluster_that_cannot_hold_the_log_as_configured_ends_the_process_with_one_line() {
    let Some(kafka) = Kafka::start().expect("kafka starts") else { return };
    let brokers = kafka.brokers();
    let up = |replicas: u16, partitions: u32| {
        let mut command = drover(&["up", "--ephemeral", "--set", "log.level=error"]);
        command.args(with_replicas(&brokers, replicas)).args(["--set", &format!("bus.partitions={partitions}")]);
        command
    };
    let told = |replicas: u16, partitions: u32| {
        let said = refused(up(replicas, partitions).args(["--port-offset", &free_offset().to_string()]), 1);
        one_line(&said).to_owned()
    };
    assert_eq!(
        told(3, 4),
        "drover: bus.partitions = 4: topic drover.telemetry is refused: replication factor 3 wants as many brokers, \
         there is 1; see bus.kafka.replication_factor"
    );
    assert!(Up::start_at(free_offset(), &mut up(1, 2)).stop().success(), "the refused process has left no topic");
    assert_eq!(
        told(1, 4),
        "drover: bus.partitions = 4: topic drover.telemetry exists with 2 partitions, 4 were asked for"
    );
}
