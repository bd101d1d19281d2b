//! Sessions that outlive the process: stopped in order, or gone from one moment to the next.

use drover_mqtt::{Ack, Connect, Disconnect, Packet, PacketId, Property, PropertyList, Publish, ReasonCode, Version};
use drover_types::Qos;
use drover_types::limits::INBOX_MESSAGES_MAX;
use tokio::net::TcpStream;

use crate::stage::{Client, Stage, qos1};

fn ack(id: u16) -> Ack<'static> {
    Ack::new(PacketId::new(id).expect("not 0"), ReasonCode::Success)
}

fn qos2<'a>(id: u16, payload: &'a str) -> Publish<'a> {
    Publish { qos: Qos::ExactlyOnce, ..qos1(id, "t", payload) }
}

/// Says goodbye, and waits until the session is left.
async fn leave(stage: &Stage, mut client: Client<TcpStream>) {
    client.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    assert!(client.read(|_| ()).await.is_none());
    stage.metric("drover_ingress_closes_total{reason=\"client\"} 1").await;
}

/// Publishes payloads to `t` at QoS 1, each of which is acknowledged.
async fn publish(stage: &Stage, payloads: impl IntoIterator<Item = u32>) {
    let mut publisher = stage.connect(Version::V311, "p").await;
    for n in payloads {
        publisher.publish(1, "t", &n.to_string()).await;
        publisher.expect_acks([1]).await;
    }
}

/// Expects a message, and does not acknowledge it.
async fn expect(client: &mut Client<TcpStream>, payload: &str, packet_id: u16, dup: bool) {
    let wanted = |p: &Packet<'_>| {
        matches!(p, Packet::Publish(p) if p.payload == payload.as_bytes()
            && p.packet_id.map(PacketId::get) == Some(packet_id)
            && p.dup == dup)
    };
    client.expect(wanted).await;
}

