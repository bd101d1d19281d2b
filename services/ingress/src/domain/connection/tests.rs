//! The state machine against the specification: one test a group of normative statements, and one for all inputs.

mod connecting;
mod ending;
mod publishing;
mod subscribing;

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
    shadows: true,
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
