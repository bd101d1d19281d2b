//! What a client publishes: what is acknowledged, what is refused, what a broken rule costs.

use super::*;

#[test]
fn pubacks_leave_in_order_and_only_for_durable_messages() {
    // [MQTT-4.6.0-2]
    for version in BOTH {
        let mut client = Client::connected(version);
        client.publish(7, "ok/a");
        client.publish(3, "ok/a");
        assert!(client.output().is_empty());
        client.connection.stored(1, at(0));
        assert_eq!(client.output(), ["PUBACK 7 0x00"]);
        client.connection.stored(1, at(0));
        assert_eq!(client.output(), ["PUBACK 3 0x00"]);
    }
}

#[test]
fn after_a_failure_of_the_log_nothing_is_acknowledged() {
    for (version, goodbye) in [(Version::V311, vec![]), (Version::V5, vec!["DISCONNECT 0x89".to_owned()])] {
        let mut client = Client::connected(version);
        client.publish(1, "ok/a");
        client.connection.not_stored();
        client.connection.stored(1, at(0));
        client.go(0);
        assert_eq!(client.output(), goodbye);
        assert_eq!(client.closed().expect("closed").reason, CloseReason::NotStored);
    }
}

#[test]
fn a_forbidden_topic_costs_a_client_of_mqtt_5_one_message_and_one_of_3_1_1_its_connection() {
    let mut client = Client::connected(Version::V5);
    client.publish(1, "ok/a");
    client.publish(2, "secret");
    client.send(&Packet::Publish(Publish::new("secret", b"")));
    assert!(client.output().is_empty(), "in its turn");
    client.connection.stored(1, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00", "PUBACK 2 0x87"]);
    assert_eq!(client.published(), [1]);
    assert!(client.closed().is_none());

    let mut client = Client::connected(Version::V311);
    client.publish(2, "secret");
    assert!(matches!(client.closed().expect("closed").fault, Some(Fault::PublishDenied { .. })));
}

#[test]
fn a_forbidden_topic_may_be_acknowledged_to_a_client_of_3_1_1_and_goes_nowhere() {
    let limits = Limits { acknowledge_denied: true, ..LIMITS };
    let mut client = Client::connected_with(Version::V311, limits);
    client.publish(1, "ok/a");
    client.publish(2, "secret");
    assert!(client.output().is_empty(), "in its turn");
    client.connection.stored(1, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00", "PUBACK 2 0x00"]);
    assert_eq!(client.published(), [1]);
    assert!(client.closed().is_none());
    assert!(client.effects.iter().any(|effect| matches!(effect, Effect::Refused(Fault::PublishDenied { .. }))));
}

#[test]
fn what_breaks_the_rules_of_a_connection_ends_it_with_its_reason() {
    let alias = |n| properties(&[Property::TopicAlias(n)]);
    let (three, two) = (alias(3.try_into().expect("not 0")), alias(2.try_into().expect("not 0")));
    let large = vec![0; LIMITS.payload_bytes_max + 1];
    let table: [(Packet<'_>, &str); 4] = [
        (Packet::Publish(Publish { properties: three.as_properties(), ..qos1(1, "ok/a") }), "0x94"), // [MQTT-3.3.2-9]
        (Packet::Publish(Publish { properties: two.as_properties(), ..qos1(1, "") }), "0x82"),
        (Packet::Publish(Publish { payload: &large, ..qos1(1, "ok/a") }), "0x95"),
        (Packet::Connect(Connect::new(Version::V5, "c")), "0x82"),
    ];
    for (packet, reason) in table {
        let mut client = Client::connected(Version::V5);
        client.send(&packet);
        assert_eq!(client.output(), [format!("DISCONNECT {reason}")], "{packet:?}");
        assert_eq!(client.closed().expect("closed").will, WillFate::Publish); // [MQTT-3.1.2-8]
    }
}

#[test]
fn a_topic_alias_stands_for_the_topic_it_was_set_to() {
    let mut client = Client::connected(Version::V5);
    let alias = properties(&[Property::TopicAlias(2.try_into().expect("not 0"))]);
    for topic in ["ok/a", "", "ok/b", ""] {
        client.send(&Packet::Publish(Publish { properties: alias.as_properties(), ..Publish::new(topic, b"") }));
    }
    let topics: Vec<String> = client
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Publish(publication) => Some(publication.topic.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(topics, ["ok/a", "ok/a", "ok/b", "ok/b"]);
}

#[test]
fn the_receive_maximum_ends_mqtt_5_and_pauses_mqtt_3_1_1() {
    for version in BOTH {
        let mut client = Client::connected(version);
        (1..=LIMITS.receive_maximum).for_each(|id| client.publish(id, "ok/a"));
        assert!(client.closed().is_none());
        client.publish(9, "ok/a");
        match version {
            Version::V5 => assert_eq!(client.output(), ["DISCONNECT 0x93"]),
            Version::V311 => {
                assert!(!client.connection.wants_bytes(0));
                assert_eq!(client.published(), [1, 2, 3]);
                client.connection.stored(1, at(0));
                client.go(0);
                assert_eq!(client.published(), [1, 2, 3, 9]);
            }
        }
    }
}
