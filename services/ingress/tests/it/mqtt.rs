//! MQTT over real sockets, into a real log.

use std::time::Duration;

use drover_mqtt::{Connect, Packet, Property, PropertyList, Publish, ReasonCode, Version};
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::ingress::v1::{PublishRequest, RevokeRequest, presence_report::What};
use drover_sim::Broken;
use drover_types::Qos;
use tokio::io::AsyncWriteExt;

use crate::bus::Gate;
use crate::stage::{Stage, qos1};

#[tokio::test]
async fn connect_and_publish_in_one_write_are_both_answered() {
    for version in [Version::V311, Version::V5] {
        let stage = Stage::new().await;
        let mut client = stage.open(version).await;
        let connect = Packet::Connect(Connect::new(version, "d"));
        let bytes =
            client.encode(&[connect, Packet::Publish(qos1(1, "a", "first")), Packet::Publish(qos1(2, "a", "second"))]);
        client.stream.write_all(&bytes).await.expect("connected");
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.session_present)).await;
        client.expect_acks([1, 2]).await;
        assert_eq!(stage.payloads().await, ["first", "second"]);
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_of_the_stream_is_kept() {
    let stage = Stage::new().await;
    let mut client = stage.open(Version::V311).await;
    let connect = Packet::Connect(Connect::new(Version::V311, "d"));
    let bytes = client.encode(&[connect, Packet::Publish(Publish::new("a", b"parting"))]);
    client.stream.write_all(&bytes).await.expect("connected");
    client.stream.shutdown().await.expect("half closed");
    client.expect(|p| matches!(p, Packet::ConnAck(_))).await;
    stage.metric("drover_ingress_messages_in_total{qos=\"0\"} 1").await;
    assert_eq!(stage.payloads().await, ["parting"]);
}

#[tokio::test]
async fn a_device_gets_back_what_it_publishes_to_its_own_subscription() {
    for version in [Version::V311, Version::V5] {
        let stage = Stage::new().await;
        let mut client = stage.connect(version, "d").await;
        client.subscribe("sensors/+", Qos::AtLeastOnce).await;
        client.send(&Packet::Publish(Publish::new("sensors/temperature", b"22.5"))).await;
        assert_eq!(client.message().await, "22.5");
    }
}

#[tokio::test]
async fn one_publisher_s_messages_reach_a_subscriber_in_order() {
    let stage = Stage::new().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("#", Qos::AtLeastOnce).await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    for id in 1..=300u16 {
        publisher.publish(id, "t", &id.to_string()).await;
    }
    for id in 1..=300u16 {
        assert_eq!(subscriber.message().await, id.to_string());
    }
    publisher.expect_acks(1..=300).await;
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_presence_alternates() {
    let stage = Stage::new().await;
    let mut old = stage.connect(Version::V5, "d").await;
    let new = stage.connect(Version::V5, "d").await;
    old.expect(|p| matches!(p, Packet::Disconnect(d) if d.reason == ReasonCode::SessionTakenOver)).await;
    drop(new);
    let reports = stage.reports(4).await;
    let kinds: Vec<&str> = reports
        .iter()
        .map(|report| match report.what.as_ref().expect("something") {
            What::NodeStarted(_) => "started",
            What::Connected(_) => "connected",
            What::Disconnected(disconnected) => disconnected.reason.as_str(),
        })
        .collect();
    assert_eq!(kinds, ["started", "connected", "taken_over", "connected", "connection_lost"]);
    let epochs: Vec<u64> = reports.iter().map(|report| report.epoch).collect();
    assert_eq!(epochs, [0, (1 << 32) + 1, (1 << 32) + 1, (1 << 32) + 2, (1 << 32) + 2]);
}

#[tokio::test]
async fn a_persistent_session_keeps_messages_for_its_client() {
    let stage = Stage::new().await;
    let connect = Packet::Connect(Connect { clean_start: false, ..Connect::new(Version::V311, "s") });
    let mut subscriber = stage.open(Version::V311).await;
    subscriber.send(&connect).await;
    subscriber.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.session_present)).await;
    subscriber.subscribe("t", Qos::AtLeastOnce).await;
    drop(subscriber);
    stage.reports(2).await;
    stage.connect(Version::V5, "p").await.publish(1, "t", "kept").await;
    stage.metric("drover_ingress_messages_in_total{qos=\"1\"} 1").await;
    let mut subscriber = stage.open(Version::V311).await;
    subscriber.send(&connect).await;
    subscriber.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.session_present)).await;
    assert_eq!(subscriber.message().await, "kept");
}

