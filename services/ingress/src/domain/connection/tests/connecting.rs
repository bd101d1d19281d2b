//! From CONNECT to CONNACK: what waits, who is refused and in which words.

use super::*;
use crate::domain::bucket::Rate;
use crate::domain::quotas::Rates;

#[test]
fn packets_behind_connect_wait_for_authentication_and_then_run_in_order() {
    for version in BOTH {
        let mut client = Client::new(version);
        encode(&Packet::Connect(Connect::new(version, "c")), version, &mut client.input).expect("valid");
        encode(&Packet::Publish(qos1(1, "ok/a")), version, &mut client.input).expect("valid");
        client.publish(2, "ok/a");
        assert!(matches!(client.effects[..], [Effect::Authenticate(_)]));
        assert!(client.connection.wants_bytes(BEHIND_CONNECT_BYTES_MAX - 1));
        assert!(!client.connection.wants_bytes(BEHIND_CONNECT_BYTES_MAX), "bounded");
        client.admit();
        assert_eq!(client.published(), [1, 2]);
        assert_eq!(client.output(), ["CONNACK 0x00 false"]);
    }
}

#[test]
fn a_connection_begins_with_one_connect() {
    // [MQTT-3.1.0-1]
    let mut client = Client::new(Version::V5);
    client.send(&Packet::PingReq);
    assert!(client.closed().is_some() && client.output().is_empty());
    // [MQTT-3.1.0-2]
    for version in BOTH {
        let mut client = Client::connected(version);
        client.send(&Packet::Connect(Connect::new(version, "c")));
        assert_eq!(client.closed().expect("closed").fault, Some(Fault::SecondConnect));
    }
    // [MQTT-3.1.2-2]
    for (level, answer) in [(3, "CONNACK 0x84 false"), (6, "CONNACK 0x84 false")] {
        let version = if level < 5 { Version::V311 } else { Version::V5 };
        let mut client = Client::new(version);
        client.input.put_slice(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 1, b'c']);
        client.go(0);
        assert_eq!(client.output(), [answer]);
        assert!(client.closed().is_some());
    }
}

#[test]
fn a_client_without_an_id_gets_one_or_is_refused() {
    // [MQTT-3.1.3-6], [MQTT-3.1.3-7]
    let mut client = Client::new(Version::V5);
    client.send(&Packet::Connect(Connect::new(Version::V5, "")));
    client.admit();
    let bytes = client.connection.output().split();
    let decoded = Decoder::new(Side::Server, Version::V5).decode(&bytes).expect("valid");
    let Some((Packet::ConnAck(ack), _)) = decoded else { panic!("a CONNACK") };
    assert!(ack.properties.assigned_client_id().is_some_and(|id| id.starts_with("auto-")));
    assert_eq!(ack.properties.maximum_qos(), None, "all of them");
    assert_eq!(ack.properties.retain_available(), None);
    assert_eq!(ack.properties.shared_subscription_available(), None);
    assert_eq!(ack.properties.receive_maximum().map(|m| m.get()), Some(LIMITS.receive_maximum));
    // [3.1.1 MQTT-3.1.3-8]
    let mut client = Client::new(Version::V311);
    client.send(&Packet::Connect(Connect { clean_start: false, ..Connect::new(Version::V311, "") }));
    assert_eq!(client.connection.output().to_vec(), [0x20, 2, 0, 2]);
}

#[test]
fn a_refused_connect_says_why_in_the_words_of_its_version() {
    let wrong = || AuthenticateError::Wrong { reason: "no".into() };
    let away = || AuthenticateError::Unavailable { reason: "no".into() };
    let disabled = || AuthenticateError::Refused { reason: "no".into() };
    for (error, v5, v311) in [(wrong(), 0x86, 4), (away(), 0x88, 3), (disabled(), 0x87, 5)] {
        for (version, answer) in [(Version::V5, vec![0x20, 3, 0, v5, 0]), (Version::V311, vec![0x20, 2, 0, v311])] {
            let mut client = Client::new(version);
            client.send(&Packet::Connect(Connect::new(version, "c")));
            client.connection.authenticated(Err(error.clone()));
            client.go(0);
            assert_eq!(client.connection.output().to_vec(), answer, "{error}");
            assert!(client.closed().is_some());
        }
    }
}

