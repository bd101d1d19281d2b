//! The client against a server played by hand.

use std::num::NonZeroU16;

use drover_mqtt::client::{Client, ClientError, ClientOptions, Event, SendError};
use drover_mqtt::{
    Ack, ConnAck, Decoder, Packet, PacketId, Properties, Property, PropertyList, Publish, ReasonCode, Side, Version,
    encode,
};
use drover_types::Qos;

/// A client, and what it has sent and told.
struct Peer {
    client: Client,
    version: Version,
    out: Vec<u8>,
    told: Vec<String>,
    now_ms: u64,
}

impl Peer {
    fn new(version: Version, window: u16, keep_alive_s: u16) -> Self {
        let mut options = ClientOptions::new(version, "c");
        options.window = NonZeroU16::new(window).expect("not zero");
        options.keep_alive_s = keep_alive_s;
        Self { client: Client::new(options), version, out: Vec::new(), told: Vec::new(), now_ms: 0 }
    }

    /// A client that has been accepted.
    fn connected(version: Version, window: u16, keep_alive_s: u16) -> Self {
        let mut peer = Self::new(version, window, keep_alive_s);
        peer.connect(Properties::default());
        peer
    }

    fn connect(&mut self, properties: Properties<'_>) {
        self.client.open(self.now_ms, &mut self.out).expect("short fields");
        assert!(self.sent().starts_with(&["CONNECT".to_owned()]));
        let ack = ConnAck { session_present: false, reason: ReasonCode::Success, properties };
        self.server_sends(Packet::ConnAck(ack)).expect("accepted");
    }

    fn server_sends(&mut self, packet: Packet<'_>) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        encode(&packet, self.version, &mut bytes).expect("valid");
        let told = &mut self.told;
        let taken = self.client.receive(&bytes, self.now_ms, &mut self.out, |event| {
            told.push(match event {
                Event::Message(message) => format!("message {}", message.topic),
                Event::Acknowledged { packet_id, reason } => format!("acknowledged {packet_id} {}", reason.name()),
                other => format!("{other:?}"),
            });
        })?;
        assert_eq!(taken, bytes.len());
        Ok(())
    }

    fn publish(&mut self, topic: &str) -> Result<Option<PacketId>, SendError> {
        self.publish_at(Qos::AtLeastOnce, topic)
    }

    fn publish_at(&mut self, qos: Qos, topic: &str) -> Result<Option<PacketId>, SendError> {
        let message = Publish { qos, ..Publish::new(topic, b"x") };
        self.client.publish(&message, self.now_ms, &mut self.out)
    }

    /// What the client has sent since the last call, in short.
    fn sent(&mut self) -> Vec<String> {
        let out = std::mem::take(&mut self.out);
        let (decoder, mut rest, mut sent) = (Decoder::new(Side::Client, self.version), &out[..], Vec::new());
        while let Some((packet, taken)) = decoder.decode(rest).expect("valid") {
            rest = &rest[taken..];
            sent.push(match packet {
                Packet::Publish(message) => {
                    let id = message.packet_id.map_or(0, NonZeroU16::get);
                    format!("PUBLISH {} {id}{}", message.topic, if message.dup { " dup" } else { "" })
                }
                Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                    format!("{} {}", packet.packet_type(), ack.packet_id)
                }
                other => other.packet_type().to_string(),
            });
        }
        assert!(rest.is_empty());
        sent
    }
}

fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not zero")
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack::new(id(packet_id), ReasonCode::Success)
}

#[test]
fn unacknowledged_messages_are_sent_again_in_order_with_dup() {
    for version in [Version::V311, Version::V5] {
        let mut peer = Peer::connected(version, 3, 0);
        for topic in ["a", "b", "c"] {
            peer.publish(topic).expect("fits the window");
        }
        assert_eq!(peer.sent(), ["PUBLISH a 1", "PUBLISH b 2", "PUBLISH c 3"]);
        peer.server_sends(Packet::PubAck(ack(2))).expect("in flight");
        peer.client.lost();
        peer.publish("d").expect("waits for the connection");
        peer.connect(Properties::default());
        assert_eq!(peer.sent(), ["PUBLISH a 1 dup", "PUBLISH c 3 dup", "PUBLISH d 4"]);
        assert_eq!(peer.client.in_flight(), 3);
    }
}

#[test]
fn a_full_window_refuses_and_an_acknowledgement_makes_room() {
    let mut peer = Peer::connected(Version::V5, 2, 0);
    peer.publish("a").expect("room");
    peer.publish("b").expect("room");
    assert_eq!(peer.publish("c"), Err(SendError::WindowFull { in_flight: 2, window: 2 }));
    peer.server_sends(Packet::PubAck(Ack::new(id(1), ReasonCode::QuotaExceeded))).expect("in flight");
    assert_eq!(peer.told.last().map(String::as_str), Some("acknowledged 1 quota exceeded"));
    assert_eq!((peer.client.capacity(), peer.publish("c")), (1, Ok(Some(id(3)))));
}

#[test]
fn a_smaller_receive_maximum_of_the_server_holds_back_redelivery() {
    let mut peer = Peer::connected(Version::V5, 3, 0);
    for topic in ["a", "b", "c"] {
        peer.publish(topic).expect("fits the window");
    }
    peer.sent();
    let mut properties = PropertyList::default();
    properties.push(Property::ReceiveMaximum(id(2))).expect("short");
    peer.connect(properties.as_properties());
    assert_eq!(peer.sent(), ["PUBLISH a 1 dup", "PUBLISH b 2 dup"]);
    peer.server_sends(Packet::PubAck(ack(1))).expect("in flight");
    assert_eq!(peer.sent(), ["PUBLISH c 3 dup"]);
}

