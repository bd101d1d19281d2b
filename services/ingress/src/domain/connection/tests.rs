//! The state machine against the specification: one test a group of normative statements, and some for all inputs.

mod connecting;
mod corpus;
mod ending;
mod exactly_once;
mod extended;
mod inputs;
mod publishing;
mod subscribing;
mod to_client;

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use drover_mqtt::{
    Ack, Connect, Decoder, Disconnect, Packet, PacketId, Properties, Property, PropertyList, Publish, ReasonCode, Side,
    Subscribe, Subscription, SubscriptionList, SubscriptionOptions, Version, Will as WillPacket, encode,
};
use drover_types::object::{Effect as Permission, PolicyAction, Statement};
use drover_types::{ClientId, DeviceId, Qos, Random, TenantId, TopicName};

use super::*;
use crate::domain::authorize::Policy;
use crate::domain::identity::{AuthenticateError, Proof};
use crate::domain::link::Link;
use crate::domain::message::{Message, Publisher};
use crate::domain::session::tests::message;
use crate::domain::session::{Delivery, RECEIVED_MAX};
use crate::domain::sessions::{AttachError, Attached, Awaited};
use crate::ports::{AuthExchange, AuthMethod, AuthStep};

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
    keep_alive_s_max: 0,
    denied_filters: Vec::new(),
    acknowledge_denied: false,
    shadows: true,
    server_reference: None,
};

fn at(ms: u64) -> Now {
    Now { monotonic_ms: ms, unix_ms: ms }
}

fn peer() -> Peer {
    Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None, anonymous: true, over_limit: false }
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
        let mut peer = peer();
        change(&mut peer);
        let environment =
            Environment { limits: LIMITS, random: Arc::new(Zeros), methods: Vec::new(), quotas: Quotas::default() };
        Self::within(version, peer, environment)
    }

    fn within(version: Version, peer: Peer, environment: Environment) -> Self {
        let environment = Arc::new(environment);
        let client = ClientId::new("c").expect("valid");
        Self {
            connection: Connection::new(environment, peer, at(0)),
            version,
            input: BytesMut::new(),
            effects: Vec::new(),
            session: Arc::new(Session::new(1, TenantId::default_tenant(), client)),
        }
    }

    /// The next connection of this client, to the same session.
    fn again(self) -> Self {
        let mut client = self.again_with_output();
        client.output();
        client
    }

    fn again_with_output(self) -> Self {
        let mut client = Self { session: self.session, ..Self::new(self.version) };
        client.send(&Packet::Connect(Connect { clean_start: false, ..Connect::new(client.version, "c") }));
        client.connection.authenticated(Ok(Arc::new(identity())));
        client.go(0);
        client.attach(true);
        client
    }

    /// What [`crate::domain::node::Node::route`] does when the log has the oldest messages.
    fn stored(&mut self, ids: &[u16]) {
        for id in ids {
            self.session.stored(PacketId::new(*id).expect("not 0"));
        }
        self.connection.stored(ids.len(), at(0));
    }

    /// Connected, with nothing said yet.
    fn connected(version: Version) -> Self {
        Self::connected_with(version, LIMITS)
    }

    fn connected_with(version: Version, limits: Limits) -> Self {
        let environment =
            Environment { limits, random: Arc::new(Zeros), methods: Vec::new(), quotas: Quotas::default() };
        let mut client = Self::within(version, peer(), environment);
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
        self.connection.attached(
            Attached { session: self.session.clone(), publisher, present, awaited: Awaited::default() },
            at(0),
        );
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
        credential: Box::default(),
        policy: Policy::compile(Box::default(), &statements),
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
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!("{} {} {:#04x}", packet.packet_type().name(), ack.packet_id, ack.reason as u8)
        }
        Packet::SubAck(ack) => format!("SUBACK {:?}", ack.reasons.iter().map(|r| r as u8).collect::<Vec<_>>()),
        Packet::UnsubAck(ack) => format!("UNSUBACK {:?}", ack.reasons.iter().map(|r| r as u8).collect::<Vec<_>>()),
        Packet::Disconnect(disconnect) => format!("DISCONNECT {:#04x}", disconnect.reason as u8),
        Packet::Publish(publish) => format!("PUBLISH {} {:?} dup={}", publish.topic, publish.packet_id, publish.dup),
        Packet::Auth(auth) => {
            let data = auth.properties.authentication_data().unwrap_or_default();
            format!("AUTH {:#04x} {}", auth.reason as u8, String::from_utf8_lossy(data))
        }
        other => other.packet_type().name().to_owned(),
    }
}

fn properties(list: &[Property<'_>]) -> PropertyList {
    let mut properties = PropertyList::default();
    list.iter().for_each(|property| properties.push(*property).expect("short"));
    properties
}

fn qos2(id: u16, topic: &str) -> Publish<'_> {
    Publish { qos: Qos::ExactlyOnce, ..qos1(id, topic) }
}

fn ack(id: u16) -> Ack<'static> {
    Ack::new(PacketId::new(id).expect("not 0"), ReasonCode::Success)
}

/// The only packet written, as `see` sees it.
fn only<T>(client: &mut Client, see: impl FnOnce(&Packet<'_>) -> T) -> T {
    let bytes = client.connection.output().split();
    let decoded = Decoder::new(Side::Server, client.version).decode(&bytes).expect("valid");
    let (packet, len) = decoded.expect("a packet");
    assert_eq!(len, bytes.len(), "one packet");
    see(&packet)
}

const BOTH: [Version; 2] = [Version::V311, Version::V5];