#[test]
fn what_cannot_be_promised_is_refused_at_connect() {
    let method = properties(&[Property::AuthenticationMethod("x")]);
    let connect = Connect::new(Version::V5, "c");
    for (connect, reason) in [
        (Connect { properties: method.as_properties(), ..connect }, ReasonCode::BadAuthenticationMethod),
        (Connect { client_id: &"x".repeat(129), ..connect }, ReasonCode::ClientIdNotValid),
    ] {
        let mut client = Client::new(Version::V5);
        client.send(&Packet::Connect(connect));
        assert_eq!(client.output(), [format!("CONNACK {:#04x} false", reason as u8)]);
    }
    let mut client = Client::with_peer(Version::V5, |peer| peer.over_limit = true);
    client.send(&Packet::Connect(connect));
    assert_eq!(client.output(), ["CONNACK 0x97 false"]);
    let mut client = Client::with_peer(Version::V5, |peer| peer.anonymous = false);
    client.send(&Packet::Connect(connect));
    assert_eq!(client.output(), ["CONNACK 0x87 false"]);
}

#[test]
fn a_policy_decides_on_client_id_and_will() {
    let will = WillPacket {
        qos: Qos::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        topic: "secret",
        payload: b"",
    };
    for connect in
        [Connect::new(Version::V5, "somebody-else"), Connect { will: Some(will), ..Connect::new(Version::V5, "c") }]
    {
        let mut client = Client::new(Version::V5);
        client.send(&Packet::Connect(connect));
        client.connection.authenticated(Ok(Arc::new(identity())));
        client.go(0);
        assert_eq!(client.output(), ["CONNACK 0x87 false"]);
    }
}

#[test]
fn a_session_that_cannot_be_had_refuses_the_connect() {
    for (error, code) in [(AttachError::Revoked, "0x88"), (AttachError::TooManySessions { limit: 1 }, "0x97")] {
        let mut client = Client::new(Version::V5);
        client.send(&Packet::Connect(Connect::new(Version::V5, "c")));
        client.connection.authenticated(Ok(Arc::new(identity())));
        client.connection.refused(error);
        assert_eq!(client.output(), [format!("CONNACK {code} false")]);
    }
}

#[test]
fn a_client_of_its_devices_name_has_the_name_once() {
    let mut client = Client::new(Version::V5);
    client.send(&Packet::Connect(Connect::new(Version::V5, "d")));
    client.connection.authenticated(Ok(Arc::new(identity())));
    client.go(0);
    let Some(Effect::Attach(admission)) = client.effects.last() else { panic!("it is admitted") };
    assert!(Arc::ptr_eq(&admission.client.shared(), &admission.identity.device.shared()));
}

#[test]
fn what_an_idle_connection_holds_is_small() {
    for (what, bytes, limit) in
        [("a connection", size_of::<Connection>(), 88), ("one that is admitted", size_of::<Live>(), 80)]
    {
        assert!(bytes <= limit, "{what} has {bytes} bytes, limit is {limit}");
    }
    let mut client = Client::connected(Version::V5);
    client.send(&Packet::PingReq);
    client.output();
    assert!(client.connection.next_effect().is_none());
    assert!(client.connection.is_idle(), "nothing is kept for what is to come");
}

#[test]
fn a_client_that_comes_when_too_many_do_is_told_so_and_nobody_is_asked_about_it() {
    for (version, refusal) in [(Version::V5, "CONNACK 0x9f false"), (Version::V311, "CONNACK 0x88 false")] {
        let quotas = Quotas::new(Rates { connects: Rate::new(1), ..Rates::default() });
        assert_eq!(quotas.admit(0), Ok(()), "somebody else");
        let environment = Environment { limits: LIMITS, random: Arc::new(Zeros), methods: Vec::new(), quotas };
        let mut client = Client::within(version, peer(), environment);
        client.send(&Packet::Connect(Connect::new(version, "c")));
        assert_eq!(client.output(), [refusal]);
        assert!(!client.effects.iter().any(|effect| matches!(effect, Effect::Authenticate(_))));
    }
}
