//! Why and how a connection ends. Each cause is named once, with its reason code, label and fate of the will.

use drover_mqtt::{
    ConnAck, DecodeError, Disconnect, Packet, PacketId, PacketType, Properties, Property, PropertyList, ReasonCode,
    Version,
};
use drover_types::InvalidTopic;

use super::{Connection, Effect, Phase};
use crate::domain::identity::AuthenticateError;
use crate::domain::quotas::OverQuota;
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
    /// The store cannot take its session.
    NotKept,
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
            CloseReason::NotKept => "not_kept",
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
    /// What was wrong with what the client has sent, if that is why.
    pub fn clients_fault(&self) -> Option<&Fault> {
        self.fault.as_ref().filter(|_| self.reason == CloseReason::ProtocolError)
    }

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
    #[error("more than {limit} clients a second connect to this node")]
    ConnectRate { limit: u32 },
    #[error(transparent)]
    OverQuota(OverQuota),
    #[error("authentication method is not supported")]
    AuthenticationMethod,
    #[error("no answer to the challenge of its authentication method")]
    Challenge,
    #[error("authentication method did not find out who it is")]
    NotAuthenticated,
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
    #[error("shadows and commands are not served here (ingress.shadows), and {topic:?} is for them")]
    NoShadows { topic: String },
    #[error("topic name is not valid: {0}")]
    Topic(InvalidTopic),
    #[error("policy does not allow to subscribe to {filter:?}")]
    SubscribeDenied { filter: String },
    #[error("nobody may subscribe to {filter:?}")]
    FilterDenied { filter: String },
    #[error("topic filter is not valid: {0}")]
    Filter(InvalidTopic),
    #[error("client has {limit} filters, which is the limit")]
    TooManyFilters { limit: usize },
    #[error("topic alias is {alias}, limit is {limit}")]
    AliasOverLimit { alias: u16, limit: u16 },
    #[error("topic alias {alias} stands for nothing")]
    AliasUnknown { alias: u16 },
    #[error("payload has {bytes} bytes, limit is {limit}")]
    PayloadTooLarge { bytes: usize, limit: usize },
    #[error("more than {limit} messages are unacknowledged")]
    ReceiveMaximum { limit: u16 },
    #[error("more than {limit} messages of qos 2 wait for their pubrel")]
    Unreleased { limit: usize },
    #[error("message {packet_id} is not one that is answered so")]
    Answer { packet_id: PacketId },
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
    #[error("session cannot be kept, and has ended")]
    NotKept,
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
            | Fault::Challenge
            | Fault::AliasUnknown { .. }
            | Fault::Answer { .. }
            | Fault::ExpiryFromZero => ReasonCode::ProtocolError,
            Fault::NoAnswerInTime
            | Fault::Authentication(AuthenticateError::Unavailable { .. })
            | Fault::Session(
                AttachError::Revoked
                | AttachError::TakenOver
                | AttachError::NoOwner { .. }
                | AttachError::NotRead { .. },
            ) => ReasonCode::ServerUnavailable,
            Fault::OverLimit
            | Fault::OverQuota(_)
            | Fault::TooManyFilters { .. }
            | Fault::Session(AttachError::TooManySessions { .. } | AttachError::TooManyConnections { .. }) => {
                ReasonCode::QuotaExceeded
            }
            Fault::ConnectRate { .. } => ReasonCode::ConnectionRateExceeded,
            Fault::AuthenticationMethod => ReasonCode::BadAuthenticationMethod,
            Fault::ClientIdMissing | Fault::ClientIdTooLong { .. } => ReasonCode::ClientIdNotValid,
            Fault::Authentication(AuthenticateError::Wrong { .. }) => ReasonCode::BadUserNameOrPassword,
            Fault::NoCredentials
            | Fault::NotAuthenticated
            | Fault::Authentication(AuthenticateError::Refused { .. })
            | Fault::ConnectDenied { .. }
            | Fault::ConnectWithdrawn { .. }
            | Fault::SubscriptionWithdrawn { .. }
            | Fault::SubscribeDenied { .. }
            | Fault::PublishDenied { .. } => ReasonCode::NotAuthorized,
            Fault::FilterDenied { .. } => ReasonCode::UnspecifiedError,
            Fault::Filter(_) => ReasonCode::TopicFilterInvalid,
            Fault::NoShadows { .. } => ReasonCode::ImplementationSpecificError,
            Fault::Topic(_) => ReasonCode::TopicNameInvalid,
            Fault::AliasOverLimit { .. } => ReasonCode::TopicAliasInvalid,
            Fault::PayloadTooLarge { .. } => ReasonCode::PacketTooLarge,
            Fault::ReceiveMaximum { .. } | Fault::Unreleased { .. } => ReasonCode::ReceiveMaximumExceeded,
            Fault::KeepAlive => ReasonCode::KeepAliveTimeout,
            Fault::TakenOver => ReasonCode::SessionTakenOver,
            Fault::Revoked | Fault::Expired => ReasonCode::AdministrativeAction,
            Fault::Drain => ReasonCode::ServerShuttingDown,
            Fault::NotStored | Fault::DeclaredGone => ReasonCode::ServerBusy,
            Fault::NotKept => ReasonCode::ImplementationSpecificError,
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
            Fault::NotKept => CloseReason::NotKept,
            Fault::Malformed(_)
            | Fault::NoConnectInTime
            | Fault::NoAnswerInTime
            | Fault::NotConnected { .. }
            | Fault::SecondConnect
            | Fault::Unexpected { .. }
            | Fault::OverLimit
            | Fault::ConnectRate { .. }
            | Fault::OverQuota(_)
            | Fault::AuthenticationMethod
            | Fault::Challenge
            | Fault::NotAuthenticated
            | Fault::SubscribeDenied { .. }
            | Fault::FilterDenied { .. }
            | Fault::Filter(_)
            | Fault::TooManyFilters { .. }
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
            | Fault::ReceiveMaximum { .. }
            | Fault::Unreleased { .. }
            | Fault::Answer { .. }
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
            (Phase::New, Fault::Malformed(_) | Fault::NoConnectInTime | Fault::NotConnected { .. }) => {}
            (Phase::New | Phase::Challenged(_) | Phase::Authenticating(_) | Phase::Attaching(_), _) => {
                self.refuse_connect(&fault);
            }
            (Phase::Live(live), _) if live.version == Version::V5 => self.say_goodbye(&fault),
            (Phase::Live(_) | Phase::Closed(_), _) => {}
        }
        let will = fault.will_fate();
        self.close(Close { reason: fault.close_reason(), will, expiry_s: 0, fault: Some(fault) });
    }

    /// Ends the connection because of bytes that cannot be read. A CONNECT among them is answered in the version that it
    /// says it is of, `claimed`, where that has words for it.
    pub(super) fn malformed(&mut self, error: DecodeError, claimed: Option<Version>) {
        // [MQTT-3.1.2-2]; 3.1.1 has no return code for what cannot be read [3.1.1 MQTT-3.1.4-1]
        let version = error.connack_version().or(claimed.filter(|version| *version == Version::V5));
        let fault = Fault::Malformed(error);
        if let (Phase::New, Some(version)) = (&self.phase, version) {
            self.decoder.version = version;
            self.refuse_connect(&fault);
        }
        self.fail(fault);
    }

    /// Nothing happens after this. A client that waits for its CONNACK may have a session already; it was not told, and
    /// its will is none yet.
    pub(super) fn close(&mut self, mut close: Close) {
        close.expiry_s = match &self.phase {
            Phase::Closed(_) => return,
            Phase::Live(live) => live.expiry_s,
            Phase::Attaching(connecting) => {
                close.will = WillFate::Discard;
                connecting.expiry_s
            }
            Phase::New | Phase::Challenged(_) | Phase::Authenticating(_) => 0,
        };
        let live = match std::mem::replace(&mut self.phase, Phase::Closed(None)) {
            Phase::Live(live) => Some(live),
            Phase::New | Phase::Challenged(_) | Phase::Authenticating(_) | Phase::Attaching(_) | Phase::Closed(_) => {
                None
            }
        };
        self.phase = Phase::Closed(live);
        self.want(Effect::Close(close));
    }

    /// A CONNACK with the fault's reason, and what is wrong unless it is about who the client is.
    fn refuse_connect(&mut self, fault: &Fault) {
        let mut reason = fault.reason_code();
        if !reason.allowed_in(PacketType::ConnAck) {
            reason = ReasonCode::ServerUnavailable; // the node's own trouble: drain, revocation, take-over
        }
        let session_present = false; // [MQTT-3.2.2-6]
        if let Some(list) = self.another_server(fault).filter(|_| self.decoder.version == Version::V5) {
            let (reason, properties) = (ReasonCode::UseAnotherServer, list.as_properties());
            return self.send(&Packet::ConnAck(ConnAck { session_present, reason, properties }));
        }
        if fault.is_about_identity() || self.decoder.version == Version::V311 {
            let properties = Properties::default();
            return self.send(&Packet::ConnAck(ConnAck { session_present, reason, properties }));
        }
        self.send_with_reason(&fault.to_string(), |properties| {
            Packet::ConnAck(ConnAck { session_present, reason, properties })
        });
    }

    /// A DISCONNECT with the fault's reason [MQTT-4.13.2-1].
    fn say_goodbye(&mut self, fault: &Fault) {
        if let Some(list) = self.another_server(fault) {
            let (reason, properties) = (ReasonCode::UseAnotherServer, list.as_properties());
            return self.send(&Packet::Disconnect(Disconnect { reason, properties }));
        }
        let reason = fault.reason_code();
        let reason = if reason.allowed_in(PacketType::Disconnect) { reason } else { ReasonCode::UnspecifiedError };
        self.send_with_reason(&fault.to_string(), |properties| Packet::Disconnect(Disconnect { reason, properties }));
    }

    /// Where else the client is served, if that is known and of use to it.
    fn another_server(&self, fault: &Fault) -> Option<PropertyList> {
        let reference = self.environment.limits.server_reference.as_deref().filter(|_| *fault == Fault::Drain)?;
        let mut list = PropertyList::default();
        list.push(Property::ServerReference(reference)).expect("its length is checked with the configuration");
        Some(list)
    }
}
