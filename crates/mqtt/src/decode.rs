//! Bytes to packets.

use drover_types::Qos;

use crate::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, Side, SubAck, Subscribe, UnsubAck,
    Unsubscribe, Version, Will,
};
use crate::property::{Place, Properties};
use crate::wire::{Reader, VAR_INT_MAX, var_int, var_int_len};
use crate::{DecodeError, Filters, ReasonCode, ReasonCodes, Subscriptions};

/// Longest fixed header: type and flags, then four bytes of remaining length.
const FIXED_HEADER_BYTES_MAX: u32 = 5;

/// Reads the packets one side sends. Has no state between packets; change `version` when a CONNECT has said it.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Whose packets these are; those the other side sends are refused.
    pub sender: Side,
    /// The version agreed upon. A CONNECT is read in the version it names itself.
    pub version: Version,
    /// Largest packet accepted, in bytes, fixed header included; checked before the packet's body is there.
    pub packet_bytes_max: u32,
}

impl Decoder {
    /// A decoder without a limit other than the protocol's own.
    pub fn new(sender: Side, version: Version) -> Self {
        Self { sender, version, packet_bytes_max: VAR_INT_MAX + FIXED_HEADER_BYTES_MAX }
    }

    /// Reads the packet at the front of `bytes`, and says how many bytes it takes.
    ///
    /// `None` means that more bytes are needed. After an error the connection has to be closed.
    #[inline]
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
        let Some(header) = self.header(bytes)? else { return Ok(None) };
        let Some(body) = bytes.get(header.bytes..header.packet_bytes) else { return Ok(None) };
        let mut reader = Reader::new(body);
        let packet = self.body(header, &mut reader)?;
        if !reader.is_empty() {
            return Err(DecodeError::TrailingBytes { bytes: reader.rest().len() });
        }
        Ok(Some((packet, header.packet_bytes)))
    }

    /// Length in bytes of the packet at the front of `bytes`, as soon as its fixed header is there; so that a caller
    /// knows how much to wait for.
    pub fn packet_len(&self, bytes: &[u8]) -> Result<Option<usize>, DecodeError> {
        Ok(self.header(bytes)?.map(|header| header.packet_bytes))
    }

    /// Reads the fixed header (section 2.1) and refuses what needs no body to be refused.
    #[inline]
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let packet = PacketType::from_number(first >> 4).ok_or(DecodeError::ReservedType)?;
        let flags = first & 0b1111;
        if !packet.sent_by(self.sender, self.version) {
            return Err(DecodeError::Direction { packet, sender: self.sender, version: self.version });
        }
        if packet != PacketType::Publish && flags != reserved_flags(packet) {
            return Err(DecodeError::Flags { packet, flags }); // [MQTT-2.1.3-1]
        }
        let Some((remaining, length_bytes)) = var_int(rest)? else { return Ok(None) };
        if self.version == Version::V5 && length_bytes != var_int_len(remaining) {
            return Err(DecodeError::VarInt); // [MQTT-1.5.5-1]; 3.1.1 does not ask for the shortest form
        }
        let packet_bytes = remaining + 1 + length_bytes as u32;
        if packet_bytes > self.packet_bytes_max {
            return Err(DecodeError::PacketTooLarge { bytes: packet_bytes, limit: self.packet_bytes_max });
        }
        Ok(Some(Header { packet, flags, bytes: 1 + length_bytes, packet_bytes: packet_bytes as usize }))
    }

    #[inline]
    fn body<'a>(&self, header: Header, reader: &mut Reader<'a>) -> Result<Packet<'a>, DecodeError> {
        let version = self.version;
        Ok(match header.packet {
            PacketType::Publish => Packet::Publish(publish(header.flags, reader, self)?),
            PacketType::PubAck => Packet::PubAck(ack(header.packet, reader, version)?),
            PacketType::PubRec => Packet::PubRec(ack(header.packet, reader, version)?),
            PacketType::PubRel => Packet::PubRel(ack(header.packet, reader, version)?),
            PacketType::PubComp => Packet::PubComp(ack(header.packet, reader, version)?),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Subscribe => Packet::Subscribe(subscribe(reader, version)?),
            PacketType::SubAck => Packet::SubAck(sub_ack(reader, version)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(reader, version)?),
            PacketType::UnsubAck => Packet::UnsubAck(unsub_ack(reader, version)?),
            PacketType::Connect => Packet::Connect(connect(reader)?),
            PacketType::ConnAck => Packet::ConnAck(conn_ack(reader, version)?),
            PacketType::Disconnect => Packet::Disconnect(disconnect(reader, self)?),
            PacketType::Auth => {
                let (reason, properties) = reason_and_properties(header.packet, reader, version)?;
                Packet::Auth(Auth { reason, properties })
            }
        })
    }
}

/// A decoded fixed header.
#[derive(Clone, Copy)]
struct Header {
    packet: PacketType,
    flags: u8,
    /// Length of the fixed header itself.
    bytes: usize,
    /// Length of the whole packet.
    packet_bytes: usize,
}

