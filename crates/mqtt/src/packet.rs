//! The fifteen control packets of MQTT 5 section 3, also carrying MQTT 3.1.1.
//!
//! Version-neutral: a packet of MQTT 3.1.1 has empty `properties` and the reason code its return code corresponds to;
//! what MQTT 3.1.1 cannot say is left out when a packet is encoded for it.

use std::fmt;
use std::num::NonZeroU16;

use drover_types::Qos;

use crate::{Filters, Properties, ReasonCode, ReasonCodes, Subscriptions};

/// A packet identifier; never zero [MQTT-2.2.1-3].
pub type PacketId = NonZeroU16;

/// The protocol's version, as the CONNECT says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// The protocol level byte of CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        })
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "client",
            Side::Server => "server",
        })
    }
}

/// Type of a control packet, with the number of its fixed header (section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// All types, in the order of their numbers.
    pub const ALL: [PacketType; 15] = [
        PacketType::Connect,
        PacketType::ConnAck,
        PacketType::Publish,
        PacketType::PubAck,
        PacketType::PubRec,
        PacketType::PubRel,
        PacketType::PubComp,
        PacketType::Subscribe,
        PacketType::SubAck,
        PacketType::Unsubscribe,
        PacketType::UnsubAck,
        PacketType::PingReq,
        PacketType::PingResp,
        PacketType::Disconnect,
        PacketType::Auth,
    ];

    /// The type with this number; zero is reserved.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The name as the specification writes it.
    pub fn name(self) -> &'static str {
        match self {
            PacketType::Connect => "CONNECT",
            PacketType::ConnAck => "CONNACK",
            PacketType::Publish => "PUBLISH",
            PacketType::PubAck => "PUBACK",
            PacketType::PubRec => "PUBREC",
            PacketType::PubRel => "PUBREL",
            PacketType::PubComp => "PUBCOMP",
            PacketType::Subscribe => "SUBSCRIBE",
            PacketType::SubAck => "SUBACK",
            PacketType::Unsubscribe => "UNSUBSCRIBE",
            PacketType::UnsubAck => "UNSUBACK",
            PacketType::PingReq => "PINGREQ",
            PacketType::PingResp => "PINGRESP",
            PacketType::Disconnect => "DISCONNECT",
            PacketType::Auth => "AUTH",
        }
    }

    /// Whether `side` sends such packets in `version` (section 2.1.2, table 2-1).
    pub fn sent_by(self, side: Side, version: Version) -> bool {
        match self {
            PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq => {
                side == Side::Client
            }
            PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
                side == Side::Server
            }
            PacketType::Publish
            | PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp => true,
            PacketType::Disconnect => side == Side::Client || version == Version::V5,
            PacketType::Auth => version == Version::V5,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One control packet; borrows from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// What kind of packet this is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT (section 3.1). Its `Debug` form hides the password.
#[derive(Clone, Copy, PartialEq)]
pub struct Connect<'a> {
    pub version: Version,
    /// "Clean session" in MQTT 3.1.1.
    pub clean_start: bool,
    /// Longest silence between two packets of the client, in seconds; 0 = no limit.
    pub keep_alive_s: u16,
    pub properties: Properties<'a>,
    /// Empty: the server shall assign one. MQTT 3.1.1 allows that only with `clean_start` [3.1.1 MQTT-3.1.3-7].
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    /// A clean CONNECT without keep-alive, will and credentials.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 0,
            properties: Properties::default(),
            client_id,
            will: None,
            user_name: None,
            password: None,
        }
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(|_| "hidden"))
            .finish()
    }
}

/// The message a server publishes when the client is gone (section 3.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Will<'a> {
    pub qos: Qos,
    pub retain: bool,
    pub properties: Properties<'a>,
    pub topic: &'a str,
    pub payload: &'a [u8],
}

/// CONNACK (section 3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnAck<'a> {
    /// False unless `reason` is success [MQTT-3.2.2-6].
    pub session_present: bool,
    /// In MQTT 3.1.1 the reason code that [`ReasonCode::connect_return_code`] maps to the return code.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

/// PUBLISH (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Whether this may be a second delivery; false at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Empty only where a topic alias stands for it.
    pub topic: &'a str,
    /// Present exactly at QoS 1 and 2 [MQTT-2.2.1-2].
    pub packet_id: Option<PacketId>,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// A QoS 0 message without flags and properties.
    pub fn new(topic: &'a str, payload: &'a [u8]) -> Self {
        let properties = Properties::default();
        Self { dup: false, qos: Qos::AtMostOnce, retain: false, topic, packet_id: None, properties, payload }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    /// Success in MQTT 3.1.1, which has no reason codes here.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl Ack<'_> {
    /// An acknowledgement with this reason and no properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Self { packet_id, reason, properties: Properties::default() }
    }
}

/// SUBSCRIBE (section 3.8).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// At least one [MQTT-3.8.3-2].
    pub subscriptions: Subscriptions<'a>,
}

/// One filter of a SUBSCRIBE. The filter's text is UTF-8 and not empty; its wildcards are not checked yet
/// (`drover_types::TopicFilter` does), so that one bad filter can be refused alone in the SUBACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    pub filter: &'a str,
    pub options: SubscriptionOptions,
}

/// Options of one subscription (section 3.8.3.1); MQTT 3.1.1 has only `qos`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// What a subscription of MQTT 3.1.1 means.
    pub fn new(qos: Qos) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::Send }
    }

    /// The options byte as MQTT 5 encodes it.
    pub(crate) fn to_byte(self) -> u8 {
        u8::from(self.qos)
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }

    /// Reads the options byte of MQTT 5; `None` if it is not allowed.
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(Self {
            qos: Qos::try_from(byte & 0b11).ok()?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                3.. => return None,
            },
        })
    }
}

/// Whether retained messages are sent when a subscription is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

/// SUBACK (section 3.9).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubAck<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// One for each subscription, in their order [MQTT-3.8.4-6, MQTT-3.9.3-1].
    pub reasons: ReasonCodes<'a>,
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// At least one [MQTT-3.10.3-2].
    pub filters: Filters<'a>,
}

/// UNSUBACK (section 3.11).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnsubAck<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    /// One for each filter, in their order [MQTT-3.11.3-1]; empty in MQTT 3.1.1.
    pub reasons: ReasonCodes<'a>,
}

/// DISCONNECT (section 3.14).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disconnect<'a> {
    /// Success in MQTT 3.1.1.
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl Disconnect<'_> {
    /// A DISCONNECT with this reason and no properties.
    pub fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: Properties::default() }
    }
}

/// AUTH (section 3.15), MQTT 5 only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}