#[test]
fn packet_identifiers_in_flight_are_not_used_again() {
    let mut peer = Peer::connected(Version::V311, 2, 0);
    peer.publish("first").expect("room");
    for _ in 0..usize::from(u16::MAX) - 1 {
        let packet_id = peer.publish("next").expect("room").expect("qos 1");
        assert_ne!(packet_id, id(1));
        peer.server_sends(Packet::PubAck(Ack::new(packet_id, ReasonCode::Success))).expect("in flight");
        peer.out.clear();
        peer.told.clear();
    }
    assert_eq!(peer.publish("round"), Ok(Some(id(2))));
}

#[test]
fn a_message_at_qos_2_is_handed_over_once() {
    let mut peer = Peer::connected(Version::V311, 1, 0);
    let message = Publish { qos: Qos::ExactlyOnce, packet_id: Some(id(9)), ..Publish::new("t", b"") };
    let again = Publish { dup: true, ..message };
    for packet in [Packet::Publish(message), Packet::Publish(again), Packet::PubRel(ack(9)), Packet::Publish(message)] {
        peer.server_sends(packet).expect("valid");
    }
    assert_eq!(peer.sent(), ["PUBREC 9", "PUBREC 9", "PUBCOMP 9", "PUBREC 9"]);
    assert_eq!(peer.told[1..], ["message t", "message t"]);
}

#[test]
fn a_message_at_qos_2_is_sent_again_until_received_and_released_until_complete() {
    for version in [Version::V311, Version::V5] {
        let mut peer = Peer::connected(version, 2, 0);
        peer.publish_at(Qos::ExactlyOnce, "a").expect("room");
        peer.publish_at(Qos::ExactlyOnce, "b").expect("room");
        assert_eq!(peer.sent(), ["PUBLISH a 1", "PUBLISH b 2"]);
        peer.server_sends(Packet::PubRec(ack(1))).expect("in flight");
        assert_eq!(peer.sent(), ["PUBREL 1"]);
        peer.client.lost();
        peer.connect(Properties::default());
        assert_eq!(peer.sent(), ["PUBREL 1", "PUBLISH b 2 dup"]);
        assert!(matches!(peer.publish("c"), Err(SendError::WindowFull { .. })), "until PUBCOMP");
        peer.server_sends(Packet::PubComp(ack(1))).expect("in flight");
        peer.server_sends(Packet::PubRec(ack(9))).expect("answered, of a session the client has forgotten");
        assert_eq!(peer.sent(), ["PUBREL 9"]);
        assert_eq!(peer.told.last().map(String::as_str), Some("acknowledged 1 success"));
    }
    let mut peer = Peer::connected(Version::V5, 1, 0);
    peer.publish_at(Qos::ExactlyOnce, "a").expect("room");
    peer.server_sends(Packet::PubRec(Ack::new(id(1), ReasonCode::NotAuthorized))).expect("in flight");
    assert_eq!(peer.told.last().map(String::as_str), Some("acknowledged 1 not authorized"));
    assert_eq!(peer.client.capacity(), 1);
}

#[test]
fn a_message_at_qos_1_is_acknowledged_and_at_qos_0_is_not() {
    let mut peer = Peer::connected(Version::V5, 1, 0);
    peer.server_sends(Packet::Publish(Publish::new("zero", b""))).expect("valid");
    let message = Publish { qos: Qos::AtLeastOnce, packet_id: Some(id(5)), ..Publish::new("one", b"") };
    peer.server_sends(Packet::Publish(message)).expect("valid");
    assert_eq!(peer.sent(), ["PUBACK 5"]);
    assert_eq!(peer.told[1..], ["message zero", "message one"]);
}

#[test]
fn a_silent_connection_is_pinged_and_a_silent_server_is_given_up() {
    let mut peer = Peer::connected(Version::V311, 1, 10);
    peer.sent();
    peer.client.tick(9_999, &mut peer.out).expect("early");
    assert!(peer.out.is_empty());
    assert_eq!(peer.client.deadline_ms(), Some(10_000));
    peer.client.tick(10_000, &mut peer.out).expect("pings");
    assert_eq!(peer.sent(), ["PINGREQ"]);
    peer.client.tick(19_999, &mut peer.out).expect("waits");
    assert_eq!(peer.client.tick(20_000, &mut peer.out), Err(ClientError::Silent { silent_ms: 10_000 }));
    peer.server_sends(Packet::PingResp).expect("late, but there");
    assert_eq!(peer.client.tick(19_999, &mut peer.out), Ok(()));
}

#[test]
fn a_refusal_and_packets_out_of_order_end_the_connection() {
    let mut peer = Peer::new(Version::V5, 1, 0);
    peer.client.open(0, &mut peer.out).expect("short fields");
    assert!(matches!(peer.server_sends(Packet::PingResp), Err(ClientError::Unexpected { .. })));
    let refusal =
        ConnAck { session_present: false, reason: ReasonCode::NotAuthorized, properties: Properties::default() };
    let refused = peer.server_sends(Packet::ConnAck(refusal));
    assert_eq!(refused, Err(ClientError::Refused(ReasonCode::NotAuthorized)));
    assert_eq!(peer.client.publish(&Publish::new("t", b""), 0, &mut peer.out), Err(SendError::NotConnected));
}
