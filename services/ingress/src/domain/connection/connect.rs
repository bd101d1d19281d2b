//! CONNECT: what is checked before anybody is asked, what is asked, and the CONNACK.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;
use drover_mqtt::{ConnAck, Connect, Packet, Property, PropertyList, ReasonCode, Version, Will as WillPacket};
use drover_types::limits::ID_BYTES_MAX;
use drover_types::{ClientId, DeviceId, TopicName, hex};

use super::aliases::Aliases;
use super::extended::Authenticated;
use super::subscribe::Answers;
use super::{Admission, Claims, Connection, Effect, Fault, Live, Now, Phase, ends_ms};
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::message::{Forwarded, Publication};
use crate::domain::sessions::{AttachError, Attached, Will};

/// A session that never ends by itself, in MQTT 5 (section 3.1.2.11.2); cut to the configured limit.
const EXPIRY_NEVER: u32 = u32::MAX;

/// A CONNECT that waits for its answer.
pub(super) struct Connecting {
    pub(super) version: Version,
    client: ClientId,
    /// Whether the server has chosen the client id.
    assigned: bool,
    /// Whether its device has another name than its client id, which can be no device's.
    renamed: bool,
    clean_start: bool,
    /// As asked for, and as granted.
    keep_alive_asked_s: u16,
    keep_alive_s: u16,
    expiry_asked_s: u32,
    pub(super) expiry_s: u32,
    will: Option<Will>,
    receive_maximum: u16,
    pub(super) packet_bytes_max: u32,
    topic_alias_max: u16,
    problem_information: bool,
    /// Set by an exchange of extended authentication.
    pub(super) authenticated: Option<Authenticated>,
    /// Set by authentication.
    identity: Option<Arc<Identity>>,
    /// What it has become since the session is there.
    pub(super) newer_identity: Option<Arc<Identity>>,
}

impl Connection {
    pub(super) fn connect(&mut self, connect: Connect<'_>, now: Now) -> Result<(), Fault> {
        self.busy().claims = Some(Claims::of(&connect));
        self.decoder.version = connect.version;
        self.decoder.packet_bytes_max = self.environment.limits.packet_bytes_max;
        if self.over_limit {
            return Err(Fault::OverLimit);
        }
        let admitted = self.environment.quotas.admit(now.monotonic_ms);
        admitted.map_err(|limit| Fault::ConnectRate { limit })?;
        let exchange = self.exchange(&connect)?;
        let mut connecting = Box::new(self.read_connect(&connect)?);
        if let Some(exchange) = exchange {
            return self.challenge(connecting, exchange, &connect);
        }
        let proof = self.proof(&connect, &connecting.client)?;
        connecting.renamed = matches!(proof, Proof::Anonymous { .. }) && anonymous(&connecting.client).1;
        self.ask(connecting, proof);
        Ok(())
    }

    fn read_connect(&self, connect: &Connect<'_>) -> Result<Connecting, Fault> {
        let limits = &self.environment.limits;
        let properties = connect.properties;
        let expiry_asked_s = match connect.version {
            Version::V311 if connect.clean_start => 0, // [3.1.1 MQTT-3.1.2-6]
            Version::V311 => EXPIRY_NEVER,
            Version::V5 => properties.session_expiry_s().unwrap_or(0),
        };
        let packet_bytes_max = properties.maximum_packet_size().map_or(u32::MAX, NonZeroU32::get);
        Ok(Connecting {
            version: connect.version,
            client: self.client_id(connect)?,
            assigned: connect.client_id.is_empty(),
            renamed: false,
            clean_start: connect.clean_start,
            keep_alive_s: keep_alive_s(connect, limits.keep_alive_s_max),
            keep_alive_asked_s: connect.keep_alive_s,
            expiry_asked_s,
            expiry_s: expiry_asked_s.min(limits.session_expiry_s_max),
            will: connect.will.map(|will| read_will(&will)).transpose()?,
            receive_maximum: properties.receive_maximum().map_or(u16::MAX, NonZeroU16::get),
            packet_bytes_max,
            topic_alias_max: properties.topic_alias_maximum().unwrap_or(0),
            problem_information: properties.request_problem_information().unwrap_or(true),
            authenticated: None,
            identity: None,
            newer_identity: None,
        })
    }

