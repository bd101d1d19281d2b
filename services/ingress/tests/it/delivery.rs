//! QoS 2, retained messages and shared subscriptions, over real sockets and into a real log.

use drover_mqtt::{
    Ack, Connect, Packet, PacketId, Properties, Publish, ReasonCode, RetainHandling, Subscribe, Subscription,
    SubscriptionList, SubscriptionOptions, Version,
};
use drover_types::Qos;
use tokio::net::TcpStream;

use crate::bus::Gate;
use crate::stage::{Client, Stage, qos1};

fn ack(id: u16) -> Ack<'static> {
    Ack::new(PacketId::new(id).expect("not 0"), ReasonCode::Success)
}

fn qos2<'a>(id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { qos: Qos::ExactlyOnce, ..qos1(id, topic, payload) }
}

fn retained<'a>(topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish { retain: true, ..qos1(1, topic, payload) }
}

async fn subscribe_with(client: &mut Client<TcpStream>, filter: &str, options: SubscriptionOptions) {
    let mut list = SubscriptionList::default();
    list.push(Subscription { filter, options }).expect("short");
    let (packet_id, properties, subscriptions) = (PacketId::MIN, Properties::default(), list.as_subscriptions());
    client.send(&Packet::Subscribe(Subscribe { packet_id, properties, subscriptions })).await;
    client.expect(|packet| matches!(packet, Packet::SubAck(_))).await;
}

#[tokio::test]
async fn a_message_of_qos_2_is_logged_once_and_delivered_once_although_it_is_sent_twice() {
    for version in [Version::V311, Version::V5] {
        let stage = Stage::new().await;
        let mut subscriber = stage.connect(version, "s").await;
        subscriber.subscribe("t", Qos::ExactlyOnce).await;
        let mut publisher = stage.connect(version, "p").await;
        for packet in [qos2(7, "t", "x"), Publish { dup: true, ..qos2(7, "t", "x") }] {
            publisher.send(&Packet::Publish(packet)).await;
            publisher.expect(|packet| matches!(packet, Packet::PubRec(a) if a.packet_id.get() == 7)).await;
        }
        publisher.send(&Packet::PubRel(ack(7))).await;
        publisher.expect(|packet| matches!(packet, Packet::PubComp(_))).await;
        assert_eq!(stage.payloads().await, ["x"]);
        let wanted = |p: &Packet<'_>| matches!(p, Packet::Publish(p) if p.qos == Qos::ExactlyOnce && !p.dup);
        subscriber.expect(wanted).await;
        subscriber.send(&Packet::PubRec(ack(1))).await;
        subscriber.expect(|packet| matches!(packet, Packet::PubRel(_))).await;
        subscriber.send(&Packet::PubComp(ack(1))).await;
        subscriber.send(&Packet::PingReq).await;
        subscriber.expect(|packet| matches!(packet, Packet::PingResp)).await;
    }
}

#[tokio::test]
async fn a_message_of_qos_2_that_was_stored_after_its_connection_had_ended_is_not_taken_again() {
    let stage = Stage::new().await;
    let (mut first, _) = stage.resume("p").await;
    stage.bus.set(Gate::Hanging);
    first.send(&Packet::Publish(qos2(1, "t", "x"))).await;
    while stage.payloads().await.is_empty() {
        tokio::task::yield_now().await;
    }
    drop(first);
    stage.bus.set(Gate::Open);
    stage.metric("drover_ingress_messages_in_total{qos=\"2\"} 1").await;
    let (mut second, present) = stage.resume("p").await;
    assert!(present);
    second.send(&Packet::Publish(Publish { dup: true, ..qos2(1, "t", "x") })).await;
    second.expect(|packet| matches!(packet, Packet::PubRec(a) if a.reason == ReasonCode::Success)).await;
    assert_eq!(stage.payloads().await, ["x"]);
}

#[tokio::test]
async fn nothing_of_qos_2_is_received_before_it_is_durable() {
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "d").await;
    stage.bus.set(Gate::Failing);
    client.send(&Packet::Publish(qos2(1, "t", "x"))).await;
    assert_eq!(client.goodbye().await, ReasonCode::ServerBusy);
}

#[tokio::test]
async fn a_retained_message_is_there_for_later_subscriptions_also_after_a_restart() {
    let mut stage = Stage::new().await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    for (topic, payload) in [("home/a", "old"), ("home/a", "new"), ("home/b", "gone"), ("home/b", "")] {
        publisher.send(&Packet::Publish(retained(topic, payload))).await;
        publisher.expect_acks([1]).await;
    }
    for version in [Version::V311, Version::V5] {
        stage.restart().await;
        let mut subscriber = stage.connect(version, "s").await;
        subscriber.subscribe("home/#", Qos::AtLeastOnce).await;
        let wanted =
            |p: &Packet<'_>| matches!(p, Packet::Publish(p) if p.retain && p.topic == "home/a" && p.payload == b"new");
        subscriber.expect(wanted).await; // [3.1.1 MQTT-3.3.1-8]
        let mut publisher = stage.connect(version, "p").await;
        publisher.send(&Packet::Publish(retained("home/a", "new"))).await;
        subscriber.expect(|p| matches!(p, Packet::Publish(p) if !p.retain)).await; // [MQTT-3.3.1-12]
    }
}

