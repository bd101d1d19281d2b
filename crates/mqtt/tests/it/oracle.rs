//! Two other implementations read what ours writes and write what ours reads.
//!
//! An oracle echoes: it decodes our bytes with its decoder and encodes the result with its encoder. What our decoder
//! makes of the echo has to be the packet we began with. Inputs an oracle is known to get wrong are left out, each kind
//! by a name of its own, so that the list shrinks when the oracle is mended.

use std::panic::catch_unwind;

use bytes::BytesMut;
use drover_mqtt::{Packet, PacketType, Properties, Property, ReasonCode, Version};
use proptest::prelude::*;
use rumqttd::protocol::Protocol;
use tokio_util::codec::{Decoder, Encoder};

use crate::generate::any_sample;

/// A kind of input an oracle gets wrong: its name, and whether a packet is of that kind.
type Fault = (&'static str, fn(&Packet<'_>, Version) -> bool);

fn rumqttd_echo(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    fn echo(mut protocol: impl Protocol, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut stream = BytesMut::from(bytes);
        let packet = protocol.read_mut(&mut stream, bytes.len()).map_err(|error| format!("read: {error}"))?;
        let mut out = BytesMut::new();
        protocol.write(packet, &mut out).map_err(|error| format!("write: {error}"))?;
        Ok(out.to_vec())
    }
    match version {
        Version::V311 => echo(rumqttd::protocol::v4::V4, bytes),
        Version::V5 => echo(rumqttd::protocol::v5::V5, bytes),
    }
}

fn rmqtt_echo(version: Version, bytes: &[u8]) -> Result<Vec<u8>, String> {
    fn echo<C, P>(mut codec: C, bytes: &[u8]) -> Result<Vec<u8>, String>
    where
        C: Decoder<Item = (P, u32)> + Encoder<P> + Default,
        <C as Decoder>::Error: std::fmt::Debug,
        <C as Encoder<P>>::Error: std::fmt::Debug,
    {
        let mut stream = BytesMut::from(bytes);
        let (packet, _) = codec.decode(&mut stream).map_err(|error| format!("read: {error:?}"))?.ok_or("incomplete")?;
        let mut out = BytesMut::new();
        C::default().encode(packet, &mut out).map_err(|error| format!("write: {error:?}"))?;
        Ok(out.to_vec())
    }
    match version {
        Version::V311 => echo(rmqtt_codec::v3::Codec::default(), bytes),
        Version::V5 => echo(rmqtt_codec::v5::Codec::default(), bytes),
    }
}

/// What `rumqttd::protocol` 0.20 gets wrong.
const RUMQTTD_FAULTS: &[Fault] = &[
    ("v5 panics on CONNACK and UNSUBACK, and has no AUTH", |packet, version| {
        let unread = [PacketType::ConnAck, PacketType::UnsubAck, PacketType::Auth];
        version == Version::V5 && unread.contains(&packet.packet_type())
    }),
    ("a password is read as text, and an empty one is lost", |packet, _| {
        let Packet::Connect(connect) = packet else { return false };
        connect.password.is_some_and(|password| password.is_empty() || std::str::from_utf8(password).is_err())
    }),
    ("v5 wants a property length behind the reason of a DISCONNECT", |packet, version| {
        let Packet::Disconnect(packet) = packet else { return false };
        version == Version::V5 && packet.reason != ReasonCode::Success && packet.properties.is_empty()
    }),
    (
        "v5 counts a byte too many for each subscription identifier, and may take what follows two for payload",
        |packet, _| {
            let Packet::Publish(publish) = packet else { return false };
            publish.properties.iter().filter(|property| matches!(property, Property::SubscriptionId(_))).count() > 1
        },
    ),
    (
        "v5 does not know the reason 0x8c of a DISCONNECT",
        |packet, _| matches!(packet, Packet::Disconnect(packet) if packet.reason == ReasonCode::BadAuthenticationMethod),
    ),
];

/// What `rmqtt-codec` 0.3 gets wrong.
const RMQTT_FAULTS: &[Fault] = &[(
    "an empty client identifier is refused by the codec",
    |packet, _| matches!(packet, Packet::Connect(connect) if connect.client_id.is_empty() && !connect.clean_start),
)];

fn has_fault(faults: &[Fault], packet: &Packet<'_>, version: Version) -> bool {
    faults.iter().any(|(_, is_of_kind)| is_of_kind(packet, version))
}

/// The properties of a packet and of its will.
fn lists<'a>(packet: &Packet<'a>) -> [Properties<'a>; 2] {
    let none = Properties::default();
    match packet {
        Packet::Connect(packet) => [packet.properties, packet.will.map_or(none, |will| will.properties)],
        Packet::ConnAck(packet) => [packet.properties, none],
        Packet::Publish(packet) => [packet.properties, none],
        Packet::PubAck(packet) | Packet::PubRec(packet) | Packet::PubRel(packet) | Packet::PubComp(packet) => {
            [packet.properties, none]
        }
        Packet::Subscribe(packet) => [packet.properties, none],
        Packet::SubAck(packet) => [packet.properties, none],
        Packet::Unsubscribe(packet) => [packet.properties, none],
        Packet::UnsubAck(packet) => [packet.properties, none],
        Packet::Disconnect(packet) => [packet.properties, none],
        Packet::Auth(packet) => [packet.properties, none],
        Packet::PingReq | Packet::PingResp => [none, none],
    }
}

