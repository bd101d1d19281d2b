//! Noisy neighbours, and many who come or go at once.

use std::time::Duration;

use drover_mqtt::{Connect, Packet, ReasonCode, Version};
use drover_proto::ingress::v1::IdentifyRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_types::Qos;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::http::{TOKEN, send};
use crate::stage::{Client, Stage, qos1};

/// The reason by which a new client is refused.
async fn refused(stage: &Stage, id: &str) -> ReasonCode {
    answered(&mut stage.open(Version::V5).await, Connect::new(Version::V5, id)).await
}

/// The reason of the answer to a CONNECT.
async fn answered(client: &mut Client<tokio::net::TcpStream>, connect: Connect<'_>) -> ReasonCode {
    client.send(&Packet::Connect(connect)).await;
    let read = |packet: Packet<'_>| match packet {
        Packet::ConnAck(ack) => ack.reason,
        other => panic!("unexpected {other:?}"),
    };
    client.read(read).await.expect("a packet")
}

#[tokio::test]
async fn a_device_over_its_quota_is_told_so_and_costs_no_other_anything() {
    let stage = Stage::with(|config| config.quotas.device_messages = 2).await;
    let mut noisy = stage.connect(Version::V5, "noisy").await;
    let mut quiet = stage.connect(Version::V5, "quiet").await;
    // In one write: they come at the same time.
    let burst = noisy.encode(&[1, 2, 3].map(|id| Packet::Publish(qos1(id, "t", "x"))));
    noisy.stream.write_all(&burst).await.expect("connected");
    noisy.expect_acks([1, 2]).await;
    let over = |packet: &Packet<'_>| matches!(packet, Packet::PubAck(ack) if ack.reason == ReasonCode::QuotaExceeded);
    noisy.expect(over).await;
    quiet.publish(1, "t", "y").await;
    quiet.expect_acks([1]).await;
    assert_eq!(stage.payloads().await.len(), 3);
    stage.metric(r#"drover_ingress_messages_refused_total{reason="quota exceeded"} 1"#).await;
    noisy.publish_until("t", ReasonCode::Success).await; // its time comes
}

#[tokio::test]
async fn a_client_of_mqtt_3_1_1_over_its_quota_waits_and_loses_nothing() {
    let stage = Stage::with(|config| config.quotas.device_messages = 4).await;
    let mut client = stage.connect(Version::V311, "noisy").await;
    let began = Instant::now();
    let ids = [1, 2, 3, 4, 5, 6];
    let burst = client.encode(&ids.map(|id| Packet::Publish(qos1(id, "t", "x"))));
    client.stream.write_all(&burst).await.expect("connected");
    client.expect_acks(ids).await;
    // Four at once, the fifth after a quarter of a second, the sixth after another.
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    assert_eq!(stage.payloads().await.len(), ids.len());
}

#[tokio::test]
async fn the_devices_of_a_tenant_share_its_quota_of_messages() {
    let stage = Stage::with(|config| config.quotas.tenant_messages = 1).await;
    let mut noisy = stage.connect(Version::V5, "noisy").await;
    let mut quiet = stage.connect(Version::V5, "quiet").await;
    noisy.publish(1, "t", "x").await;
    noisy.expect_acks([1]).await;
    // It has sent next to nothing, and is told so all the same: the tenant's time has to come.
    quiet.publish_until("t", ReasonCode::QuotaExceeded).await;
    quiet.publish_until("t", ReasonCode::Success).await;
}

#[tokio::test]
async fn connections_of_a_device_are_bounded_whatever_its_client_ids() {
    let stage = Stage::with(|config| config.quotas.device_connections = 2).await;
    stage.registry.credential("right", "gateway");
    stage.registry.allow_clients(&["${device}-*"]);
    let connect = |id| Connect {
        user_name: Some("gateway"),
        password: Some(b"right".as_slice()),
        ..Connect::new(Version::V5, id)
    };
    let mut clients = Vec::new();
    for (id, reason) in [
        ("gateway", ReasonCode::Success),
        ("gateway-1", ReasonCode::Success),
        ("gateway-2", ReasonCode::QuotaExceeded),
        ("gateway-1", ReasonCode::Success), // it takes its own place over
    ] {
        let mut client = stage.open(Version::V5).await;
        assert_eq!(answered(&mut client, connect(id)).await, reason, "{id}");
        clients.push(client);
    }
    let _other = stage.connect(Version::V5, "lamp").await;
    clients.clear();
    while answered(&mut stage.open(Version::V5).await, connect("gateway-2")).await != ReasonCode::Success {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_posts_counts_as_what_it_publishes() {
    let stage = Stage::with(|config| config.quotas.device_messages = 1).await;
    stage.registry.credential(TOKEN, "d");
    let bearer = [("authorization", format!("Bearer {TOKEN}"))];
    let headers: Vec<(&str, &str)> = bearer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) && statuses.len() < 50 {
        let (status, answer) = send(&stage, "POST", "/v1/topics/t", &headers, "x").await;
        assert!(status == 200 || answer.contains("resource_exhausted"), "{status} {answer}");
        statuses.push(status);
    }
    assert_eq!((statuses[0], statuses.last()), (200, Some(&429)));
    assert_eq!(stage.payloads().await.len(), statuses.len() - 1);
}

#[tokio::test]
async fn connections_of_a_tenant_are_bounded() {
    let stage = Stage::with(|config| config.quotas.tenant_connections = 2).await;
    let first = stage.connect(Version::V5, "a").await;
    let _second = stage.connect(Version::V5, "b").await;
    assert_eq!(refused(&stage, "c").await, ReasonCode::QuotaExceeded);
    let _again = stage.connect(Version::V5, "b").await; // it takes its own place over
    drop(first);
    while refused(&stage, "c").await != ReasonCode::Success {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn clients_that_come_too_fast_are_told_to_come_later_and_the_registry_is_not_asked() {
    let stage = Stage::with(|config| config.quotas.connects = 1).await;
    let _first = stage.connect(Version::V5, "a").await;
    let mut reasons = Vec::new();
    while reasons.last() != Some(&ReasonCode::ConnectionRateExceeded) && reasons.len() < 50 {
        reasons.push(refused(&stage, "b").await);
    }
    assert_eq!(reasons.last(), Some(&ReasonCode::ConnectionRateExceeded));
    stage.metric(r#"drover_ingress_connects_refused_total{reason="rate"} 1"#).await;
    while refused(&stage, "b").await != ReasonCode::Success {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_node_that_stops_closes_connections_one_after_the_other_and_serves_those_that_are_left() {
    let mut stage = Stage::with(|config| config.quotas.closes = 10).await;
    let mut clients = Vec::new();
    for id in 0..8 {
        clients.push(stage.connect(Version::V5, &format!("d{id}")).await);
    }
    let began = Instant::now();
    stage.shutdown.cancel();
    let ends: Vec<_> = clients.into_iter().map(|client| tokio::spawn(served_to_the_end(client, began))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut ingress = IngressClient::new(stage.network.client("ingress"));
    ingress.identify(IdentifyRequest::default()).await.expect("other nodes are answered meanwhile");
    let mut ends: Vec<Duration> =
        futures::future::join_all(ends).await.into_iter().map(|end| end.expect("no panic")).collect();
    ends.sort();
    (&mut stage.running).await.expect("no panic").expect("drained");
    assert!(ends[7] >= Duration::from_millis(300), "ten a second: {ends:?}");
    assert!(ends[7] < Duration::from_secs(9), "by the pace, not by the end of patience: {ends:?}");
}

/// Publishes until the node says goodbye; when that was.
async fn served_to_the_end(mut client: Client<tokio::net::TcpStream>, began: Instant) -> Duration {
    for id in 1..=u16::MAX {
        // The goodbye may be there already, and then nobody listens any more.
        let bytes = client.encode(&[Packet::Publish(qos1(id, "t", "x"))]);
        client.stream.write_all(&bytes).await.ok();
        let is_goodbye = |packet: Packet<'_>| match packet {
            Packet::PubAck(ack) => {
                assert!(!ack.reason.is_error());
                false
            }
            Packet::Disconnect(goodbye) => {
                assert_eq!(goodbye.reason, ReasonCode::ServerShuttingDown);
                true
            }
            other => panic!("unexpected {other:?}"),
        };
        if client.read(is_goodbye).await.unwrap_or(true) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn qos_0_over_the_quota_is_delayed_and_counted() {
    let stage = Stage::with(|config| config.quotas.device_messages = 5).await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("t", Qos::AtMostOnce).await;
    let mut client = stage.connect(Version::V5, "d").await;
    let burst = client.encode(&[0; 7].map(|_| Packet::Publish(drover_mqtt::Publish::new("t", b"x"))));
    client.stream.write_all(&burst).await.expect("connected");
    for _ in 0..7 {
        assert_eq!(subscriber.message().await, "x");
    }
    stage.metric("drover_ingress_messages_delayed_total 3").await;
}