#[tokio::test]
async fn of_retained_messages_of_one_millisecond_the_last_one_stays() {
    const TOPICS: u16 = 20;
    let stage = Stage::new().await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    let payloads =
        (0..TOPICS).flat_map(|topic| ["first", "second", "last"].map(|payload| (format!("t/{topic}"), payload)));
    for (id, (topic, payload)) in (1..).zip(payloads) {
        publisher.send(&Packet::Publish(Publish { retain: true, ..qos1(id, &topic, payload) })).await;
    }
    publisher.expect_acks(1..=3 * TOPICS).await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("t/+", Qos::AtLeastOnce).await;
    for _ in 0..TOPICS {
        assert_eq!(subscriber.message().await, "last");
    }
}

#[tokio::test]
async fn a_subscription_says_whether_it_wants_retained_messages_and_their_flag() {
    // [MQTT-3.3.1-9] to [MQTT-3.3.1-11], [MQTT-3.3.1-13]
    let stage = Stage::new().await;
    let mut client = stage.connect(Version::V5, "c").await;
    client.send(&Packet::Publish(retained("t", "kept"))).await;
    client.expect_acks([1]).await;
    let as_published = SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::new(Qos::AtMostOnce) };
    let options = |retain_handling| SubscriptionOptions { retain_handling, ..as_published };
    for (handling, sent) in [
        (RetainHandling::DoNotSend, false),
        (RetainHandling::SendIfNew, false),
        (RetainHandling::Send, true),
        (RetainHandling::Send, true),
    ] {
        subscribe_with(&mut client, "t", options(handling)).await;
        if sent {
            assert_eq!(client.message().await, "kept", "{handling:?}");
        }
    }
    subscribe_with(&mut client, "+", options(RetainHandling::SendIfNew)).await;
    assert_eq!(client.message().await, "kept");
    client.send(&Packet::Publish(Publish { retain: true, ..Publish::new("t", b"live") })).await;
    client.expect(|p| matches!(p, Packet::Publish(p) if p.retain && p.payload == b"live")).await;
}

#[tokio::test]
async fn more_retained_messages_than_an_inbox_holds_all_come() {
    let stage = Stage::new().await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    for n in 0..1_500 {
        let topic = format!("t/{n:04}");
        publisher.send(&Packet::Publish(Publish { retain: true, ..Publish::new(&topic, b"x") })).await;
    }
    stage.metric("drover_ingress_messages_in_total{qos=\"0\"} 1500").await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("t/#", Qos::AtLeastOnce).await;
    for n in 0..1_500 {
        let topic = format!("t/{n:04}");
        subscriber.expect(|p| matches!(p, Packet::Publish(p) if p.topic == topic)).await;
    }
}

#[tokio::test]
async fn retained_messages_over_the_limit_are_delivered_and_counted() {
    let stage = Stage::with(|config| config.limits.retained_messages = 1).await;
    let mut client = stage.connect(Version::V5, "c").await;
    client.subscribe("#", Qos::AtMostOnce).await;
    for topic in ["a", "b"] {
        client.send(&Packet::Publish(Publish { retain: true, ..Publish::new(topic, b"x") })).await;
        client.expect(|p| matches!(p, Packet::Publish(p) if p.topic == topic)).await;
    }
    stage.metric("drover_ingress_messages_dropped_total{reason=\"retained_full\"} 1").await;
}

#[tokio::test]
async fn of_clients_that_share_a_subscription_one_gets_each_message() {
    let stage = Stage::new().await;
    let mut members = Vec::new();
    for id in ["a", "b"] {
        let mut member = stage.connect(Version::V5, id).await;
        member.subscribe("$share/g/t/+", Qos::AtLeastOnce).await;
        members.push(member);
    }
    let mut publisher = stage.connect(Version::V311, "p").await;
    for id in 1..=10 {
        publisher.publish(id, "t/x", &id.to_string()).await;
    }
    publisher.expect_acks(1..=10).await;
    for (first, member) in [1, 2].into_iter().zip(&mut members) {
        for id in (first..=10).step_by(2) {
            assert_eq!(member.message().await, id.to_string());
        }
    }
}

#[tokio::test]
async fn what_a_member_of_a_shared_subscription_did_not_acknowledge_goes_to_another() {
    let stage = Stage::new().await;
    let (mut first, _) = stage.resume("a").await;
    first.subscribe("$share/g/t", Qos::AtLeastOnce).await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    for id in 1..=3 {
        publisher.publish(id, "t", &id.to_string()).await;
    }
    publisher.expect_acks(1..=3).await;
    assert_eq!(first.message().await, "1");
    first.expect(|p| matches!(p, Packet::Publish(p) if p.payload == b"2")).await;
    let mut second = stage.connect(Version::V5, "b").await;
    second.subscribe("$share/g/t", Qos::AtLeastOnce).await;
    first.send(&Packet::Disconnect(drover_mqtt::Disconnect::new(ReasonCode::Success))).await;
    assert_eq!([second.message().await, second.message().await], ["2", "3"]);
    publisher.publish(4, "t", "4").await;
    assert_eq!(second.message().await, "4", "the absent is passed over");
    let connect = Connect { clean_start: false, ..Connect::new(Version::V5, "b") };
    drop(second);
    stage.reports(5).await;
    publisher.publish(5, "t", "5").await;
    publisher.expect_acks([4, 5]).await;
    let mut gone = stage.open(Version::V5).await;
    gone.send(&Packet::Connect(connect)).await;
    gone.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.session_present)).await;
    let (mut first, present) = stage.resume("a").await;
    assert!(present);
    assert_eq!(first.message().await, "5", "nobody else is left");
}
