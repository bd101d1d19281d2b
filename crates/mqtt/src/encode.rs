//! Packets to bytes. Lengths are computed first, so that nothing is written of a packet that cannot be.

use bytes::BufMut;
use drover_types::Qos;

use crate::decode::reserved_flags;
use crate::list::SUBACK_FAILURE;
use crate::packet::{Ack, ConnAck, Connect, Packet, Publish, Version, Will};
use crate::wire::{VAR_INT_MAX, binary_len, put_binary, put_var_int, var_int_len};
use crate::{EncodeError, Properties, ReasonCode, ReasonCodes, Subscriptions};

/// Appends `packet` as `version` writes it; a CONNECT is written in the version it names itself.
///
/// What MQTT 3.1.1 cannot say (properties, most reason codes, subscription options) is left out there. After an error
/// nothing has been written.
#[inline]
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut impl BufMut) -> Result<(), EncodeError> {
    let remaining = remaining_len(packet, version)?;
    out.put_u8((packet.packet_type() as u8) << 4 | flags(packet));
    put_var_int(out, remaining as u32);
    put_body(packet, version, out);
    Ok(())
}

/// Bytes that [`encode`] appends for `packet`; to be compared with the peer's maximum packet size.
pub fn encoded_len(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    let remaining = remaining_len(packet, version)?;
    Ok(1 + var_int_len(remaining as u32) + remaining)
}

/// Length of everything after the fixed header, checked.
#[inline]
fn remaining_len(packet: &Packet<'_>, version: Version) -> Result<usize, EncodeError> {
    let bytes = match packet {
        Packet::Publish(publish) => publish_len(publish, version)?,
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => ack_len(ack, version),
        Packet::PingReq | Packet::PingResp => 0,
        Packet::Connect(connect) => connect_len(connect)?,
        Packet::ConnAck(ack) => 2 + properties_len(ack.properties, version),
        Packet::Subscribe(packet) => {
            2 + properties_len(packet.properties, version) + packet.subscriptions.encoded_len()
        }
        Packet::SubAck(packet) => 2 + properties_len(packet.properties, version) + packet.reasons.as_bytes().len(),
        Packet::Unsubscribe(packet) => 2 + properties_len(packet.properties, version) + packet.filters.as_bytes().len(),
        Packet::UnsubAck(packet) => match version {
            Version::V311 => 2,
            Version::V5 => 2 + properties_len(packet.properties, version) + packet.reasons.as_bytes().len(),
        },
        Packet::Disconnect(packet) => reason_and_properties_len(packet.reason, packet.properties, version),
        Packet::Auth(_) if version == Version::V311 => return Err(EncodeError::AuthInV311),
        Packet::Auth(packet) => reason_and_properties_len(packet.reason, packet.properties, version),
    };
    if bytes > VAR_INT_MAX as usize { Err(EncodeError::PacketTooLarge { bytes }) } else { Ok(bytes) }
}

/// The flags of the fixed header.
#[inline]
fn flags(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Publish(publish) => u8::from(publish.dup) << 3 | u8::from(publish.qos) << 1 | u8::from(publish.retain),
        other => reserved_flags(other.packet_type()),
    }
}

/// Writes everything after the fixed header; its lengths have been checked.
#[inline]
fn put_body(packet: &Packet<'_>, version: Version, out: &mut impl BufMut) {
    match packet {
        Packet::Publish(publish) => put_publish(publish, version, out),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            out.put_u16(ack.packet_id.get());
            put_reason_and_properties(ack.reason, ack.properties, version, out);
        }
        Packet::PingReq | Packet::PingResp => {}
        Packet::Connect(connect) => put_connect(connect, out),
        Packet::ConnAck(ack) => put_conn_ack(ack, version, out),
        Packet::Subscribe(packet) => {
            out.put_u16(packet.packet_id.get());
            put_properties(packet.properties, version, out);
            put_subscriptions(packet.subscriptions, version, out);
        }
        Packet::SubAck(packet) => {
            out.put_u16(packet.packet_id.get());
            put_properties(packet.properties, version, out);
            put_sub_ack_reasons(packet.reasons, version, out);
        }
        Packet::Unsubscribe(packet) => {
            out.put_u16(packet.packet_id.get());
            put_properties(packet.properties, version, out);
            out.put_slice(packet.filters.as_bytes());
        }
        Packet::UnsubAck(packet) => {
            out.put_u16(packet.packet_id.get());
            if version == Version::V5 {
                put_properties(packet.properties, version, out);
                out.put_slice(packet.reasons.as_bytes());
            }
        }
        Packet::Disconnect(packet) => put_reason_and_properties(packet.reason, packet.properties, version, out),
        Packet::Auth(packet) => put_reason_and_properties(packet.reason, packet.properties, version, out),
    }
}

#[inline]
fn properties_len(properties: Properties<'_>, version: Version) -> usize {
    match version {
        Version::V311 => 0,
        Version::V5 => {
            let bytes = properties.as_bytes().len();
            // Longer lists than a length can say make the packet too large, which is found out with its total.
            var_int_len(bytes.min(VAR_INT_MAX as usize) as u32) + bytes
        }
    }
}

#[inline]
fn put_properties(properties: Properties<'_>, version: Version, out: &mut impl BufMut) {
    if version == Version::V5 {
        put_var_int(out, properties.as_bytes().len() as u32);
        out.put_slice(properties.as_bytes());
    }
}

