//! Reason codes of MQTT 5 section 2.4, and what MQTT 3.1.1 says instead.

use std::fmt;

use crate::PacketType;
use crate::PacketType::{Auth, ConnAck, Disconnect, PubAck, PubComp, PubRec, PubRel, SubAck, UnsubAck};

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $packets:expr;)*) => {
        /// Why an operation succeeded (below 0x80) or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode { $($(#[$doc])* $name = $code),* }

        impl ReasonCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &[ReasonCode] = &[$(ReasonCode::$name),*];

            /// The code's name as the specification writes it, in lower case.
            pub fn name(self) -> &'static str {
                match self { $(ReasonCode::$name => $text),* }
            }

            /// The packets that may carry this code (table 2-6).
            pub fn packets(self) -> &'static [PacketType] {
                match self { $(ReasonCode::$name => &$packets),* }
            }
        }

        impl TryFrom<u8> for ReasonCode {
            type Error = u8;

            /// The code with this number; a number that is none is handed back.
            fn try_from(code: u8) -> Result<Self, u8> {
                match code {
                    $($code => Ok(ReasonCode::$name),)*
                    unknown => Err(unknown),
                }
            }
        }
    };
}

reason_codes! {
    /// Also "normal disconnection" in DISCONNECT and "granted QoS 0" in SUBACK.
    Success = 0x00, "success", [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth];
    GrantedQos1 = 0x01, "granted qos 1", [SubAck];
    GrantedQos2 = 0x02, "granted qos 2", [SubAck];
    DisconnectWithWill = 0x04, "disconnect with will message", [Disconnect];
    NoMatchingSubscribers = 0x10, "no matching subscribers", [PubAck, PubRec];
    NoSubscriptionExisted = 0x11, "no subscription existed", [UnsubAck];
    ContinueAuthentication = 0x18, "continue authentication", [Auth];
    ReAuthenticate = 0x19, "re-authenticate", [Auth];
    UnspecifiedError = 0x80, "unspecified error", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    MalformedPacket = 0x81, "malformed packet", [ConnAck, Disconnect];
    ProtocolError = 0x82, "protocol error", [ConnAck, Disconnect];
    ImplementationSpecificError = 0x83, "implementation specific error",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version", [ConnAck];
    ClientIdNotValid = 0x85, "client identifier not valid", [ConnAck];
    BadUserNameOrPassword = 0x86, "bad user name or password", [ConnAck];
    NotAuthorized = 0x87, "not authorized", [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    ServerUnavailable = 0x88, "server unavailable", [ConnAck];
    ServerBusy = 0x89, "server busy", [ConnAck, Disconnect];
    Banned = 0x8a, "banned", [ConnAck];
    ServerShuttingDown = 0x8b, "server shutting down", [Disconnect];
    BadAuthenticationMethod = 0x8c, "bad authentication method", [ConnAck, Disconnect];
    KeepAliveTimeout = 0x8d, "keep alive timeout", [Disconnect];
    SessionTakenOver = 0x8e, "session taken over", [Disconnect];
    TopicFilterInvalid = 0x8f, "topic filter invalid", [SubAck, UnsubAck, Disconnect];
    TopicNameInvalid = 0x90, "topic name invalid", [ConnAck, PubAck, PubRec, Disconnect];
    PacketIdInUse = 0x91, "packet identifier in use", [PubAck, PubRec, SubAck, UnsubAck];
    PacketIdNotFound = 0x92, "packet identifier not found", [PubRel, PubComp];
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded", [Disconnect];
    TopicAliasInvalid = 0x94, "topic alias invalid", [Disconnect];
    PacketTooLarge = 0x95, "packet too large", [ConnAck, Disconnect];
    MessageRateTooHigh = 0x96, "message rate too high", [Disconnect];
    QuotaExceeded = 0x97, "quota exceeded", [ConnAck, PubAck, PubRec, SubAck, Disconnect];
    AdministrativeAction = 0x98, "administrative action", [Disconnect];
    PayloadFormatInvalid = 0x99, "payload format invalid", [ConnAck, PubAck, PubRec, Disconnect];
    RetainNotSupported = 0x9a, "retain not supported", [ConnAck, Disconnect];
    QosNotSupported = 0x9b, "qos not supported", [ConnAck, Disconnect];
    UseAnotherServer = 0x9c, "use another server", [ConnAck, Disconnect];
    ServerMoved = 0x9d, "server moved", [ConnAck, Disconnect];
    SharedSubscriptionsNotSupported = 0x9e, "shared subscriptions not supported", [SubAck, Disconnect];
    ConnectionRateExceeded = 0x9f, "connection rate exceeded", [ConnAck, Disconnect];
    MaximumConnectTime = 0xa0, "maximum connect time", [Disconnect];
    SubscriptionIdsNotSupported = 0xa1, "subscription identifiers not supported", [SubAck, Disconnect];
    WildcardSubscriptionsNotSupported = 0xa2, "wildcard subscriptions not supported", [SubAck, Disconnect];
}

impl ReasonCode {
    /// Whether the code states a failure (section 2.4).
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// Whether `packet` may carry this code.
    pub fn allowed_in(self, packet: PacketType) -> bool {
        self.packets().contains(&packet)
    }

    /// The SUBACK code that grants `qos`.
    pub fn granted(qos: drover_types::Qos) -> Self {
        match qos {
            drover_types::Qos::AtMostOnce => ReasonCode::Success,
            drover_types::Qos::AtLeastOnce => ReasonCode::GrantedQos1,
            drover_types::Qos::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }

    /// The return code MQTT 3.1.1 has for this reason in a CONNACK (3.1.1 table 3.1); 0 unless it is an error.
    ///
    /// Reasons 3.1.1 has no word for become 5 (not authorised) where trying again is no use, else 3 (unavailable).
    pub fn connect_return_code(self) -> u8 {
        if !self.is_error() {
            return 0;
        }
        RETURN_CODES.iter().find(|(reason, _)| *reason == self).map_or(3, |(_, code)| *code)
    }

    /// The reason a CONNACK's return code of MQTT 3.1.1 stands for; `None` if it is reserved.
    pub fn from_connect_return_code(code: u8) -> Option<Self> {
        RETURN_CODES.iter().find(|(_, known)| *known == code).map(|(reason, _)| *reason)
    }
}

/// Return codes of MQTT 3.1.1; the first entry of a code is what that code means when read.
const RETURN_CODES: [(ReasonCode, u8); 15] = [
    (ReasonCode::Success, 0),
    (ReasonCode::UnsupportedProtocolVersion, 1),
    (ReasonCode::ClientIdNotValid, 2),
    (ReasonCode::ServerUnavailable, 3),
    (ReasonCode::BadUserNameOrPassword, 4),
    (ReasonCode::NotAuthorized, 5),
    (ReasonCode::Banned, 5),
    (ReasonCode::BadAuthenticationMethod, 5),
    (ReasonCode::MalformedPacket, 5),
    (ReasonCode::ProtocolError, 5),
    (ReasonCode::TopicNameInvalid, 5),
    (ReasonCode::PacketTooLarge, 5),
    (ReasonCode::PayloadFormatInvalid, 5),
    (ReasonCode::RetainNotSupported, 5),
    (ReasonCode::QosNotSupported, 5),
];

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#04x})", self.name(), *self as u8)
    }
}
