//! Why and how a connection ends. Each cause is named once, with its reason code, label and fate of the will.

use drover_mqtt::{ConnAck, DecodeError, Disconnect, Packet, PacketType, Properties, ReasonCode, Version};
use drover_types::InvalidTopic;

use super::{Connection, Effect, Phase};
use crate::domain::identity::AuthenticateError;
use crate::domain::sessions::{AttachError, WillFate};

/// Who or what ended a connection, as presence tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    Client,
    KeepAlive,
    ConnectionLost,
    TakenOver,
    Revoked,
    Drain,
    ProtocolError,
    /// The log did not take its messages.
    NotStored,
    /// The platform has taken its node for lost.
    NodeLost,
}

impl CloseReason {
    /// Its name in presence reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Client => "client",
            CloseReason::KeepAlive => "keep_alive",
            CloseReason::ConnectionLost => "connection_lost",
            CloseReason::TakenOver => "taken_over",
            CloseReason::Revoked => "revoked",
            CloseReason::Drain => "drain",
            CloseReason::ProtocolError => "protocol_error",
            CloseReason::NotStored => "not_stored",
            CloseReason::NodeLost => "node_lost",
        }
    }
}

/// The end of a connection.
#[derive(Debug, PartialEq)]
pub struct Close {
    pub reason: CloseReason,
    pub will: WillFate,
    /// How long its session outlives it.
    pub expiry_s: u32,
    /// What was wrong, for the log line; absent when nothing was.
    pub fault: Option<Fault>,
}

impl Close {
    /// The peer is gone without a word.
    pub(super) fn lost() -> Self {
        Self { reason: CloseReason::ConnectionLost, will: WillFate::Publish, expiry_s: 0, fault: None }
    }
}

/// Why the server ends a connection, or refuses one packet.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("malformed packet: {0}")]
    Malformed(DecodeError),
    #[error("no connect packet in time")]
    NoConnectInTime,
    #[error("authentication took too long")]
    NoAnswerInTime,
    #[error("{packet} came before connect")]
    NotConnected { packet: PacketType },
    #[error("a second connect")]
    SecondConnect,
    #[error("{packet} has no place here")]
    Unexpected { packet: PacketType },
    #[error("node has no room for another connection")]
    OverLimit,
    #[error("extended authentication is not supported")]
    AuthenticationMethod,
    #[error("client id is empty and the session is not clean")]
    ClientIdMissing,
    #[error("client id has {bytes} bytes, limit is {limit}")]
    ClientIdTooLong { bytes: usize, limit: usize },
    #[error("no credentials, and this listener does not admit anonymous clients")]
    NoCredentials,
    #[error(transparent)]
    Authentication(AuthenticateError),
    #[error(transparent)]
    Session(AttachError),
    #[error("policy does not allow to connect as {client:?}")]
    ConnectDenied { client: String },
    #[error("policy does not allow to publish to {topic:?}")]
    PublishDenied { topic: String },
    #[error("shadows are not served here (ingress.shadows), and {topic:?} is a request to one")]
    NoShadows { topic: String },
    #[error("topic name is not valid: {0}")]
    Topic(InvalidTopic),
    #[error("topic alias is {alias}, limit is {limit}")]
    AliasOverLimit { alias: u16, limit: u16 },
    #[error("topic alias {alias} stands for nothing")]
    AliasUnknown { alias: u16 },
    #[error("payload has {bytes} bytes, limit is {limit}")]
    PayloadTooLarge { bytes: usize, limit: usize },
    #[error("qos 2 is not supported, limit is 1")]
    Qos2,
    #[error("retained messages are not supported")]
    Retain,
    #[error("more than {limit} messages are unacknowledged")]
    ReceiveMaximum { limit: u16 },
    #[error("session expiry was 0 at connect and is not at disconnect")]
    ExpiryFromZero,
    #[error("nothing heard for one and a half keep alive intervals")]
    KeepAlive,
    #[error("a newer connection has its client id")]
    TakenOver,
    #[error("identity was revoked")]
    Revoked,
    #[error("policy no longer allows to be connected as {client:?}")]
    ConnectWithdrawn { client: String },
    #[error("policy no longer allows the subscription to {filter:?}")]
    SubscriptionWithdrawn { filter: String },
    #[error("credential has ended")]
    Expired,
    #[error("node shuts down")]
    Drain,
    #[error("messages were not stored")]
    NotStored,
    #[error("node was silent so long that its connections were declared gone")]
    DeclaredGone,
}

