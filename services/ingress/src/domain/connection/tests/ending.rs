//! How connections end: by silence, goodbye, somebody else, a credential or a drain.

use super::*;

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_a_connection_unless_the_server_has_stopped_to_listen() {
    // [MQTT-3.1.2-22]
    let connect = |version| {
        let mut client = Client::new(version);
        client.send(&Packet::Connect(Connect { keep_alive_s: 10, ..Connect::new(version, "c") }));
        client.admit();
        client.output();
        client
    };
    let mut client = connect(Version::V5);
    client.connection.tick(at(14_999));
    client.go(0);
    assert!(client.closed().is_none());
    client.connection.tick(at(15_000));
    client.go(0);
    assert_eq!(client.output(), ["DISCONNECT 0x8d"]);

    let mut client = connect(Version::V311);
    (1..=LIMITS.receive_maximum).for_each(|id| client.publish(id, "ok/a"));
    client.connection.tick(at(15_000));
    client.connection.stored(3, at(29_000));
    client.connection.tick(at(30_000));
    client.go(30_000);
    assert!(client.closed().is_none(), "what the client sent meanwhile is in the socket");
    client.connection.tick(at(45_000));
    client.go(45_000);
    assert_eq!(client.closed().expect("closed").reason, CloseReason::KeepAlive);
}

#[test]
fn the_longest_keep_alive_is_waited_for_and_without_one_nobody_is_closed_for_silence() {
    // [MQTT-3.1.2-22]: 65,535 s, and half of that again.
    const LONGEST_MS: u64 = 98_302_500;
    for version in [Version::V311, Version::V5] {
        let connect = |keep_alive_s| {
            let mut client = Client::new(version);
            client.send(&Packet::Connect(Connect { keep_alive_s, ..Connect::new(version, "c") }));
            client.admit();
            client.output();
            client
        };
        let mut longest = connect(u16::MAX);
        longest.connection.tick(at(LONGEST_MS - 1));
        longest.go(0);
        assert!(longest.closed().is_none(), "{version:?}");
        longest.connection.tick(at(LONGEST_MS));
        longest.go(0);
        assert_eq!(longest.closed().expect("closed").reason, CloseReason::KeepAlive, "{version:?}");

        let mut without = connect(0);
        assert_eq!(without.connection.deadline_ms(), None);
        without.connection.tick(at(100 * LONGEST_MS));
        without.go(0);
        assert!(without.closed().is_none(), "{version:?}");
    }
}

#[test]
fn nobody_is_waited_for_without_end_before_it_is_known() {
    let mut silent = Client::new(Version::V5);
    silent.connection.tick(at(LIMITS.connect_ms));
    silent.go(0);
    assert!(silent.closed().is_some() && silent.output().is_empty());
    let mut unanswered = Client::new(Version::V5);
    unanswered.send(&Packet::Connect(Connect::new(Version::V5, "c")));
    unanswered.connection.tick(at(LIMITS.connect_ms));
    unanswered.go(0);
    assert_eq!(unanswered.output(), ["CONNACK 0x88 false"]);
}

#[test]
fn a_client_of_mqtt_5_keeps_alive_as_the_server_says() {
    // [MQTT-3.2.2-21], [MQTT-3.1.2-21]
    for (version, asked_s, told_s) in [
        (Version::V5, 120, Some(60)),
        (Version::V5, 0, Some(60)),
        (Version::V5, 60, None),
        (Version::V5, 5, None),
        (Version::V311, 120, None),
    ] {
        let limits = Limits { keep_alive_s_max: 60, ..LIMITS };
        let environment =
            Environment { limits, random: Arc::new(Zeros), methods: Vec::new(), quotas: Quotas::default() };
        let mut client = Client::within(version, peer(), environment);
        client.send(&Packet::Connect(Connect { keep_alive_s: asked_s, ..Connect::new(version, "c") }));
        client.admit();
        let told = only(&mut client, |packet| match packet {
            Packet::ConnAck(ack) => ack.properties.server_keep_alive_s(),
            other => panic!("unexpected {other:?}"),
        });
        assert_eq!(told, told_s, "asked for {asked_s}");
        let in_force_s = told_s.unwrap_or(asked_s);
        assert_eq!(client.connection.deadline_ms(), Some(u64::from(in_force_s) * 1_500));
    }
}

#[test]
fn a_goodbye_of_the_client_decides_on_will_and_session() {
    let expiry = properties(&[Property::SessionExpiry(30)]);
    let goodbye = Disconnect::new(ReasonCode::Success);
    for (disconnect, will) in [
        (goodbye, WillFate::Discard), // [MQTT-3.14.4-3]
        (Disconnect::new(ReasonCode::DisconnectWithWill), WillFate::Publish),
    ] {
        let mut client = Client::connected(Version::V5);
        client.send(&Packet::Disconnect(disconnect));
        let close = client.closed().expect("closed");
        assert_eq!((close.reason, close.will), (CloseReason::Client, will));
    }
    let mut client = Client::connected(Version::V5);
    client.send(&Packet::Disconnect(Disconnect { properties: expiry.as_properties(), ..goodbye }));
    assert_eq!(client.output(), ["DISCONNECT 0x82"], "section 3.14.2.2.2");
}