#[tokio::test]
async fn a_session_goes_on_after_a_restart_with_what_came_before_and_since() {
    let mut stage = Stage::new().await;
    let (mut client, present) = stage.resume("c").await;
    assert!(!present);
    client.subscribe("t", Qos::AtLeastOnce).await;
    client.subscribe("u", Qos::AtLeastOnce).await;
    leave(&stage, client).await;
    publish(&stage, 1..=3).await;
    stage.restart().await;
    publish(&stage, 4..=5).await;
    let (mut client, present) = stage.resume("c").await;
    assert!(present); // [MQTT-3.2.2-2]
    for n in 1..=5u16 {
        expect(&mut client, &n.to_string(), n, false).await;
        client.send(&Packet::PubAck(ack(n))).await;
    }
    client.send(&Packet::PingReq).await;
    client.expect(|p| matches!(p, Packet::PingResp)).await;
    stage.restart().await;
    let (mut client, present) = stage.resume("c").await;
    assert!(present);
    publish(&stage, [6]).await;
    assert_eq!(client.message().await, "6", "what was acknowledged does not come again");
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_with_its_packet_id_and_dup() {
    let mut stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    publish(&stage, 1..=2).await;
    expect(&mut client, "1", 1, false).await;
    expect(&mut client, "2", 2, false).await;
    client.send(&Packet::PubAck(ack(1))).await;
    leave(&stage, client).await;
    publish(&stage, [3]).await;
    stage.restart().await;
    let (mut client, _) = stage.resume("c").await;
    expect(&mut client, "2", 2, true).await; // [MQTT-4.4.0-1]
    expect(&mut client, "3", 3, false).await;
}

#[tokio::test]
async fn of_a_node_that_was_killed_every_acknowledged_message_arrives() {
    let stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    publish(&stage, 1..=200).await; // the first hundred of them sent
    expect(&mut client, "1", 1, false).await;
    let stage = stage.killed().await;
    publish(&stage, [201]).await;
    let (mut client, present) = stage.resume("c").await;
    assert!(present);
    for n in 1..=201u16 {
        expect(&mut client, &n.to_string(), n, n <= 200).await;
        client.send(&Packet::PubAck(ack(n))).await;
    }
}

#[tokio::test]
async fn a_node_that_was_killed_publishes_the_wills_of_its_connections_when_it_is_back() {
    let stage = Stage::new().await;
    let mut clients = Vec::new();
    for (id, expiry_s) in [("clean", 0), ("kept", 60)] {
        let mut properties = PropertyList::default();
        properties.push(Property::SessionExpiry(expiry_s)).expect("short");
        let will = drover_mqtt::Will {
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: drover_mqtt::Properties::default(),
            topic: "w",
            payload: id.as_bytes(),
        };
        let properties = properties.as_properties();
        let connect = Connect { will: Some(will), properties, ..Connect::new(Version::V5, id) };
        let mut client = stage.open(Version::V5).await;
        client.send(&Packet::Connect(connect)).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
        clients.push(client);
    }
    let stage = stage.killed().await;
    stage.metric("drover_ingress_messages_in_total{qos=\"1\"} 2").await;
    drop(clients);
    assert!(!stage.resume("clean").await.1 && stage.resume("kept").await.1);
}

#[tokio::test]
async fn a_message_of_qos_2_is_taken_once_although_the_node_was_killed_in_its_midst() {
    let stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    for id in [7, 8] {
        client.send(&Packet::Publish(qos2(id, "x"))).await;
        client.expect(|p| matches!(p, Packet::PubRec(a) if a.packet_id.get() == id)).await;
    }
    client.send(&Packet::PubRel(ack(8))).await;
    client.expect(|p| matches!(p, Packet::PubComp(a) if a.packet_id.get() == 8)).await;
    let stage = stage.killed().await;
    let (mut client, present) = stage.resume("c").await;
    assert!(present);
    client.send(&Packet::Publish(Publish { dup: true, ..qos2(7, "x") })).await;
    client.expect(|p| matches!(p, Packet::PubRec(a) if a.packet_id.get() == 7)).await;
    client.send(&Packet::Publish(qos2(8, "y"))).await; // another message
    client.expect(|p| matches!(p, Packet::PubRec(a) if a.packet_id.get() == 8)).await;
    client.send(&Packet::PubRel(ack(7))).await;
    let released = |p: &Packet<'_>| matches!(p, Packet::PubComp(a) if a.packet_id.get() == 7 && !a.reason.is_error());
    client.expect(released).await;
    assert_eq!(stage.payloads().await, ["x", "x", "y"]);
}

#[tokio::test]
async fn a_message_of_qos_2_is_delivered_once_although_the_node_was_killed_in_its_midst() {
    let stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    client.subscribe("t", Qos::ExactlyOnce).await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    for (id, payload) in [(1, "one"), (2, "two")] {
        publisher.send(&Packet::Publish(qos2(id, payload))).await;
        publisher.expect(|p| matches!(p, Packet::PubRec(_))).await;
        expect(&mut client, payload, id, false).await;
    }
    client.send(&Packet::PubRec(ack(1))).await;
    client.expect(|p| matches!(p, Packet::PubRel(a) if a.packet_id.get() == 1)).await;
    let stage = stage.killed().await;
    let (mut client, _) = stage.resume("c").await;
    client.expect(|p| matches!(p, Packet::PubRel(a) if a.packet_id.get() == 1)).await; // [MQTT-4.3.3-6]
    expect(&mut client, "two", 2, true).await;
    client.send(&Packet::PubComp(ack(1))).await;
    client.send(&Packet::PubRec(ack(2))).await;
    client.expect(|p| matches!(p, Packet::PubRel(a) if a.packet_id.get() == 2)).await;
    client.send(&Packet::PubComp(ack(2))).await;
    client.send(&Packet::PingReq).await;
    client.expect(|p| matches!(p, Packet::PingResp)).await;
}

#[tokio::test]
async fn what_was_given_up_before_a_restart_is_not_there_after_it() {
    let mut stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    client.subscribe("u", Qos::AtLeastOnce).await;
    let mut filters = drover_mqtt::FilterList::default();
    filters.push("t").expect("short");
    let unsubscribe = drover_mqtt::Unsubscribe {
        packet_id: PacketId::MIN,
        properties: drover_mqtt::Properties::default(),
        filters: filters.as_filters(),
    };
    client.send(&Packet::Unsubscribe(unsubscribe)).await;
    client.expect(|p| matches!(p, Packet::UnsubAck(_))).await;
    stage.restart().await;
    publish(&stage, [1]).await;
    let (mut client, present) = stage.resume("c").await;
    assert!(present);
    client.publish(1, "u", "2").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let payload = |p: Packet<'_>| match p {
            Packet::Publish(publish) => Some(String::from_utf8_lossy(publish.payload).into_owned()),
            _ => None,
        };
        seen.extend(client.read(payload).await.expect("a packet"));
    }
    assert_eq!(seen, ["2"], "nothing of what it no longer subscribes to");
    drop(client);

    let mut clean = stage.open(Version::V5).await;
    clean.send(&Packet::Connect(Connect::new(Version::V5, "c"))).await; // clean start
    clean.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.session_present)).await;
    let stage = stage.killed().await;
    assert!(!stage.resume("c").await.1);
}

#[tokio::test]
async fn an_inbox_is_bounded_also_over_a_restart() {
    let mut stage = Stage::new().await;
    let (mut client, _) = stage.resume("c").await;
    client.subscribe("t", Qos::AtLeastOnce).await;
    leave(&stage, client).await;
    let bound = u32::try_from(INBOX_MESSAGES_MAX).expect("small");
    let mut publisher = stage.connect(Version::V311, "p").await;
    for first in (1..bound).step_by(50) {
        for n in first..first + 50 {
            publisher.publish(1 + (n % 50) as u16, "t", &n.to_string()).await;
        }
        for n in first..first + 50 {
            publisher.expect_acks([1 + (n % 50) as u16]).await;
        }
    }
    stage.restart().await;
    publish(&stage, [bound + 1]).await;
    stage.metric("drover_ingress_messages_dropped_total{reason=\"inbox_full\"} 1").await;
    let (mut client, _) = stage.resume("c").await;
    for n in 1..=bound {
        assert_eq!(client.message().await, n.to_string());
    }
}
