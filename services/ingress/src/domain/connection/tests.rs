//! The state machine against the specification: one test a group of normative statements, and one for all inputs.

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use drover_mqtt::{
    Ack, Connect, Decoder, Disconnect, Packet, PacketId, Properties, Property, PropertyList, Publish, ReasonCode, Side,
    Subscribe, Subscription, SubscriptionList, SubscriptionOptions, Version, Will as WillPacket, encode,
};
use drover_types::object::{Effect as Permission, PolicyAction, Statement};
use drover_types::{ClientId, DeviceId, Qos, Random, TenantId};
use proptest::prelude::*;

use super::*;
use crate::domain::authorize::Policy;
use crate::domain::identity::AuthenticateError;
use crate::domain::link::Link;
use crate::domain::message::Publisher;
use crate::domain::sessions::{AttachError, Attached};

struct Zeros;

impl Random for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

const LIMITS: Limits = Limits {
    connect_ms: 10_000,
    payload_bytes_max: 1_000,
    packet_bytes_max: 4_000,
    filters_max: 2,
    receive_maximum: 3,
    session_expiry_s_max: 60,
    topic_alias_max: 2,
};

fn at(ms: u64) -> Now {
    Now { monotonic_ms: ms, unix_ms: ms }
}

/// A client without sockets, and the rest of the node.
struct Client {
    connection: Connection,
    version: Version,
    input: BytesMut,
    effects: Vec<Effect>,
    session: Arc<Session>,
}

impl Client {
    fn new(version: Version) -> Self {
        Self::with_peer(version, |_| ())
    }

    fn with_peer(version: Version, change: impl FnOnce(&mut Peer)) -> Self {
        let mut peer =
            Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None, anonymous: true, over_limit: false };
        change(&mut peer);
        let environment = Arc::new(Environment { limits: LIMITS, random: Arc::new(Zeros) });
        let client = ClientId::new("c").expect("valid");
        Self {
            connection: Connection::new(environment, peer, at(0)),
            version,
            input: BytesMut::new(),
            effects: Vec::new(),
            session: Arc::new(Session::new(1, TenantId::default_tenant(), client)),
        }
    }

    /// Connected, with nothing said yet.
    fn connected(version: Version) -> Self {
        let mut client = Self::new(version);
        client.send(&Packet::Connect(Connect::new(version, "c")));
        client.admit();
        client.output();
        client
    }

    fn send(&mut self, packet: &Packet<'_>) {
        encode(packet, self.version, &mut self.input).expect("valid");
        self.go(0);
    }

    fn go(&mut self, ms: u64) {
        let taken = self.connection.receive(&self.input, at(ms));
        self.input.advance(taken);
        self.effects.extend(std::iter::from_fn(|| self.connection.next_effect()));
    }

    fn admit(&mut self) {
        self.connection.authenticated(Ok(Arc::new(identity())));
        self.go(0);
        self.attach(false);
    }

    fn attach(&mut self, present: bool) {
        self.session.hold(1, Arc::<Link>::default());
        let publisher = Publisher {
            tenant: TenantId::default_tenant(),
            device: DeviceId::new("d").expect("valid"),
            client: ClientId::new("c").expect("valid"),
            epoch: 1,
        };
        self.connection.attached(Attached { session: self.session.clone(), publisher, present }, at(0));
        self.go(0);
    }

    /// What was written, as text, and forgotten.
    fn output(&mut self) -> Vec<String> {
        let bytes = self.connection.output().split();
        let decoder = Decoder::new(Side::Server, self.version);
        let (mut rest, mut packets) = (&bytes[..], Vec::new());
        while let Some((packet, len)) = decoder.decode(rest).expect("the server writes valid packets") {
            packets.push(show(&packet));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        packets
    }

    fn closed(&self) -> Option<&Close> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::Close(close) => Some(close),
            _ => None,
        })
    }

    fn published(&self) -> Vec<u16> {
        let of = |effect: &Effect| match effect {
            Effect::Publish(publication) => Some(publication.packet_id),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    fn publish(&mut self, id: u16, topic: &str) {
        self.send(&Packet::Publish(qos1(id, topic)));
    }
}

fn identity() -> Identity {
    let allow = |actions: &[PolicyAction], resource: &str| Statement {
        effect: Permission::Allow,
        actions: actions.to_vec(),
        resources: vec![resource.to_owned()],
    };
    let statements = [
        allow(&[PolicyAction::Connect], "c"),
        allow(&[PolicyAction::Connect], "${device}"),
        allow(&[PolicyAction::Publish, PolicyAction::Subscribe], "ok/#"),
    ];
    Identity {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("d").expect("valid"),
        credential: String::new(),
        policies: Box::default(),
        policy: Policy::compile(&statements, "d"),
        expires_ms: 0,
        generation: 0,
    }
}

fn qos1(id: u16, topic: &str) -> Publish<'_> {
    Publish { qos: Qos::AtLeastOnce, packet_id: PacketId::new(id), ..Publish::new(topic, b"x") }
}