/// The flags of the fixed header of every packet but PUBLISH (table 2-2).
pub(crate) fn reserved_flags(packet: PacketType) -> u8 {
    match packet {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        PacketType::Connect
        | PacketType::ConnAck
        | PacketType::Publish
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubComp
        | PacketType::SubAck
        | PacketType::UnsubAck
        | PacketType::PingReq
        | PacketType::PingResp
        | PacketType::Disconnect
        | PacketType::Auth => 0,
    }
}

/// The properties of `place`; MQTT 3.1.1 has none.
#[inline]
fn properties<'a>(reader: &mut Reader<'a>, place: Place, version: Version) -> Result<Properties<'a>, DecodeError> {
    match version {
        Version::V311 => Ok(Properties::default()),
        Version::V5 => Properties::read(reader, place),
    }
}

#[inline]
fn publish<'a>(flags: u8, reader: &mut Reader<'a>, decoder: &Decoder) -> Result<Publish<'a>, DecodeError> {
    let qos = Qos::try_from(flags >> 1 & 0b11).map_err(|_| DecodeError::Qos)?; // [MQTT-3.3.1-4]
    let (dup, retain) = (flags & 0b1000 != 0, flags & 1 != 0);
    if dup && qos == Qos::AtMostOnce {
        return Err(DecodeError::DupAtQos0); // [MQTT-3.3.1-2]
    }
    let topic = reader.text()?;
    // Without an early exit the compiler compares many bytes at once.
    if topic.bytes().fold(false, |found, byte| found | matches!(byte, b'+' | b'#')) {
        return Err(DecodeError::TopicWildcard); // [MQTT-3.3.2-2]
    }
    let packet_id = match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce | Qos::ExactlyOnce => Some(reader.packet_id()?),
    };
    let place = Place::Packet(PacketType::Publish);
    let properties = properties(reader, place, decoder.version)?;
    if topic.is_empty() && properties.topic_alias().is_none() {
        return Err(DecodeError::TopicEmpty); // [MQTT-4.7.3-1] and section 3.3.2.1
    }
    if decoder.sender == Side::Client && properties.subscription_ids().next().is_some() {
        let id = SUBSCRIPTION_ID; // [MQTT-3.3.4-6]
        return Err(DecodeError::PropertyNotAllowed { id, place });
    }
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() })
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP: success and no properties may be left out (section 3.4.2.1).
#[inline]
fn ack<'a>(packet: PacketType, reader: &mut Reader<'a>, version: Version) -> Result<Ack<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    let (reason, properties) = reason_and_properties(packet, reader, version)?;
    Ok(Ack { packet_id, reason, properties })
}

/// A reason code and properties at the end of a packet, where both, or the properties, may be left out.
#[inline]
fn reason_and_properties<'a>(
    packet: PacketType,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
    if version == Version::V311 || reader.is_empty() {
        return Ok((ReasonCode::Success, Properties::default()));
    }
    let reason = reason(packet, reader)?;
    if reader.is_empty() {
        return Ok((reason, Properties::default()));
    }
    Ok((reason, Properties::read(reader, Place::Packet(packet))?))
}

fn reason(packet: PacketType, reader: &mut Reader<'_>) -> Result<ReasonCode, DecodeError> {
    let code = reader.u8()?;
    match ReasonCode::try_from(code) {
        Ok(reason) if reason.allowed_in(packet) => Ok(reason),
        Ok(_) | Err(_) => Err(DecodeError::ReasonCode { packet, code }),
    }
}

fn subscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
    Ok(Subscribe {
        packet_id: reader.packet_id()?,
        properties: properties(reader, Place::Packet(PacketType::Subscribe), version)?,
        subscriptions: Subscriptions::read(reader, version)?,
    })
}

fn sub_ack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<SubAck<'a>, DecodeError> {
    Ok(SubAck {
        packet_id: reader.packet_id()?,
        properties: properties(reader, Place::Packet(PacketType::SubAck), version)?,
        reasons: ReasonCodes::read(reader, PacketType::SubAck, version)?,
    })
}

fn unsubscribe<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Unsubscribe<'a>, DecodeError> {
    Ok(Unsubscribe {
        packet_id: reader.packet_id()?,
        properties: properties(reader, Place::Packet(PacketType::Unsubscribe), version)?,
        filters: Filters::read(reader)?,
    })
}

fn unsub_ack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<UnsubAck<'a>, DecodeError> {
    let packet_id = reader.packet_id()?;
    Ok(match version {
        Version::V311 => UnsubAck { packet_id, properties: Properties::default(), reasons: ReasonCodes::default() },
        Version::V5 => UnsubAck {
            packet_id,
            properties: Properties::read(reader, Place::Packet(PacketType::UnsubAck))?,
            reasons: ReasonCodes::read(reader, PacketType::UnsubAck, version)?,
        },
    })
}

/// The flags of a CONNECT (section 3.1.2.3).
#[derive(Clone, Copy)]
struct ConnectFlags(u8);