#[tokio::test]
async fn a_will_is_published_when_its_client_is_lost_and_not_when_it_says_goodbye() {
    let stage = Stage::new().await;
    for (payload, goodbye) in [("unseen", true), ("lost", false)] {
        let properties = drover_mqtt::Properties::default();
        let will = drover_mqtt::Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties,
            topic: "w",
            payload: payload.as_bytes(),
        };
        let mut client = stage.open(Version::V5).await;
        client.send(&Packet::Connect(Connect { will: Some(will), ..Connect::new(Version::V5, payload) })).await;
        client.expect(|p| matches!(p, Packet::ConnAck(_))).await;
        if goodbye {
            client.send(&Packet::Disconnect(drover_mqtt::Disconnect::new(ReasonCode::Success))).await;
        }
    }
    stage.metric("drover_ingress_messages_in_total{qos=\"1\"} 1").await;
    assert_eq!(stage.payloads().await, ["lost"]);
}

#[tokio::test]
async fn a_will_that_waits_for_its_time_waits_through_a_restart_and_is_gone_when_its_client_returns() {
    let mut stage = Stage::new().await;
    let (mut delay, mut expiry) = (PropertyList::default(), PropertyList::default());
    delay.push(Property::WillDelay(3_000)).expect("short");
    expiry.push(Property::SessionExpiry(3_600)).expect("short");
    let mut connected = Vec::new();
    for id in ["lost", "drained"] {
        let will = drover_mqtt::Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: delay.as_properties(),
            topic: "w",
            payload: id.as_bytes(),
        };
        let connect = Connect { will: Some(will), properties: expiry.as_properties(), ..Connect::new(Version::V5, id) };
        let mut client = stage.open(Version::V5).await;
        client.send(&Packet::Connect(connect)).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
        connected.push(client);
    }
    drop(connected.remove(0));
    stage.reports(3).await;
    assert_eq!(stage.payloads().await, Vec::<String>::new(), "its time has not come");
    stage.restart().await;
    let (client, present) = stage.resume("lost").await; // [MQTT-3.1.3-9]
    assert!(present);
    drop(client);
    stage.restart().await;
    assert_eq!(stage.payloads().await, Vec::<String>::new(), "nor has it by now");
}

#[tokio::test]
async fn while_the_log_hangs_nothing_is_acknowledged_and_afterwards_all_is() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V311, "d").await;
    stage.bus.set(Gate::Hanging);
    for id in 1..=500 {
        client.publish(id, "t", &id.to_string()).await;
    }
    while stage.payloads().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let early = tokio::time::timeout(Duration::from_millis(100), client.read(|_| ())).await;
    assert!(early.is_err(), "nothing is acknowledged");
    // One batch is on its way and the socket is not read: no more than the receive maximum is in the log.
    assert!(stage.payloads().await.len() <= 100, "nothing more is read");
    stage.bus.set(Gate::Open);
    client.expect_acks(1..=500).await;
    assert_eq!(stage.payloads().await, (1..=500).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn when_the_log_fails_the_connection_closes_without_an_acknowledgement() {
    for version in [Version::V311, Version::V5] {
        let stage = Stage::new().await;
        let mut client = stage.connect(version, "d").await;
        stage.bus.set(Gate::Failing);
        client.publish(1, "t", "x").await;
        assert!(!client.rest_has_ack().await);
        stage.metric("drover_ingress_appends_failed_total 1").await;
    }
}

#[tokio::test]
async fn the_broken_variant_acknowledges_what_is_not_stored() {
    let stage = Stage::broken(Broken { ack_before_append: true, ..Broken::default() }).await;
    let mut client = stage.connect(Version::V5, "d").await;
    stage.bus.set(Gate::Failing);
    client.publish(1, "t", "x").await;
    // The tests above would notice.
    client.expect_acks([1]).await;
}

#[tokio::test]
async fn a_reader_that_stops_costs_only_itself() {
    let stage = Stage::new().await;
    let mut slow = stage.connect(Version::V311, "slow").await;
    slow.subscribe("t", Qos::AtMostOnce).await;
    let mut quick = stage.connect(Version::V311, "quick").await;
    quick.subscribe("t", Qos::AtMostOnce).await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    let payload = "x".repeat(20_000);
    for id in 1..=1_500 {
        publisher.publish(id, "t", &payload).await;
        publisher.expect_acks([id]).await;
        assert_eq!(quick.message().await.len(), payload.len());
    }
    let metrics = stage.metrics.encode();
    let dropped =
        metrics.lines().find(|l| l.starts_with("drover_ingress_messages_dropped_total{reason=\"slow_reader\"}"));
    assert!(dropped.is_some(), "counted: {metrics}");
}

#[tokio::test]
async fn malformed_packets_end_only_their_own_connection() {
    let stage = Stage::new().await;
    let mut witness = stage.connect(Version::V5, "witness").await;
    let bad: [&[u8]; 8] = [
        &[0x00, 0x00],                               // reserved type
        &[0x30, 0xff, 0xff, 0xff, 0xff, 0x7f],       // length of five bytes
        &[0x30, 0x03, 0x00, 0x01, 0xff],             // topic that is no UTF-8
        &[0x30, 0x04, 0x00, 0x01, b'#', 0x00],       // topic with a wildcard
        &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01], // QoS 3
        &[0x82, 0x03, 0x00, 0x01, 0x00],             // SUBSCRIBE without a filter
        &[0x80, 0x02, 0x00, 0x01],                   // wrong flags
        &[0x20, 0x02, 0x00, 0x00],                   // CONNACK from a client
    ];
    for (n, bytes) in bad.iter().enumerate() {
        let mut client = stage.connect(Version::V5, &format!("bad-{n}")).await;
        client.stream.write_all(bytes).await.expect("connected");
        client.expect(|p| matches!(p, Packet::Disconnect(d) if d.reason.is_error())).await;
        assert!(client.read(|_| ()).await.is_none(), "closed after {bytes:02x?}");
    }
    witness.publish(1, "t", "x").await;
    witness.expect_acks([1]).await;
}