#[test]
fn those_who_end_a_connection_are_named_in_its_disconnect() {
    let table = [
        (Stop::TakenOver, "0x8e", WillFate::Publish),
        (Stop::Revoked, "0x98", WillFate::Discard),
        (Stop::Drain, "0x8b", WillFate::Publish),
    ];
    for (stop, reason, will) in table {
        let mut client = Client::connected(Version::V5);
        client.connection.stop(stop);
        client.go(0);
        assert_eq!(client.output(), [format!("DISCONNECT {reason}")]);
        assert_eq!(client.closed().expect("closed").will, will);
    }
}

#[test]
fn a_node_that_stops_sends_clients_of_mqtt_5_elsewhere_where_it_knows_of_another() {
    let limits = || Limits { server_reference: Some("b.example.org:8883".into()), ..LIMITS };
    let mut client = Client::connected_with(Version::V5, limits());
    client.connection.stop(Stop::Drain);
    let told = only(&mut client, |packet| match packet {
        Packet::Disconnect(goodbye) => (goodbye.reason, goodbye.properties.server_reference().map(str::to_owned)),
        other => panic!("unexpected {other:?}"),
    });
    assert_eq!(told, (ReasonCode::UseAnotherServer, Some("b.example.org:8883".to_owned())));
    let mut client = Client::connected_with(Version::V311, limits());
    client.connection.stop(Stop::Drain);
    assert!(client.output().is_empty(), "MQTT 3.1.1 knows no DISCONNECT of a server");
    let mut client = Client::connected_with(Version::V5, limits());
    client.connection.stop(Stop::Revoked);
    assert_eq!(client.output(), ["DISCONNECT 0x98"], "it would not be let in elsewhere");
}

#[test]
fn a_connection_ends_with_its_credential_idle_or_not() {
    let connected = |version| {
        let mut client = Client::new(version);
        client.send(&Packet::Connect(Connect { keep_alive_s: 0, ..Connect::new(version, "c") }));
        client.connection.authenticated(Ok(Arc::new(Identity { expires_ms: 5_000, ..identity() })));
        client.go(0);
        client.attach(false);
        client.output();
        client
    };
    let events: [fn(&mut Client, u64); 3] = [
        |client, ms| client.connection.tick(at(ms)),
        |client, ms| client.go(ms),
        |client, ms| client.connection.deliver(at(ms)),
    ];
    for event in events {
        let mut client = connected(Version::V5);
        assert_eq!(client.connection.deadline_ms(), Some(5_000));
        event(&mut client, 4_999);
        client.go(4_999);
        assert!(client.closed().is_none());
        encode(&Packet::Publish(qos1(1, "ok/a")), Version::V5, &mut client.input).expect("valid");
        event(&mut client, 5_000);
        client.go(5_000);
        assert_eq!(client.output(), ["DISCONNECT 0x98"]);
        let close = client.closed().expect("closed");
        assert_eq!((close.reason, close.will), (CloseReason::Revoked, WillFate::Discard));
        assert!(client.published().is_empty(), "nothing is taken after the end");
    }
    let mut client = connected(Version::V311);
    client.connection.tick(at(5_000));
    client.go(5_000);
    assert!(client.closed().is_some() && client.output().is_empty(), "MQTT 3.1.1 knows no DISCONNECT of a server");
}

#[test]
fn a_drain_waits_for_messages_that_are_on_their_way() {
    let mut client = Client::connected(Version::V5);
    client.publish(1, "ok/a");
    client.connection.stop(Stop::Drain);
    client.publish(2, "ok/a");
    assert_eq!(client.published(), [1], "no more is taken");
    client.connection.stored(1, at(0));
    assert_eq!(client.output(), ["PUBACK 1 0x00", "DISCONNECT 0x8b"]);
}

#[test]
fn a_drain_does_not_wait_for_subscribers_that_have_no_room() {
    let mut client = Client::connected(Version::V5);
    [1, 2].into_iter().for_each(|id| client.publish(id, "ok/a"));
    client.connection.withhold(true, at(0));
    client.connection.stored(1, at(0));
    assert!(client.output().is_empty());
    client.connection.stop(Stop::Drain);
    assert_eq!(client.output(), ["PUBACK 1 0x00"]);
    client.connection.stored(1, at(0));
    assert_eq!(client.output(), ["PUBACK 2 0x00", "DISCONNECT 0x8b"]);
}