impl ConnectFlags {
    fn has(self, bit: u8) -> bool {
        self.0 & 1 << bit != 0
    }

    /// The flags, if their combination is allowed in `version`.
    fn check(self, version: Version) -> Result<Self, DecodeError> {
        let will_fields = self.0 & 0b0011_1000;
        let refused = self.has(0) // [MQTT-3.1.2-3]
            || !self.has(2) && will_fields != 0 // [MQTT-3.1.2-11, MQTT-3.1.2-13]
            || self.0 >> 3 & 0b11 == 3 // [MQTT-3.1.2-12]
            || version == Version::V311 && self.has(6) && !self.has(7); // [3.1.1 MQTT-3.1.2-22]
        if refused { Err(DecodeError::ConnectFlags { flags: self.0 }) } else { Ok(self) }
    }
}

fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    let version = protocol(reader)?;
    let flags = ConnectFlags(reader.u8()?).check(version)?;
    let keep_alive_s = reader.u16()?;
    let properties = properties(reader, Place::Packet(PacketType::Connect), version)?;
    let client_id = reader.text()?;
    let will = if flags.has(2) { Some(will(flags, reader, version)?) } else { None };
    let user_name = if flags.has(7) { Some(reader.text()?) } else { None };
    let password = if flags.has(6) { Some(reader.binary()?) } else { None };
    let clean_start = flags.has(1);
    Ok(Connect { version, clean_start, keep_alive_s, properties, client_id, will, user_name, password })
}

/// The version that a CONNECT at the front of `bytes` names, whatever else is wrong with it; so that it can be answered.
pub fn claimed_version(bytes: &[u8]) -> Option<Version> {
    let (&first, rest) = bytes.split_first()?;
    let is_connect = PacketType::from_number(first >> 4) == Some(PacketType::Connect);
    let (_, length_bytes) = var_int(rest).ok().flatten()?;
    let mut reader = Reader::new(rest.get(length_bytes..)?);
    if is_connect { protocol(&mut reader).ok() } else { None }
}

/// Protocol name and level (sections 3.1.2.1 and 3.1.2.2). `MQIsdp` is the name up to MQTT 3.1.
fn protocol(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    match reader.binary()? {
        b"MQTT" => match reader.u8()? {
            4 => Ok(Version::V311),
            5 => Ok(Version::V5),
            level => Err(DecodeError::ProtocolLevel { level }),
        },
        b"MQIsdp" => Err(DecodeError::ProtocolLevel { level: reader.u8()? }),
        _ => Err(DecodeError::ProtocolName),
    }
}

fn will<'a>(flags: ConnectFlags, reader: &mut Reader<'a>, version: Version) -> Result<Will<'a>, DecodeError> {
    let qos = Qos::try_from(flags.0 >> 3 & 0b11).map_err(|_| DecodeError::Qos)?;
    let properties = properties(reader, Place::Will, version)?;
    let topic = reader.text()?;
    if topic.is_empty() {
        return Err(DecodeError::TopicEmpty); // [MQTT-4.7.3-1]
    }
    if topic.contains(['+', '#']) {
        return Err(DecodeError::TopicWildcard); // [MQTT-4.7.1-1]
    }
    Ok(Will { qos, retain: flags.has(5), properties, topic, payload: reader.binary()? })
}

fn conn_ack<'a>(reader: &mut Reader<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
    let flags = reader.u8()?;
    if flags > 1 {
        return Err(DecodeError::ConnAckFlags { flags }); // [MQTT-3.2.2-1]
    }
    let reason = match version {
        Version::V311 => {
            let code = reader.u8()?;
            ReasonCode::from_connect_return_code(code).ok_or(DecodeError::ReturnCode { code })?
        }
        Version::V5 => reason(PacketType::ConnAck, reader)?,
    };
    if flags == 1 && reason.is_error() {
        return Err(DecodeError::ConnAckFlags { flags }); // [MQTT-3.2.2-6]
    }
    let properties = properties(reader, Place::Packet(PacketType::ConnAck), version)?;
    Ok(ConnAck { session_present: flags == 1, reason, properties })
}

fn disconnect<'a>(reader: &mut Reader<'a>, decoder: &Decoder) -> Result<Disconnect<'a>, DecodeError> {
    let packet = PacketType::Disconnect;
    let (reason, properties) = reason_and_properties(packet, reader, decoder.version)?;
    let refused = match decoder.sender {
        Side::Client => properties.server_reference().map(|_| SERVER_REFERENCE),
        Side::Server => properties.session_expiry_s().map(|_| SESSION_EXPIRY), // [MQTT-3.14.2-2]
    };
    match refused {
        Some(id) => Err(DecodeError::PropertyNotAllowed { id, place: Place::Packet(packet) }),
        None => Ok(Disconnect { reason, properties }),
    }
}

// Identifiers of the properties that only one side may send in a packet both may send.
const SUBSCRIPTION_ID: u8 = 0x0b;
const SESSION_EXPIRY: u8 = 0x11;
const SERVER_REFERENCE: u8 = 0x1c;