#[inline]
fn publish_len(publish: &Publish<'_>, version: Version) -> Result<usize, EncodeError> {
    if publish.packet_id.is_some() != (publish.qos != Qos::AtMostOnce) {
        return Err(EncodeError::PacketId); // [MQTT-2.2.1-2, MQTT-2.2.1-3]
    }
    let packet_id = if publish.packet_id.is_some() { 2 } else { 0 };
    let topic = binary_len(publish.topic.as_bytes())?;
    Ok(topic + packet_id + properties_len(publish.properties, version) + publish.payload.len())
}

#[inline]
fn put_publish(publish: &Publish<'_>, version: Version, out: &mut impl BufMut) {
    put_binary(out, publish.topic.as_bytes());
    if let Some(packet_id) = publish.packet_id {
        out.put_u16(packet_id.get());
    }
    put_properties(publish.properties, version, out);
    out.put_slice(publish.payload);
}

#[inline]
fn ack_len(ack: &Ack<'_>, version: Version) -> usize {
    2 + reason_and_properties_len(ack.reason, ack.properties, version)
}

/// Success and no properties are left out, as section 3.4.2.1 allows.
#[inline]
fn reason_and_properties_len(reason: ReasonCode, properties: Properties<'_>, version: Version) -> usize {
    match version {
        Version::V311 => 0,
        Version::V5 if !properties.is_empty() => 1 + properties_len(properties, version),
        Version::V5 => usize::from(reason != ReasonCode::Success),
    }
}

#[inline]
fn put_reason_and_properties(reason: ReasonCode, properties: Properties<'_>, version: Version, out: &mut impl BufMut) {
    if reason_and_properties_len(reason, properties, version) > 0 {
        out.put_u8(reason as u8);
    }
    if !properties.is_empty() {
        put_properties(properties, version, out);
    }
}

fn connect_len(connect: &Connect<'_>) -> Result<usize, EncodeError> {
    let version = connect.version;
    if version == Version::V311 && connect.password.is_some() && connect.user_name.is_none() {
        return Err(EncodeError::PasswordAlone); // [3.1.1 MQTT-3.1.2-22]
    }
    let mut bytes = binary_len(PROTOCOL_NAME)? + 4 + properties_len(connect.properties, version);
    bytes += binary_len(connect.client_id.as_bytes())?;
    if let Some(will) = &connect.will {
        bytes += properties_len(will.properties, version);
        bytes += binary_len(will.topic.as_bytes())? + binary_len(will.payload)?;
    }
    if let Some(user_name) = connect.user_name {
        bytes += binary_len(user_name.as_bytes())?;
    }
    if let Some(password) = connect.password {
        bytes += binary_len(password)?;
    }
    Ok(bytes)
}

/// Protocol name of MQTT 3.1.1 and later [MQTT-3.1.2-1].
const PROTOCOL_NAME: &[u8] = b"MQTT";

fn put_connect(connect: &Connect<'_>, out: &mut impl BufMut) {
    let version = connect.version;
    put_binary(out, PROTOCOL_NAME);
    out.put_u8(version.level());
    out.put_u8(connect_flags(connect));
    out.put_u16(connect.keep_alive_s);
    put_properties(connect.properties, version, out);
    put_binary(out, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        put_will(will, version, out);
    }
    if let Some(user_name) = connect.user_name {
        put_binary(out, user_name.as_bytes());
    }
    if let Some(password) = connect.password {
        put_binary(out, password);
    }
}

fn connect_flags(connect: &Connect<'_>) -> u8 {
    let will = connect.will.map_or(0, |will| 1 << 2 | u8::from(will.qos) << 3 | u8::from(will.retain) << 5);
    u8::from(connect.clean_start) << 1
        | will
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.user_name.is_some()) << 7
}

fn put_will(will: &Will<'_>, version: Version, out: &mut impl BufMut) {
    put_properties(will.properties, version, out);
    put_binary(out, will.topic.as_bytes());
    put_binary(out, will.payload);
}

fn put_conn_ack(ack: &ConnAck<'_>, version: Version, out: &mut impl BufMut) {
    out.put_u8(u8::from(ack.session_present));
    match version {
        Version::V311 => out.put_u8(ack.reason.connect_return_code()),
        Version::V5 => out.put_u8(ack.reason as u8),
    }
    put_properties(ack.properties, version, out);
}

fn put_subscriptions(subscriptions: Subscriptions<'_>, version: Version, out: &mut impl BufMut) {
    for subscription in subscriptions.iter() {
        put_binary(out, subscription.filter.as_bytes());
        match version {
            Version::V311 => out.put_u8(u8::from(subscription.options.qos)),
            Version::V5 => out.put_u8(subscription.options.to_byte()),
        }
    }
}

/// MQTT 3.1.1 has one failure code for all reasons.
fn put_sub_ack_reasons(reasons: ReasonCodes<'_>, version: Version, out: &mut impl BufMut) {
    for reason in reasons.iter() {
        let in_v311 = if reason.is_error() { SUBACK_FAILURE } else { reason as u8 };
        match version {
            Version::V311 => out.put_u8(in_v311),
            Version::V5 => out.put_u8(reason as u8),
        }
    }
}