#[tokio::test]
async fn a_client_that_never_says_who_it_is_is_closed() {
    let short = drover_host::Duration::from_millis(50);
    let stage = Stage::with(|config| config.timeouts.connect = short).await;
    let mut silent = stage.open(Version::V5).await;
    assert!(silent.read(|_| ()).await.is_none());
    let mut half = stage.open(Version::V5).await;
    half.stream.write_all(&[0x10, 0x10, 0x00]).await.expect("connected");
    assert!(half.read(|_| ()).await.is_none());
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_so() {
    let stage = Stage::with(|config| config.limits.connections = 1).await;
    let _first = stage.connect(Version::V5, "a").await;
    let mut second = stage.open(Version::V5).await;
    second.send(&Packet::Connect(Connect::new(Version::V5, "b"))).await;
    second.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason == ReasonCode::QuotaExceeded)).await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_even_where_anonymous_clients_are_not() {
    let stage = Stage::new().await;
    stage.registry.credential("right", "d");
    for (version, password, reason) in [
        (Version::V5, "right", ReasonCode::Success),
        (Version::V5, "wrong", ReasonCode::BadUserNameOrPassword),
        (Version::V311, "wrong", ReasonCode::BadUserNameOrPassword),
    ] {
        let mut client = stage.open(version).await;
        let connect = Connect::new(version, "d");
        let connect = Connect { user_name: Some("d"), password: Some(password.as_bytes()), ..connect };
        client.send(&Packet::Connect(connect)).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason == reason)).await;
    }
}

#[tokio::test]
async fn a_revocation_returns_when_the_connection_is_closed_even_while_the_log_hangs() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    stage.bus.set(Gate::Hanging);
    client.publish(1, "t", "x").await;
    let mut ingress = IngressClient::new(stage.network.client("ingress"));
    let request = RevokeRequest { tenant: "default".into(), device: "d".into(), ..RevokeRequest::default() };
    let answer = ingress.revoke(request).await.expect("confirmed").into_inner();
    assert_eq!(answer.closed, 1);
    client.expect(|p| matches!(p, Packet::Disconnect(d) if d.reason == ReasonCode::AdministrativeAction)).await;
    stage.bus.set(Gate::Open);
}

#[tokio::test]
async fn a_rule_s_message_is_logged_and_routed() {
    let stage = Stage::new().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("alerts/#", Qos::AtLeastOnce).await;
    let mut ingress = IngressClient::new(stage.network.client("ingress"));
    let request = PublishRequest {
        id: vec![1; 16],
        tenant: "default".into(),
        device: "d".into(),
        client: "rule/hot".into(),
        topic: "alerts/d".into(),
        payload: b"hot".to_vec(),
        qos: 1,
        hops: 1,
        traceparent: String::new(),
    };
    ingress.publish(request).await.expect("durable");
    assert_eq!(subscriber.message().await, "hot");
    assert_eq!(stage.payloads().await, ["hot"]);
}

#[tokio::test]
async fn a_drain_acknowledges_what_is_on_its_way_and_says_goodbye() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    stage.bus.set(Gate::Hanging);
    client.publish(1, "t", "x").await;
    while stage.payloads().await.is_empty() {
        tokio::task::yield_now().await;
    }
    stage.shutdown.cancel();
    stage.bus.set(Gate::Open);
    client.expect_acks([1]).await;
    client.expect(|p| matches!(p, Packet::Disconnect(d) if d.reason == ReasonCode::ServerShuttingDown)).await;
    stage.running.await.expect("no panic").expect("drained");
}