fn show(packet: &Packet<'_>) -> String {
    match packet {
        Packet::ConnAck(ack) => format!("CONNACK {:#04x} {}", ack.reason as u8, ack.session_present),
        Packet::PubAck(ack) => format!("PUBACK {} {:#04x}", ack.packet_id, ack.reason as u8),
        Packet::SubAck(ack) => format!("SUBACK {:?}", ack.reasons.iter().map(|r| r as u8).collect::<Vec<_>>()),
        Packet::UnsubAck(ack) => format!("UNSUBACK {:?}", ack.reasons.iter().map(|r| r as u8).collect::<Vec<_>>()),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {:#04x}", disconnect.reason as u8),
        Packet::Publish(publish) => format!("PUBLISH {} {:?} dup={}", publish.topic, publish.packet_id, publish.dup),
        other => other.packet_type().name().to_owned(),
    }
}

fn properties(list: &[Property<'_>]) -> PropertyList {
    let mut properties = PropertyList::default();
    list.iter().for_each(|property| properties.push(*property).expect("short"));
    properties
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];

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
    for (level, answer) in [(3, vec![0x20, 2, 0, 1]), (6, vec![0x20, 3, 0, 0x84, 0])] {
        let mut client = Client::new(Version::V5);
        client.input.put_slice(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', level, 2, 0, 0, 0, 1, b'c']);
        client.go(0);
        assert_eq!(client.connection.output().to_vec(), answer);
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
    assert_eq!(ack.properties.maximum_qos(), Some(Qos::AtLeastOnce));
    assert_eq!(ack.properties.retain_available(), Some(false));
    assert_eq!(ack.properties.shared_subscription_available(), Some(false));
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
    let will = WillPacket {
        qos: Qos::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        topic: "ok/w",
        payload: b"gone",
    };
    let method = properties(&[Property::AuthenticationMethod("x")]);
    let connect = Connect::new(Version::V5, "c");
    for (connect, reason) in [
        (Connect { will: Some(WillPacket { qos: Qos::ExactlyOnce, ..will }), ..connect }, ReasonCode::QosNotSupported),
        (Connect { will: Some(WillPacket { retain: true, ..will }), ..connect }, ReasonCode::RetainNotSupported),
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
fn what_breaks_the_rules_of_a_connection_ends_it_with_its_reason() {
    let alias = |n| properties(&[Property::TopicAlias(n)]);
    let (three, two) = (alias(3.try_into().expect("not 0")), alias(2.try_into().expect("not 0")));
    let large = vec![0; LIMITS.payload_bytes_max + 1];
    let table: [(Packet<'_>, &str); 7] = [
        (Packet::Publish(Publish { qos: Qos::ExactlyOnce, ..qos1(1, "ok/a") }), "0x9b"), // [MQTT-3.2.2-11]
        (Packet::Publish(Publish { retain: true, ..qos1(1, "ok/a") }), "0x9a"),          // [MQTT-3.2.2-14]
        (Packet::Publish(Publish { properties: three.as_properties(), ..qos1(1, "ok/a") }), "0x94"), // [MQTT-3.3.2-9]
        (Packet::Publish(Publish { properties: two.as_properties(), ..qos1(1, "") }), "0x82"),
        (Packet::Publish(Publish { payload: &large, ..qos1(1, "ok/a") }), "0x95"),
        (Packet::PubRec(Ack::new(PacketId::MIN, ReasonCode::Success)), "0x82"),
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
fn each_filter_of_a_subscribe_is_granted_or_refused_by_itself() {
    // [MQTT-3.8.4-6], and QoS 2 is granted as 1
    for (version, codes) in
        [(Version::V5, [1, 0x87, 0x8f, 0x9e, 0, 0x97]), (Version::V311, [1, 0x80, 0x80, 0x80, 0, 0x80])]
    {
        let mut client = Client::connected(version);
        let mut list = SubscriptionList::default();
        let filters = [("ok/#", 2), ("secret/#", 1), ("ok/#/x", 1), ("$share/g/ok/a", 1), ("ok/+", 0), ("ok/third", 1)];
        for (filter, qos) in filters {
            let options = SubscriptionOptions::new(Qos::try_from(qos).expect("a qos"));
            list.push(Subscription { filter, options }).expect("short");
        }
        let subscriptions = list.as_subscriptions();
        let packet_id = PacketId::MIN;
        client.send(&Packet::Subscribe(Subscribe { packet_id, properties: Properties::default(), subscriptions }));
        assert!(client.output().is_empty(), "routing has not followed yet");
        client.connection.subscribed(at(0));
        assert_eq!(client.output(), [format!("SUBACK {codes:?}")]);
        let Some(Effect::Subscribe(granted)) = client.effects.last() else { panic!("a subscription") };
        assert_eq!(granted.iter().map(|g| &*g.filter).collect::<Vec<_>>(), ["ok/#", "ok/+"]);
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

/// Any packet a client may send, and some it may not.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let publish = (0u16..6, any::<bool>(), prop_oneof![Just("ok/a"), Just("secret"), Just("")], 0usize..1_200)
        .prop_map(|(id, dup, topic, size)| {
            let payload = vec![1; size];
            let packet_id = PacketId::new(id);
            let qos = if packet_id.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            let dup = dup && packet_id.is_some();
            bytes_of(&Packet::Publish(Publish { qos, dup, packet_id, payload: &payload, ..Publish::new(topic, b"") }))
        });
    prop_oneof![
        8 => publish,
        1 => Just(bytes_of(&Packet::PingReq)),
        1 => Just(bytes_of(&Packet::PubAck(Ack::new(PacketId::MIN, ReasonCode::Success)))),
        1 => Just(bytes_of(&Packet::Connect(Connect::new(Version::V5, "c")))),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

fn bytes_of(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, Version::V5, &mut bytes).expect("valid");
    bytes
}

proptest! {
    #[test]
    fn whatever_arrives_in_whatever_pieces_only_stored_messages_are_acknowledged_in_order(
        packets in proptest::collection::vec(packets(), 0..40),
        cuts in proptest::collection::vec((1usize..500, 0usize..3), 1..60),
    ) {
        let mut client = Client::connected(Version::V5);
        let stream = packets.concat();
        let (mut sent, mut stored, mut acknowledged) = (0, 0, Vec::new());
        for (piece, store) in cuts.iter().cycle().take(200) {
            let end = (sent + piece).min(stream.len());
            if client.connection.wants_bytes(client.input.len()) {
                client.input.put_slice(&stream[sent..end]);
                sent = end;
            }
            client.go(0);
            let store = (*store).min(client.published().len() - stored);
            client.connection.stored(store, at(0));
            stored += store;
            acknowledged.extend(client.output().into_iter().filter(|p| p.starts_with("PUBACK") && p.ends_with("0x00")));
            prop_assert!(client.input.len() <= 500 + LIMITS.packet_bytes_max as usize);
            let expected: Vec<String> = client.published()[..stored]
                .iter()
                .filter(|id| **id > 0)
                .map(|id| format!("PUBACK {id} 0x00"))
                .collect();
            prop_assert!(expected.starts_with(&acknowledged));
            if client.closed().is_none() {
                // A refusal in front holds nothing back that is not itself behind an open message.
                prop_assert_eq!(&expected, &acknowledged);
            }
        }
    }
}