/// The packet without its properties.
fn without_properties<'a>(packet: &Packet<'a>) -> Packet<'a> {
    let mut bare = *packet;
    match &mut bare {
        Packet::Connect(packet) => {
            packet.properties = Properties::default();
            if let Some(will) = &mut packet.will {
                will.properties = Properties::default();
            }
        }
        Packet::ConnAck(packet) => packet.properties = Properties::default(),
        Packet::Publish(packet) => packet.properties = Properties::default(),
        Packet::PubAck(packet) | Packet::PubRec(packet) | Packet::PubRel(packet) | Packet::PubComp(packet) => {
            packet.properties = Properties::default();
        }
        Packet::Subscribe(packet) => packet.properties = Properties::default(),
        Packet::SubAck(packet) => packet.properties = Properties::default(),
        Packet::Unsubscribe(packet) => packet.properties = Properties::default(),
        Packet::UnsubAck(packet) => packet.properties = Properties::default(),
        Packet::Disconnect(packet) => packet.properties = Properties::default(),
        Packet::Auth(packet) => packet.properties = Properties::default(),
        Packet::PingReq | Packet::PingResp => {}
    }
    bare
}

/// Properties in an order that does not matter, without those that say what their absence says.
fn sorted(list: Properties<'_>) -> Vec<Property<'_>> {
    let says_the_default = |property: &Property<'_>| match property {
        Property::SessionExpiry(0) | Property::TopicAliasMaximum(0) | Property::WillDelay(0) => true,
        Property::PayloadFormat(value) | Property::RequestResponseInformation(value) => !value,
        Property::RequestProblemInformation(value)
        | Property::RetainAvailable(value)
        | Property::WildcardSubscriptionAvailable(value)
        | Property::SubscriptionIdAvailable(value)
        | Property::SharedSubscriptionAvailable(value) => *value,
        Property::ReceiveMaximum(value) => value.get() == u16::MAX,
        _ => false,
    };
    let mut properties: Vec<_> = list.iter().filter(|property| !says_the_default(property)).collect();
    properties.sort_by_key(|property| property.id());
    properties
}

/// What two packets that say the same have in common.
fn content<'a>(packet: &Packet<'a>) -> (Packet<'a>, [Vec<Property<'a>>; 2]) {
    (without_properties(packet), lists(packet).map(sorted))
}

/// Both ways of one packet: ours to theirs to ours.
fn agrees(
    echo: fn(Version, &[u8]) -> Result<Vec<u8>, String>,
    faults: &[Fault],
    sample: &crate::generate::Sample,
) -> Result<(), TestCaseError> {
    let (packet, bytes) = (sample.packet(), sample.encoded());
    prop_assume!(!has_fault(faults, &packet, sample.version));
    let echoed = echo(sample.version, &bytes).map_err(TestCaseError::fail)?;
    let (again, taken) = sample.decoder().decode(&echoed)?.expect("complete");
    prop_assert_eq!(content(&again), content(&packet));
    prop_assert_eq!(taken, echoed.len());
    Ok(())
}

/// Where both accept changed bytes, they read the same. An oracle that panics has not accepted them.
fn agrees_on_mutated(
    echo: fn(Version, &[u8]) -> Result<Vec<u8>, String>,
    faults: &[Fault],
    sample: &crate::generate::Sample,
    changes: &[(prop::sample::Index, u8)],
) -> Result<(), TestCaseError> {
    let mut bytes = sample.encoded();
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    let Ok(Some((packet, taken))) = sample.decoder().decode(&bytes) else { return Ok(()) };
    let version = sample.version;
    let named_other = matches!(packet, Packet::Connect(connect) if connect.version != version);
    prop_assume!(!named_other && !has_fault(faults, &packet, version));
    let Ok(Ok(echoed)) = catch_unwind(|| echo(version, &bytes[..taken])) else { return Ok(()) };
    let (again, _) = sample.decoder().decode(&echoed)?.expect("complete");
    prop_assert_eq!(content(&again), content(&packet));
    Ok(())
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3)
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn rumqttd_reads_what_ours_writes_and_writes_what_ours_reads(sample in any_sample()) {
        agrees(rumqttd_echo, RUMQTTD_FAULTS, &sample)?;
    }

    #[test]
    fn rmqtt_reads_what_ours_writes_and_writes_what_ours_reads(sample in any_sample()) {
        agrees(rmqtt_echo, RMQTT_FAULTS, &sample)?;
    }

    #[test]
    fn where_rumqttd_also_accepts_mutated_bytes_it_reads_the_same(sample in any_sample(), changes in changes()) {
        agrees_on_mutated(rumqttd_echo, RUMQTTD_FAULTS, &sample, &changes)?;
    }

    #[test]
    fn where_rmqtt_also_accepts_mutated_bytes_it_reads_the_same(sample in any_sample(), changes in changes()) {
        agrees_on_mutated(rmqtt_echo, RMQTT_FAULTS, &sample, &changes)?;
    }
}
