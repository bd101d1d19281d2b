//! What a client publishes: what is acknowledged, what is refused, what a broken rule costs.

use super::*;
use crate::domain::bucket::Rate;
use crate::domain::quotas::Rates;

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
fn a_client_that_only_says_it_is_there_keeps_no_room_for_messages() {
    let mut client = Client::connected(Version::V5);
    let keeps = |client: &mut Client| client.connection.live().expect("it is there").inbound.is_some();
    assert!(!keeps(&mut client));
    client.publish(1, "ok/a");
    client.send(&Packet::PingReq);
    assert!(keeps(&mut client), "one waits");
    client.connection.stored(1, at(0));
    client.send(&Packet::PingReq);
    assert!(!keeps(&mut client));
    client.output();
    client.publish(1, "ok/a");
    client.connection.stored(1, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00"]);
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

/// A connected client whose device may publish so many messages a second.
fn limited(version: Version, per_second: u32) -> Client {
    let quotas = Quotas::new(Rates { device_messages: Rate::new(per_second), ..Rates::default() });
    let environment = Environment { limits: LIMITS, random: Arc::new(Zeros), methods: Vec::new(), quotas };
    let mut client = Client::within(version, peer(), environment);
    client.send(&Packet::Connect(Connect::new(version, "c")));
    client.admit();
    client.output();
    client
}

#[test]
fn what_is_over_a_quota_is_refused_in_its_turn_where_the_client_can_be_told() {
    let mut client = limited(Version::V5, 2);
    (1..=3).for_each(|id| client.publish(id, "ok/a"));
    client.connection.stored(2, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00", "PUBACK 2 0x00", "PUBACK 3 0x97"]);
    assert_eq!(client.published(), [1, 2]);
    assert!(client.closed().is_none());
}

#[test]
fn a_message_in_doubt_is_taken_whatever_the_quota_for_refused_it_would_be_taken_twice() {
    let mut client = limited(Version::V5, 1);
    client.send(&Packet::Publish(qos2(1, "ok/a"))); // the log may have it when its connection ends
    let quotas = Quotas::new(Rates { device_messages: Rate::new(1), ..Rates::default() });
    let device = DeviceId::new("d").expect("valid");
    assert_eq!(quotas.take(&TenantId::default_tenant(), &device, 0), Ok(()), "nothing is left");
    let environment = Environment { limits: LIMITS, random: Arc::new(Zeros), methods: Vec::new(), quotas };
    let mut client = Client { session: client.session, ..Client::within(Version::V5, peer(), environment) };
    client.send(&Packet::Connect(Connect { clean_start: false, ..Connect::new(Version::V5, "c") }));
    client.connection.authenticated(Ok(Arc::new(identity())));
    client.go(0);
    client.attach(true);
    client.output();
    client.send(&Packet::Publish(qos2(2, "ok/a")));
    client.send(&Packet::Publish(Publish { dup: true, ..qos2(1, "ok/a") }));
    assert_eq!(client.output(), ["PUBREC 2 0x97"]);
    assert_eq!(client.published(), [1]);
}

#[test]
fn a_client_that_cannot_be_told_is_not_read_until_the_time_of_its_next_message_has_come() {
    for version in BOTH {
        let mut client = limited(version, 2);
        for _ in 0..3 {
            client.send(&Packet::Publish(Publish::new("ok/a", b"")));
        }
        let delayed = |client: &Client| client.effects.iter().filter(|e| matches!(e, Effect::Delayed)).count();
        assert_eq!((client.published().len(), delayed(&client)), (2, 1), "the third one is not read yet");
        assert!(!client.connection.wants_bytes(0));
        assert_eq!(client.connection.deadline_ms(), Some(500));
        for ms in [499, 500] {
            client.connection.tick(at(ms));
            client.go(ms);
            assert_eq!(client.published().len(), if ms < 500 { 2 } else { 3 });
        }
        assert!(client.closed().is_none());
    }
    let mut client = limited(Version::V311, 1);
    client.publish(1, "ok/a");
    client.publish(2, "ok/a");
    assert_eq!(client.published(), [1], "at QoS 1 as well, MQTT 3.1.1 has no word for it");
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
