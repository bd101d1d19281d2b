//! `drover up` over real Kafka instead of the embedded log.

use std::process::Stdio;
use std::time::{Duration, Instant};

use drover_backends::kafka::Kafka;

use crate::process::{Up, drover, free_offset};

fn over(brokers: &str) -> Vec<String> {
    let settings = ["kind=kafka", &format!("kafka.brokers={brokers}"), "kafka.replication_factor=1"].map(str::to_owned);
    let settings = settings.into_iter().chain(["kafka.min_insync_replicas=1".to_owned()]);
    settings.map(|setting| format!("--set=bus.{setting}")).collect()
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
    let up = Up { child, offset, printed: String::new() };
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
