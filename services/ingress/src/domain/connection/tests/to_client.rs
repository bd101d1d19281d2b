//! What is written to the client: messages, aliases, reasons, and nothing larger than it takes.

use super::*;
use crate::domain::connection::publish::PUBLISHES_WAITING_MAX;

#[test]
fn a_message_of_qos_2_to_the_client_takes_both_steps() {
    for version in BOTH {
        let mut client = Client::connected(version);
        let delivery = Delivery { qos: Qos::ExactlyOnce, ..delivery("t", b"x") };
        client.session.offer(delivery.clone()).expect("room");
        client.session.offer(delivery).expect("room");
        client.connection.deliver(at(0));
        assert_eq!(client.output(), ["PUBLISH t Some(1) dup=false", "PUBLISH t Some(2) dup=false"]);
        client.send(&Packet::PubRec(ack(1)));
        assert_eq!(client.output(), ["PUBREL 1 0x00"]); // [MQTT-4.3.3-4]
        let mut client = client.again_with_output();
        assert_eq!(client.output(), ["CONNACK 0x00 true", "PUBREL 1 0x00", "PUBLISH t Some(2) dup=true"]);
        client.send(&Packet::PubComp(ack(1)));
        client.send(&Packet::PubRec(ack(77)));
        let unknown = if version == Version::V5 { "PUBREL 77 0x92" } else { "PUBREL 77 0x00" };
        assert_eq!(client.output(), [unknown]);
        client.send(&Packet::PubAck(ack(2)));
        assert_eq!(client.closed().expect("closed").fault, Some(Fault::Answer { packet_id: ack(2).packet_id }));
    }
}

fn delivery(topic: &str, payload: &[u8]) -> Delivery {
    let mut message = Message::clone(&message(payload.to_vec()));
    message.telemetry.topic = TopicName::new(topic).expect("valid");
    let message = Arc::new(message);
    Delivery { message, qos: Qos::AtMostOnce, retain: false, ids: Box::default(), share: None }
}

#[test]
fn a_client_that_takes_aliases_gets_each_topic_once() {
    // [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-7]
    let connect_with = |maximum| {
        let list = properties(&[Property::TopicAliasMaximum(maximum)]);
        let mut client = Client::new(Version::V5);
        let connect = Connect { properties: list.as_properties(), ..Connect::new(Version::V5, "c") };
        client.send(&Packet::Connect(connect));
        client.admit();
        client.output();
        client
    };
    let told = |client: &mut Client, topic: &str| {
        client.session.offer(delivery(topic, b"x")).expect("room");
        client.connection.deliver(at(0));
        only(client, |packet| match packet {
            Packet::Publish(publish) => (publish.topic.to_owned(), publish.properties.topic_alias().map(|a| a.get())),
            other => panic!("unexpected {other:?}"),
        })
    };
    for (maximum, expected) in [
        (0, [("topic/a", None), ("topic/a", None), ("topic/b", None), ("topic/c", None)]),
        (1, [("topic/a", Some(1)), ("", Some(1)), ("topic/b", None), ("topic/c", None)]),
        (9, [("topic/a", Some(1)), ("", Some(1)), ("topic/b", Some(2)), ("topic/c", None)]),
    ] {
        let mut client = connect_with(maximum);
        let seen = ["topic/a", "topic/a", "topic/b", "topic/c"].map(|topic| told(&mut client, topic));
        assert_eq!(seen, expected.map(|(topic, alias)| (topic.to_owned(), alias)), "at most {maximum}");
    }
}