    fn client_id(&self, connect: &Connect<'_>) -> Result<ClientId, Fault> {
        if connect.client_id.is_empty() {
            if connect.version == Version::V311 && !connect.clean_start {
                return Err(Fault::ClientIdMissing); // [3.1.1 MQTT-3.1.3-8]
            }
            return Ok(self.assign_client_id()); // [MQTT-3.1.3-6]
        }
        let bytes = connect.client_id.len();
        if bytes > ID_BYTES_MAX {
            return Err(Fault::ClientIdTooLong { bytes, limit: ID_BYTES_MAX });
        }
        Ok(ClientId::new(connect.client_id).expect("the decoder has refused the null character"))
    }

    fn assign_client_id(&self) -> ClientId {
        let mut random = [0; 12];
        self.environment.random.fill(&mut random);
        ClientId::new(format!("auto-{}", hex(&random))).expect("hexadecimal digits are an id")
    }

    /// What the client shows. A certificate counts before a user name; a wrong password is never anonymous.
    fn proof(&mut self, connect: &Connect<'_>, client: &ClientId) -> Result<Proof, Fault> {
        if let Some(certificate) = self.busy().certificate.take() {
            return Ok(Proof::Certificate(*certificate));
        }
        match (connect.user_name, connect.password) {
            (None, None) if self.anonymous => Ok(Proof::Anonymous { client: anonymous(client).0 }),
            (None, None) => Err(Fault::NoCredentials),
            (user_name, password) => {
                let token = String::from_utf8_lossy(password.unwrap_or_default()).into_owned();
                Ok(Proof::Token { user_name: user_name.unwrap_or_default().to_owned(), token })
            }
        }
    }

    /// The answer to [`Effect::Authenticate`].
    pub fn authenticated(&mut self, answer: Result<Arc<Identity>, AuthenticateError>) {
        match std::mem::replace(&mut self.phase, Phase::Closed(None)) {
            Phase::Authenticating(connecting) => {
                let admitted = answer.map_err(Fault::Authentication).and_then(|identity| admit(&connecting, identity));
                self.admitted(connecting, admitted);
            }
            other @ (Phase::New | Phase::Challenged(_) | Phase::Attaching(_) | Phase::Live(_) | Phase::Closed(_)) => {
                self.phase = other;
            }
        }
    }

    fn admitted(&mut self, mut connecting: Box<Connecting>, admitted: Result<Arc<Identity>, Fault>) {
        match admitted {
            Ok(identity) => {
                if connecting.client.as_str() == identity.device.as_str() {
                    connecting.client = ClientId::from(&identity.device);
                }
                connecting.identity = Some(identity.clone());
                let admission = Admission {
                    identity,
                    client: connecting.client.clone(),
                    clean_start: connecting.clean_start,
                    expiry_s: connecting.expiry_s,
                    will: connecting.will.take(),
                    version: connecting.version,
                };
                self.phase = Phase::Attaching(connecting);
                self.want(Effect::Attach(Box::new(admission)));
            }
            Err(fault) => {
                self.phase = Phase::Authenticating(connecting);
                self.fail(fault);
            }
        }
    }

    /// The session was refused: a possible answer to [`Effect::Attach`].
    pub fn refused(&mut self, error: AttachError) {
        self.fail(Fault::Session(error));
    }

    /// The session is there: the answer to [`Effect::Attach`]. Packets behind the CONNECT are taken from now on.
    pub fn attached(&mut self, attached: Attached, now: Now) {
        let Phase::Attaching(mut connecting) = std::mem::replace(&mut self.phase, Phase::Closed(None)) else { return };
        let Some(identity) = connecting.identity.clone() else { return };
        self.accept(&connecting, attached.present);
        let busy = self.busy();
        (busy.claims, busy.certificate) = (None, None);
        let limits = &self.environment.limits;
        self.heard_ms = now.monotonic_ms;
        self.phase = Phase::Live(Box::new(Live {
            version: connecting.version,
            ends_ms: ends_ms(&identity, now),
            identity,
            epoch: attached.publisher.epoch,
            own_name: !connecting.assigned && !connecting.renamed,
            session: attached.session,
            keep_alive_s: connecting.keep_alive_s,
            expiry_s: connecting.expiry_s,
            inbound: None,
            answers: Answers::default(),
            window: connecting.receive_maximum.min(limits.receive_maximum),
            packet_bytes_max: connecting.packet_bytes_max,
            aliases: Aliases::new(connecting.topic_alias_max, limits.topic_alias_max),
            problem_information: connecting.problem_information,
            withheld: false,
            draining: false,
        }));
        if let Some(newer) = connecting.newer_identity.take() {
            self.reauthorized(newer, now);
        }
        self.deliver(now);
    }

