//! What can be wrong with one packet, and the reason code of MQTT 5 that says so.

use crate::property::Place;
use crate::{PacketType, ReasonCode, Side, Version};

/// Why bytes are not a packet. Nothing after the bad packet can be trusted: the connection has to be closed
/// [MQTT-4.13.1-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("packet has {bytes} bytes, limit is {limit}")]
    PacketTooLarge { bytes: u32, limit: u32 },
    #[error("variable byte integer is not the shortest form of at most 268435455")]
    VarInt,
    #[error("packet type 0 is reserved")]
    ReservedType,
    #[error("a {sender} does not send {packet} in mqtt {version}")]
    Direction { packet: PacketType, sender: Side, version: Version },
    #[error("{packet} has the reserved flags {flags:#06b}")]
    Flags { packet: PacketType, flags: u8 },
    #[error("packet ends within a field")]
    Truncated,
    #[error("packet has {bytes} bytes after its last field")]
    TrailingBytes { bytes: usize },
    #[error("text is not utf-8")]
    NotUtf8,
    #[error("text contains the null character")]
    NullCharacter,
    #[error("qos is 3, limit is 2")]
    Qos,
    #[error("dup is set at qos 0")]
    DupAtQos0,
    #[error("packet identifier is 0")]
    PacketIdZero,
    /// The protocol name is neither `MQTT` nor `MQIsdp`: this is no MQTT client, close without an answer.
    #[error("protocol name is not MQTT")]
    ProtocolName,
    /// MQTT of another version: answer with [`DecodeError::connack_version`], then close [MQTT-3.1.2-2].
    #[error("protocol level is {level}, supported are 4 and 5")]
    ProtocolLevel { level: u8 },
    #[error("connect flags {flags:#010b} are not allowed")]
    ConnectFlags { flags: u8 },
    #[error("connack flags {flags:#010b} are not allowed")]
    ConnAckFlags { flags: u8 },
    #[error("connack return code {code} is reserved")]
    ReturnCode { code: u8 },
    #[error("topic is empty")]
    TopicEmpty,
    #[error("topic name contains a wildcard")]
    TopicWildcard,
    #[error("{packet} has no filter")]
    NoFilter { packet: PacketType },
    #[error("{packet} has no reason code")]
    NoReasonCode { packet: PacketType },
    #[error("subscription options {options:#010b} are not allowed")]
    SubscriptionOptions { options: u8 },
    #[error("no-local is set on a shared subscription")]
    NoLocalShared,
    #[error("reason code {code:#04x} is not allowed in {packet}")]
    ReasonCode { packet: PacketType, code: u8 },
    #[error("property {id:#04x} does not exist")]
    PropertyUnknown { id: u32 },
    #[error("property {id:#04x} is not allowed in {place}")]
    PropertyNotAllowed { id: u8, place: Place },
    #[error("property {id:#04x} appears twice")]
    PropertyTwice { id: u8 },
    #[error("property {id:#04x} has a value that is not allowed")]
    PropertyValue { id: u8 },
    #[error("topic alias is 0")]
    TopicAliasZero,
    #[error("authentication data without an authentication method")]
    AuthenticationDataAlone,
}

impl DecodeError {
    /// The reason code of MQTT 5 to answer with (section 4.13).
    pub fn reason_code(self) -> ReasonCode {
        match self {
            DecodeError::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            DecodeError::ProtocolName | DecodeError::ProtocolLevel { .. } => ReasonCode::UnsupportedProtocolVersion,
            DecodeError::TopicWildcard => ReasonCode::TopicNameInvalid,
            DecodeError::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            DecodeError::VarInt
            | DecodeError::ReservedType
            | DecodeError::Flags { .. }
            | DecodeError::Truncated
            | DecodeError::TrailingBytes { .. }
            | DecodeError::NotUtf8
            | DecodeError::NullCharacter
            | DecodeError::Qos
            | DecodeError::ConnectFlags { .. }
            | DecodeError::ConnAckFlags { .. }
            | DecodeError::ReturnCode { .. }
            | DecodeError::SubscriptionOptions { .. }
            | DecodeError::ReasonCode { .. }
            | DecodeError::PropertyUnknown { .. }
            | DecodeError::PropertyNotAllowed { .. } => ReasonCode::MalformedPacket,
            DecodeError::Direction { .. }
            | DecodeError::DupAtQos0
            | DecodeError::PacketIdZero
            | DecodeError::TopicEmpty
            | DecodeError::NoFilter { .. }
            | DecodeError::NoReasonCode { .. }
            | DecodeError::NoLocalShared
            | DecodeError::PropertyTwice { .. }
            | DecodeError::PropertyValue { .. }
            | DecodeError::AuthenticationDataAlone => ReasonCode::ProtocolError,
        }
    }

    /// The version whose CONNACK a client of an unsupported protocol level understands: up to level 4 the return code
    /// 0x01 of MQTT 3.1.1, above it the reason code 0x84 of MQTT 5. `None` for every other error.
    pub fn connack_version(self) -> Option<Version> {
        let DecodeError::ProtocolLevel { level } = self else { return None };
        Some(if level <= Version::V311.level() { Version::V311 } else { Version::V5 })
    }
}

/// Why a packet cannot be encoded; nothing has been written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("text or binary field has {bytes} bytes, limit is 65535")]
    FieldTooLong { bytes: usize },
    #[error("packet has {bytes} bytes after its fixed header, limit is 268435455")]
    PacketTooLarge { bytes: usize },
    #[error("a publish has a packet identifier exactly at qos 1 and 2")]
    PacketId,
    #[error("mqtt 3.1.1 has no password without a user name")]
    PasswordAlone,
    #[error("auth is no packet of mqtt 3.1.1")]
    AuthInV311,
}