#[test]
fn nothing_larger_than_the_client_takes_is_sent_to_it() {
    // [MQTT-3.1.2-24], [MQTT-3.1.2-25]: a PUBLISH of 30 bytes, one of 31
    let list = properties(&[Property::MaximumPacketSize(30.try_into().expect("not 0"))]);
    let mut client = Client::new(Version::V5);
    client.send(&Packet::Connect(Connect { properties: list.as_properties(), ..Connect::new(Version::V5, "c") }));
    client.admit();
    client.connection.output().clear();
    for (payload, sent) in [(24, true), (25, false)] {
        client.session.offer(delivery("t", &vec![b'x'; payload])).expect("room");
        client.connection.deliver(at(0));
        client.go(0);
        assert_eq!(client.output().len(), usize::from(sent));
    }
    assert!(matches!(client.effects.last(), Some(Effect::Dropped(Dropped::TooLarge))));
    client.publish(1, &"a/".repeat(32));
    assert_eq!(client.output(), ["PUBACK 1 0x90"], "without words, for want of room [MQTT-3.4.2-2]");
    client.publish(2, "secret/topic");
    assert_eq!(client.output(), ["PUBACK 2 0x87"], "a code that says it all needs no words");
}

#[test]
fn reasons_are_told_in_words_to_those_who_want_them() {
    // [MQTT-3.1.2-29]
    for (asked, told) in [(None, true), (Some(true), true), (Some(false), false)] {
        let list = properties(&asked.map(Property::RequestProblemInformation).into_iter().collect::<Vec<_>>());
        let mut client = Client::new(Version::V5);
        client.send(&Packet::Connect(Connect { properties: list.as_properties(), ..Connect::new(Version::V5, "c") }));
        client.admit();
        client.connection.output().clear();
        client.publish(1, &"a/".repeat(32));
        let reason = only(&mut client, |packet| match packet {
            Packet::PubAck(ack) => ack.properties.reason_string().map(str::to_owned),
            other => panic!("unexpected {other:?}"),
        });
        let expected = "topic name is not valid: topic has 33 levels, limit is 32";
        assert_eq!(reason.as_deref(), told.then_some(expected));
        client.send(&Packet::Connect(Connect::new(Version::V5, "c")));
        let reason = only(&mut client, |packet| match packet {
            Packet::Disconnect(packet) => packet.properties.reason_string().map(str::to_owned),
            other => panic!("unexpected {other:?}"),
        });
        assert_eq!(reason.as_deref(), Some("a second connect"), "always in a DISCONNECT");
    }
}

#[test]
fn while_a_subscriber_has_no_room_nothing_is_acknowledged_and_what_the_client_acknowledges_is_read() {
    let mut client = Client::connected(Version::V311);
    client.connection.withhold(true, at(0));
    [1, 2, 3].into_iter().for_each(|id| client.publish(id, "ok/a"));
    client.stored(&[1, 2, 3]);
    assert!(client.output().is_empty());
    assert!(!client.connection.takes_packets(), "it has sent as much as it may");
    client.session.offer(Delivery { qos: Qos::AtLeastOnce, ..delivery("t", b"x") }).expect("room");
    client.connection.deliver(at(0));
    assert_eq!(client.output(), ["PUBLISH t Some(1) dup=false"]);
    assert!(client.connection.takes_packets());
    client.publish(4, "ok/a");
    client.send(&Packet::PubAck(ack(1)));
    assert!(client.session.depth() == (0, 0) && !client.connection.takes_packets(), "it has nothing to acknowledge");
    client.stored(&[4]);
    assert!(client.output().is_empty());
    client.connection.withhold(false, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00", "PUBACK 2 0x00", "PUBACK 3 0x00", "PUBACK 4 0x00"]);
}

#[test]
fn messages_of_qos_0_take_no_place_behind_acknowledgements_that_are_withheld() {
    let mut client = Client::connected(Version::V5);
    client.connection.withhold(true, at(0));
    client.publish(1, "ok/a");
    client.stored(&[1]);
    for _ in 0..PUBLISHES_WAITING_MAX {
        client.send(&Packet::Publish(Publish::new("ok/a", b"x")));
        client.connection.stored(1, at(0));
    }
    assert!(client.connection.takes_packets());
    client.connection.withhold(false, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00"]);
}