    /// Writes the CONNACK. What is not said is supported in full (section 3.2.2.3).
    fn accept(&mut self, connecting: &Connecting, session_present: bool) {
        let limits = &self.environment.limits;
        let mut properties = PropertyList::default();
        let mut say = |property| properties.push(property).expect("an id or what came in a property is short enough");
        if connecting.expiry_s != connecting.expiry_asked_s {
            say(Property::SessionExpiry(connecting.expiry_s));
        }
        if let Some(maximum) = NonZeroU16::new(limits.receive_maximum) {
            say(Property::ReceiveMaximum(maximum));
        }
        if let Some(bytes) = NonZeroU32::new(limits.packet_bytes_max) {
            say(Property::MaximumPacketSize(bytes));
        }
        if connecting.assigned {
            say(Property::AssignedClientId(connecting.client.as_str())); // [MQTT-3.1.3-7]
        }
        say(Property::TopicAliasMaximum(limits.topic_alias_max));
        if connecting.keep_alive_s != connecting.keep_alive_asked_s {
            say(Property::ServerKeepAlive(connecting.keep_alive_s)); // [MQTT-3.2.2-21]
        }
        if let Some(Authenticated { method, data }) = &connecting.authenticated {
            say(Property::AuthenticationMethod(method)); // [MQTT-4.12.0-5]
            properties.push(Property::AuthenticationData(data)).ok(); // too long for any packet: left out
        }
        let properties = properties.as_properties();
        self.decoder.version = connecting.version;
        self.send(&Packet::ConnAck(ConnAck { session_present, reason: ReasonCode::Success, properties }));
    }
}

/// The device an anonymous client is: that of its client id. Of an id that can be no device's, each character that no
/// device id may have becomes `_`; whether that was so.
fn anonymous(client: &ClientId) -> (ClientId, bool) {
    if DeviceId::new(client.as_str()).is_ok() {
        return (client.clone(), false);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '-');
    let name: String = client.as_str().chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    (ClientId::new(name).expect("it is no longer than it was, and has no null character"), true)
}

/// The keep alive to go by. A client of MQTT 3.1.1 cannot be told that it is another than its own.
fn keep_alive_s(connect: &Connect<'_>, max_s: u16) -> u16 {
    let asked_s = connect.keep_alive_s;
    let longer = asked_s == 0 || asked_s > max_s;
    if connect.version == Version::V5 && max_s > 0 && longer { max_s } else { asked_s }
}

/// What the policy says to the CONNECT and its will.
fn admit(connecting: &Connecting, identity: Arc<Identity>) -> Result<Arc<Identity>, Fault> {
    let client = connecting.client.as_str();
    if !identity.may_connect_as(client, connecting.assigned || connecting.renamed) {
        return Err(Fault::ConnectDenied { client: client.to_owned() });
    }
    match &connecting.will {
        Some(will) if !identity.may_publish(will.publication.topic.as_str(), client) => {
            Err(Fault::PublishDenied { topic: will.publication.topic.to_string() })
        }
        Some(_) | None => Ok(identity),
    }
}

fn read_will(will: &WillPacket<'_>) -> Result<Will, Fault> {
    let publication = Publication {
        topic: TopicName::new(will.topic).map_err(Fault::Topic)?,
        payload: Bytes::copy_from_slice(will.payload),
        qos: will.qos,
        retain: will.retain,
        dup: false,
        packet_id: 0,
        properties: Forwarded::of(will.properties),
    };
    Ok(Will { publication, delay_s: will.properties.will_delay_s().unwrap_or(0) })
}