impl Fault {
    /// The reason code a client of MQTT 5 gets; one of MQTT 3.1.1 gets the nearest return code, or nothing.
    pub fn reason_code(&self) -> ReasonCode {
        match self {
            Fault::Malformed(error) => error.reason_code(),
            Fault::NoConnectInTime
            | Fault::NotConnected { .. }
            | Fault::SecondConnect
            | Fault::Unexpected { .. }
            | Fault::AliasUnknown { .. }
            | Fault::ExpiryFromZero => ReasonCode::ProtocolError,
            Fault::NoAnswerInTime
            | Fault::Authentication(AuthenticateError::Unavailable { .. })
            | Fault::Session(AttachError::Revoked | AttachError::TakenOver | AttachError::NoOwner { .. }) => {
                ReasonCode::ServerUnavailable
            }
            Fault::OverLimit | Fault::Session(AttachError::TooManySessions { .. }) => ReasonCode::QuotaExceeded,
            Fault::AuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Fault::ClientIdMissing | Fault::ClientIdTooLong { .. } => ReasonCode::ClientIdNotValid,
            Fault::Authentication(AuthenticateError::Wrong { .. }) => ReasonCode::BadUserNameOrPassword,
            Fault::NoCredentials
            | Fault::Authentication(AuthenticateError::Refused { .. })
            | Fault::ConnectDenied { .. }
            | Fault::ConnectWithdrawn { .. }
            | Fault::SubscriptionWithdrawn { .. }
            | Fault::PublishDenied { .. } => ReasonCode::NotAuthorized,
            Fault::NoShadows { .. } => ReasonCode::ImplementationSpecificError,
            Fault::Topic(_) => ReasonCode::TopicNameInvalid,
            Fault::AliasOverLimit { .. } => ReasonCode::TopicAliasInvalid,
            Fault::PayloadTooLarge { .. } => ReasonCode::PacketTooLarge,
            Fault::Qos2 => ReasonCode::QosNotSupported,
            Fault::Retain => ReasonCode::RetainNotSupported,
            Fault::ReceiveMaximum { .. } => ReasonCode::ReceiveMaximumExceeded,
            Fault::KeepAlive => ReasonCode::KeepAliveTimeout,
            Fault::TakenOver => ReasonCode::SessionTakenOver,
            Fault::Revoked | Fault::Expired => ReasonCode::AdministrativeAction,
            Fault::Drain => ReasonCode::ServerShuttingDown,
            Fault::NotStored | Fault::DeclaredGone => ReasonCode::ServerBusy,
        }
    }

    /// What presence says of it.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Fault::KeepAlive => CloseReason::KeepAlive,
            Fault::TakenOver => CloseReason::TakenOver,
            Fault::Revoked | Fault::Expired | Fault::ConnectWithdrawn { .. } | Fault::SubscriptionWithdrawn { .. } => {
                CloseReason::Revoked
            }
            Fault::Drain => CloseReason::Drain,
            Fault::NotStored => CloseReason::NotStored,
            Fault::DeclaredGone => CloseReason::NodeLost,
            Fault::Malformed(_)
            | Fault::NoConnectInTime
            | Fault::NoAnswerInTime
            | Fault::NotConnected { .. }
            | Fault::SecondConnect
            | Fault::Unexpected { .. }
            | Fault::OverLimit
            | Fault::AuthenticationMethod
            | Fault::ClientIdMissing
            | Fault::ClientIdTooLong { .. }
            | Fault::NoCredentials
            | Fault::Authentication(_)
            | Fault::Session(_)
            | Fault::ConnectDenied { .. }
            | Fault::PublishDenied { .. }
            | Fault::NoShadows { .. }
            | Fault::Topic(_)
            | Fault::AliasOverLimit { .. }
            | Fault::AliasUnknown { .. }
            | Fault::PayloadTooLarge { .. }
            | Fault::Qos2
            | Fault::Retain
            | Fault::ReceiveMaximum { .. }
            | Fault::ExpiryFromZero => CloseReason::ProtocolError,
        }
    }

    /// A revoked or ended identity may no longer publish, not even its will. All other ends publish it [MQTT-3.1.2-8].
    fn will_fate(&self) -> WillFate {
        let revoked = matches!(self, Fault::Revoked | Fault::Expired | Fault::ConnectWithdrawn { .. });
        if revoked { WillFate::Discard } else { WillFate::Publish }
    }
}

impl Connection {
    /// Ends the connection because of `fault`, and tells the client as far as its version and state allow.
    pub(super) fn fail(&mut self, fault: Fault) {
        match (&self.phase, &fault) {
            (Phase::New, Fault::Malformed(error)) => {
                if let Some(version) = error.connack_version() {
                    self.decoder.version = version;
                    self.refuse_connect(&fault); // [MQTT-3.1.2-2]
                }
            }
            (Phase::New, Fault::NoConnectInTime | Fault::NotConnected { .. }) => {}
            (Phase::New | Phase::Authenticating(_) | Phase::Attaching(_), _) => self.refuse_connect(&fault),
            (Phase::Live(live), _) if live.version == Version::V5 => self.say_goodbye(&fault),
            (Phase::Live(_) | Phase::Closed, _) => {}
        }
        let will = fault.will_fate();
        self.close(Close { reason: fault.close_reason(), will, expiry_s: 0, fault: Some(fault) });
    }

    /// Nothing happens after this.
    pub(super) fn close(&mut self, close: Close) {
        let expiry_s = match &self.phase {
            Phase::Closed => return,
            Phase::Live(live) => live.expiry_s,
            Phase::New | Phase::Authenticating(_) | Phase::Attaching(_) => 0,
        };
        self.phase = Phase::Closed;
        self.effects.push_back(Effect::Close(Close { expiry_s, ..close }));
    }

    /// A CONNACK with the fault's reason and no words: who is not known yet is told no more.
    fn refuse_connect(&mut self, fault: &Fault) {
        let mut reason = fault.reason_code();
        if !reason.allowed_in(PacketType::ConnAck) {
            reason = ReasonCode::ServerUnavailable; // the node's own trouble: drain, revocation, take-over
        }
        let properties = Properties::default();
        self.send(&Packet::ConnAck(ConnAck { session_present: false, reason, properties })); // [MQTT-3.2.2-6]
    }

    /// A DISCONNECT with the fault's reason [MQTT-4.13.2-1].
    fn say_goodbye(&mut self, fault: &Fault) {
        let reason = fault.reason_code();
        let reason = if reason.allowed_in(PacketType::Disconnect) { reason } else { ReasonCode::UnspecifiedError };
        self.send(&Packet::Disconnect(Disconnect::new(reason)));
    }
}
