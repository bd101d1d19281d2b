//! The load generator's counts.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use drover_load::bench::{Plan, run};
use drover_mqtt::Version;
use drover_types::Qos;

use crate::server::{Faults, Server};

fn plan(server: &Server, qos: Qos) -> Plan {
    Plan {
        target: server.target(),
        version: Version::V5,
        clients: 3,
        idle: 2,
        subscribers: 0,
        rate: None,
        sources: Vec::new(),
        window: NonZeroU16::new(4).expect("not zero"),
        qos,
        payload_bytes: 10,
        duration: Duration::from_millis(100),
        patience: Duration::from_secs(20),
        topic: "load/{i}".to_owned(),
        client_id: "load-{i}".to_owned(),
        user_name: None,
        password: None,
    }
}

#[tokio::test]
async fn every_message_sent_is_counted_when_it_is_acknowledged() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let server = Server::start(Faults::default()).await;
        let report = run(&plan(&server, qos)).await;
        assert!(report.errors.is_empty(), "{report}");
        assert_eq!((report.connected, server.connections()), (5, 5));
        assert!(report.sent > 0);
        assert_eq!((report.sent, report.refused), (report.acknowledged, 0));
        assert_eq!(report.acknowledged, server.seen().len() as u64);
        assert!(serde_json::to_string(&report).is_ok_and(|json| json.contains("\"ack_p99_us\"")));
    }
}

#[tokio::test]
async fn refusals_and_cut_connections_are_reported() {
    let server = Server::start(Faults { refuse: true, ..Faults::default() }).await;
    let report = run(&plan(&server, Qos::AtLeastOnce)).await;
    assert_eq!((report.acknowledged, report.refused), (0, report.sent));

    let server = Server::start(Faults { cut_at_publish: Some(1), ..Faults::default() }).await;
    let one = Plan { clients: 1, idle: 0, ..plan(&server, Qos::AtLeastOnce) };
    let report = run(&one).await;
    assert_eq!(report.errors.values().sum::<u64>(), 1, "{report}");
    assert!(report.to_string().contains("errors         1"));
}

#[tokio::test]
async fn what_subscribers_got_is_counted_beside_what_was_acknowledged() {
    let server = Server::start(Faults { fans_out: true, ..Faults::default() }).await;
    let report = run(&Plan { subscribers: 2, ..plan(&server, Qos::AtLeastOnce) }).await;
    assert!(report.errors.is_empty(), "{report}");
    assert!(report.acknowledged > 0 && report.delivered_per_second > 0.0);
    assert_eq!((report.connected, report.delivered), (7, 2 * report.acknowledged));
    assert!(report.to_string().contains("2 subscribed to everything"), "{report}");
}

#[tokio::test]
async fn at_a_pace_no_more_is_sent_than_it_says() {
    let server = Server::start(Faults::default()).await;
    let (rate, duration) = (NonZeroU32::new(60), Duration::from_secs(1));
    let report = run(&Plan { rate, duration, ..plan(&server, Qos::AtLeastOnce) }).await;
    assert!(report.errors.is_empty(), "{report}");
    // A machine that is busy at the end leaves the last ones out.
    assert!((40..=60).contains(&report.sent) && report.acknowledged == report.sent, "{report}");
}

#[tokio::test]
async fn at_a_pace_what_a_full_window_keeps_back_is_counted_and_a_failure() {
    let server = Server::start(Faults { is_deaf: true, ..Faults::default() }).await;
    let (rate, duration) = (NonZeroU32::new(60), Duration::from_secs(1));
    let deaf = Plan { clients: 1, idle: 0, rate, duration, ..plan(&server, Qos::AtLeastOnce) };
    let report = run(&Plan { patience: Duration::from_millis(200), ..deaf }).await;
    assert_eq!((report.sent, report.acknowledged), (4, 0), "a window: {report}");
    assert!((1..=60).contains(&report.skipped), "{report}");
    let told = format!("; {} messages were due while a window was full", report.skipped);
    assert!(report.failure().is_some_and(|failure| failure.ends_with(&told)), "{report}");
    assert!(report.to_string().contains("skipped as a window was full"), "{report}");
}

#[tokio::test]
async fn clients_a_server_is_too_busy_for_come_again_and_are_not_waited_for_longer_than_they_have_patience() {
    let server = Server::start(Faults { busy_for: 2, ..Faults::default() }).await;
    let report = run(&plan(&server, Qos::AtLeastOnce)).await;
    assert!(report.errors.is_empty(), "{report}");
    assert_eq!((report.connected, server.connections()), (5, 7));

    let server = Server::start(Faults { busy_for: usize::MAX, ..Faults::default() }).await;
    let hurried = Plan { patience: Duration::from_millis(200), ..plan(&server, Qos::AtLeastOnce) };
    let report = run(&hurried).await;
    assert_eq!((report.connected, report.errors.values().sum::<u64>()), (0, 5), "{report}");
}

#[tokio::test]
async fn clients_connect_from_the_addresses_they_are_given() {
    let server = Server::start(Faults::default()).await;
    let sources = ["127.0.0.2", "127.0.0.3"].map(|address| address.parse().expect("an address")).to_vec();
    let report = run(&Plan { sources, ..plan(&server, Qos::AtLeastOnce) }).await;
    assert!(report.errors.is_empty(), "{report}");
    let peers: Vec<String> = server.peers().iter().map(|peer| peer.ip().to_string()).collect();
    assert_eq!(peers.iter().filter(|peer| *peer == "127.0.0.2").count(), 3, "{peers:?}");
    assert_eq!(peers.iter().filter(|peer| *peer == "127.0.0.3").count(), 2, "{peers:?}");
}

#[tokio::test]
async fn at_qos_0_a_server_that_does_not_read_is_not_sent_more_than_it_may_owe_and_is_reported() {
    let server = Server::start(Faults { is_deaf: true, ..Faults::default() }).await;
    let deaf = Plan { clients: 1, idle: 0, patience: Duration::from_millis(200), ..plan(&server, Qos::AtMostOnce) };
    let deaf = Plan { payload_bytes: 1_000, ..deaf };
    let report = run(&deaf).await;
    assert_eq!(report.acknowledged, 0);
    // Twice nine writes of four messages: each nine are more than 32 KiB.
    assert!((1..=72).contains(&report.sent), "{report}");
    assert_eq!(report.failure().as_deref(), Some("1 clients stopped early: 1 × no answer for 200ms"));
}
