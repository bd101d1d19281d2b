//! The server's end of one MQTT connection, without I/O: bytes and time in, bytes and effects out.
//!
//! Domain layer. One state machine for MQTT 3.1.1 and 5. It never waits: what takes time leaves as an [`Effect`] and
//! comes back as a call ([`Connection::authenticated`], [`Connection::stored`]…). Every queue in it has a bound; at a
//! bound it stops taking bytes ([`Connection::wants_bytes`]) instead of dropping any.
//!
//! `[MQTT-x.y.z-n]` names a normative statement of MQTT 5; those of MQTT 3.1.1 are marked.

mod aliases;
mod busy;
mod claims;
mod close;
mod connect;
mod deliver;
mod errors;
mod extended;
mod publish;
mod reasons;
mod subscribe;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use drover_mqtt::{Decoder, Disconnect, Packet, PacketId, ReasonCode, Side, Version, claimed_version, encode};
use drover_types::{ClientId, Qos, Random};

use crate::domain::identity::{Certificate, Identity, Proof};
use crate::domain::link::Stop;
use crate::domain::message::{Publication, Publisher};
use crate::domain::quotas::Quotas;
use crate::domain::session::{Answer, Dropped, Gone, Session};
use crate::domain::sessions::{Will, WillFate};
use crate::ports::AuthMethod;

use aliases::Aliases;
use busy::Busy;
pub use claims::Claims;
pub use close::{Close, CloseReason, Fault};
use connect::Connecting;
use extended::Challenged;
use publish::Inbound;
use subscribe::Answers;
pub use subscribe::Granted;

/// Bytes of packets behind a CONNECT that wait for its authentication; more stay in the socket.
const BEHIND_CONNECT_BYTES_MAX: usize = 64 * 1024;
/// Largest CONNECT, in bytes: a will of 64 KiB and room for credentials. Its sender is not known yet.
const CONNECT_BYTES_MAX: u32 = 96 * 1024;
/// Bytes waiting to be written beyond which nothing is read or delivered: the peer does not read either.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// A client is gone after this many tenths of its keep alive [MQTT-3.1.2-22].
const KEEP_ALIVE_TENTHS: u64 = 15;
/// Of credentials that do not end.
const NEVER: u64 = u64::MAX;

/// Limits of every connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From accept to the end of authentication, milliseconds.
    pub connect_ms: u64,
    pub payload_bytes_max: usize,
    pub packet_bytes_max: u32,
    pub filters_max: usize,
    /// Messages of QoS 1 and 2 on their way in each direction.
    pub receive_maximum: u16,
    pub session_expiry_s_max: u32,
    /// Topic aliases in each direction.
    pub topic_alias_max: u16,
    /// Longest keep alive of a client that can be told so, in seconds; 0: any.
    pub keep_alive_s_max: u16,
    /// Filters that nobody may subscribe to.
    pub denied_filters: Vec<Box<str>>,
    /// Whether a client of MQTT 3.1.1 keeps its connection, and gets its acknowledgement, where a policy forbids what it
    /// publishes.
    pub acknowledge_denied: bool,
    /// Whether somebody serves shadows.
    pub shadows: bool,
    /// Where clients of MQTT 5 are sent when the node stops (section 3.14.2.2.5).
    pub server_reference: Option<Box<str>>,
}

/// What all connections share.
pub struct Environment {
    pub limits: Limits,
    /// For ids of clients that send none.
    pub random: Arc<dyn Random>,
    /// Of extended authentication.
    pub methods: Vec<Arc<dyn AuthMethod>>,
    pub quotas: Quotas,
}

/// The two times of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment, never backwards: for timeouts.
    pub monotonic_ms: u64,
    /// Milliseconds since the Unix epoch: for what others see.
    pub unix_ms: u64,
}

/// The other end, as far as the transport knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// What it has shown in the handshake, until its CONNECT.
    pub certificate: Option<Box<Certificate>>,
    /// Whether clients without credentials may connect here.
    pub anonymous: bool,
    /// Whether the node has no room for it: its CONNECT is answered with 0x97 and nothing else happens.
    pub over_limit: bool,
}

/// What the state machine wants done. Effects are to be carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// Answer with [`Connection::authenticated`].
    Authenticate(Proof),
    /// Answer with [`Connection::attached`] or [`Connection::refused`].
    Attach(Box<Admission>),
    /// Hand it to this client, if it has subscribed to it. Nothing is logged.
    Answer(Publication),
    /// Append it to the log, in order; answer with [`Connection::stored`] or [`Connection::not_stored`].
    Publish(Publication),
    /// Answer with [`Connection::subscribed`] when the node routes by these.
    Subscribe(Vec<Granted>),
    /// Answer with [`Connection::subscribed`] when the node no longer routes by these.
    Unsubscribe(Vec<Box<str>>),
    /// Count it.
    Refused(Fault),
    /// Count it: what was published last is over a quota.
    Delayed,
    /// Count it.
    Delivered { qos: Qos },
    /// Count it.
    Dropped(Dropped),
    /// Route by these filters no longer, and count the messages that went with them.
    Withdraw(Gone),
    /// Write what is in the output, then close. Nothing comes after it.
    Close(Close),
}

/// An authenticated CONNECT that asks for its session.
#[derive(Debug)]
pub struct Admission {
    pub identity: Arc<Identity>,
    pub client: ClientId,
    pub clean_start: bool,
    pub expiry_s: u32,
    pub will: Option<Will>,
    pub version: Version,
}

/// One connection.
pub struct Connection {
    environment: Arc<Environment>,
    /// Of its peer, and what else it was taken with.
    address: SocketAddr,
    anonymous: bool,
    over_limit: bool,
    phase: Phase,
    decoder: Decoder,
    /// Absent while it is idle.
    busy: Option<Box<Busy>>,
    /// When the last packet arrived, or reading went on after a pause of ours; monotonic.
    heard_ms: u64,
}

enum Phase {
    /// Until the CONNECT is there.
    New,
    /// Between CONNECT and CONNACK, in an exchange of extended authentication.
    Challenged(Box<Challenged>),
    Authenticating(Box<Connecting>),
    /// Authenticated, waits for its session.
    Attaching(Box<Connecting>),
    Live(Box<Live>),
    /// With what it was, until it lets go of its session.
    Closed(Option<Box<Live>>),
}

/// A connection whose CONNECT was accepted.
struct Live {
    version: Version,
    identity: Arc<Identity>,
    /// When the credential ends, monotonic, or [`NEVER`].
    ends_ms: u64,
    /// Of this connection, among those to its session.
    epoch: u64,
    /// Whether the client id is the client's own, to be allowed by its policies.
    own_name: bool,
    session: Arc<Session>,
    keep_alive_s: u16,
    expiry_s: u32,
    /// Absent until it publishes, and again when it has nothing to say.
    inbound: Option<Box<Inbound>>,
    answers: Answers,
    /// Most messages of QoS 1 and 2 to the client that are not done [MQTT-3.3.4-9].
    window: u16,
    /// Largest packet to the client [MQTT-3.1.2-24].
    packet_bytes_max: u32,
    /// To the client; absent if it takes none.
    aliases: Option<Box<Aliases>>,
    /// Whether the client wants reasons in words [MQTT-3.1.2-29].
    problem_information: bool,
    /// Acknowledges nothing: a subscriber has no room for what it has published.
    withheld: bool,
    /// Takes no more packets, and closes when all publishes are acknowledged.
    draining: bool,
}

impl Connection {
    /// A connection just made.
    pub fn new(environment: Arc<Environment>, peer: Peer, now: Now) -> Self {
        let decoder = Decoder { packet_bytes_max: CONNECT_BYTES_MAX, ..Decoder::new(Side::Client, Version::V5) };
        let Peer { address, certificate, anonymous, over_limit } = peer;
        let (phase, heard_ms) = (Phase::New, now.monotonic_ms);
        let mut connection = Self { environment, address, anonymous, over_limit, phase, decoder, busy: None, heard_ms };
        connection.shown(certificate);
        connection
    }

    /// Takes as many packets from the front of `input` as it may; how many bytes those have. The rest is to be shown
    /// again with the next call.
    pub fn receive(&mut self, input: &[u8], now: Now) -> usize {
        self.end_with_credential(now);
        let mut taken = 0;
        while self.takes_packets() {
            let decoder = self.decoder;
            match decoder.decode(&input[taken..]) {
                Ok(None) => break,
                Ok(Some((packet, bytes))) => {
                    self.heard_ms = now.monotonic_ms;
                    self.packet(packet, now);
                    taken += bytes;
                }
                Err(error) => self.malformed(error, claimed_version(&input[taken..])),
            }
        }
        taken
    }

    /// A load balancer has said who is behind it, unless it is itself.
    pub fn introduced(&mut self, source: Option<SocketAddr>) {
        self.address = source.unwrap_or(self.address);
    }

    /// The transport is ready for packets; `certificate` is that of its client, if it has shown one.
    pub fn secured(&mut self, certificate: Option<Box<Certificate>>, now: Now) {
        self.shown(certificate);
        self.heard_ms = now.monotonic_ms;
    }

    fn shown(&mut self, certificate: Option<Box<Certificate>>) {
        if certificate.is_some() {
            self.busy().certificate = certificate;
        }
    }

    /// Whether more bytes are of use while `buffered` are there.
    pub fn wants_bytes(&self, buffered: usize) -> bool {
        match self.phase {
            Phase::New | Phase::Challenged(_) | Phase::Live(_) => self.takes_packets(),
            Phase::Authenticating(_) | Phase::Attaching(_) => buffered < BEHIND_CONNECT_BYTES_MAX,
            Phase::Closed(_) => false,
        }
    }

    /// Whether the next packet would be taken. Once the peer has closed, a connection that takes packets has had all
    /// of them.
    pub fn takes_packets(&self) -> bool {
        match &self.phase {
            Phase::New | Phase::Challenged(_) => true,
            Phase::Authenticating(_) | Phase::Attaching(_) | Phase::Closed(_) => false,
            Phase::Live(live) => {
                let room = live.has_room(&self.environment.limits) && live.answers.has_room();
                let rests = live.draining || live.rests_until_ms() > 0;
                !rests && room && self.output_bytes() < OUTPUT_BYTES_MAX
            }
        }
    }

    /// Whether the node has no room for it.
    pub fn is_over_limit(&self) -> bool {
        self.over_limit
    }

    /// Where its peer is.
    pub fn peer(&self) -> SocketAddr {
        self.address
    }

    /// Whether it has ended; [`Effect::Close`] says how.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// The session of an admitted client, up to [`Connection::let_go`].
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.with_session().map(|live| &live.session)
    }

    /// What an admitted client publishes as, up to [`Connection::let_go`].
    pub fn publisher(&self) -> Option<Publisher> {
        self.with_session().map(Live::publisher)
    }

    /// Lets go of the session of a connection that has ended; what its client published as.
    pub fn let_go(&mut self) -> Option<Publisher> {
        let Phase::Closed(live) = &mut self.phase else { return None };
        live.take().map(|live| live.publisher())
    }

    /// When [`Connection::tick`] has something to do at the earliest, monotonic.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::New | Phase::Challenged(_) | Phase::Authenticating(_) | Phase::Attaching(_) => {
                Some(self.heard_ms + self.environment.limits.connect_ms)
            }
            Phase::Live(live) => {
                let silent_ms = live.silence_ms_max().map(|silence_ms| self.heard_ms + silence_ms);
                let ends_ms = (live.ends_ms < NEVER).then_some(live.ends_ms);
                let rested_ms = Some(live.rests_until_ms()).filter(|rests_until_ms| *rests_until_ms > 0);
                [silent_ms, ends_ms, rested_ms].into_iter().flatten().min()
            }
            Phase::Closed(_) => None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.end_with_credential(now);
        self.end_rest(now);
        if self.deadline_ms().is_none_or(|deadline_ms| now.monotonic_ms < deadline_ms) {
            return;
        }
        match &self.phase {
            Phase::New | Phase::Challenged(_) => self.fail(Fault::NoConnectInTime),
            Phase::Authenticating(_) | Phase::Attaching(_) => self.fail(Fault::NoAnswerInTime),
            // Silence counts only while somebody listens.
            Phase::Live(_) if !self.takes_packets() => self.heard_ms = now.monotonic_ms,
            Phase::Live(_) => self.fail(Fault::KeepAlive),
            Phase::Closed(_) => {}
        }
    }

    /// The connection was not read up to now: silence counts from here on.
    pub fn not_listening(&mut self, now: Now) {
        if let Phase::Live(_) = self.phase {
            self.heard_ms = now.monotonic_ms;
        }
    }

    /// The peer is gone, or does not read what is written.
    pub fn lost(&mut self) {
        self.close(Close::lost());
    }

    /// Somebody asks the connection to end.
    pub fn stop(&mut self, why: Stop) {
        match (why, &mut self.phase) {
            (Stop::Drain, Phase::Live(live)) if !live.is_done() => self.drain(),
            (Stop::Drain, _) => self.fail(Fault::Drain),
            (Stop::TakenOver, _) => self.fail(Fault::TakenOver),
            (Stop::Revoked, _) => self.fail(Fault::Revoked),
            (Stop::DeclaredGone, _) => self.fail(Fault::DeclaredGone),
            (Stop::NotKept, _) => self.fail(Fault::NotKept),
        }
    }

    /// What the connection may do has changed. One that lost its right to be here, or a subscription, is closed: a client
    /// that goes on believing in a subscription it does not have would miss messages and not know it.
    pub fn reauthorized(&mut self, identity: Arc<Identity>, now: Now) {
        if let Phase::Attaching(connecting) = &mut self.phase {
            connecting.newer_identity = Some(identity);
            return;
        }
        let Some(live) = self.live() else { return };
        live.ends_ms = ends_ms(&identity, now);
        live.identity = identity.clone();
        let client = live.session.client().clone();
        if !identity.may_connect_as(client.as_str(), !live.own_name) {
            return self.fail(Fault::ConnectWithdrawn { client: client.to_string() });
        }
        let allowed = |filter: &str| identity.may_subscribe(filter, client.as_str());
        let gone = live.session.withdraw(live.epoch, allowed);
        if let Some(filter) = gone.filters.first().map(ToString::to_string) {
            self.want(Effect::Withdraw(gone));
            self.fail(Fault::SubscriptionWithdrawn { filter });
        }
    }

    /// The time of what it has published beyond a quota may have come.
    fn end_rest(&mut self, now: Now) {
        let rested = |live: &&mut Live| (1..=now.monotonic_ms).contains(&live.rests_until_ms());
        if let Some(live) = self.live().filter(rested) {
            live.inbound().rests_until_ms = 0;
            self.heard_ms = now.monotonic_ms;
        }
    }

    /// Also on the way of every packet in or out: a connection that is never idle ends in time as well.
    fn end_with_credential(&mut self, now: Now) {
        if self.live().is_some_and(|live| live.ends_ms <= now.monotonic_ms) {
            self.fail(Fault::Expired);
        }
    }

    fn packet(&mut self, packet: Packet<'_>, now: Now) {
        let done = match (&mut self.phase, packet) {
            (Phase::New, Packet::Connect(connect)) => self.connect(connect, now),
            (Phase::New, packet) => Err(Fault::NotConnected { packet: packet.packet_type() }), // [MQTT-3.1.0-1]
            (Phase::Challenged(_), Packet::Auth(auth)) => self.auth(&auth),
            (Phase::Challenged(_), Packet::Disconnect(_)) => {
                self.close(Close::lost());
                Ok(())
            }
            (Phase::Challenged(_), packet) => Err(Fault::Unexpected { packet: packet.packet_type() }),
            (Phase::Live(_), packet) => self.live_packet(packet, now),
            (Phase::Authenticating(_) | Phase::Attaching(_) | Phase::Closed(_), _) => Ok(()),
        };
        if let Err(fault) = done {
            self.fail(fault);
        }
    }

    fn live_packet(&mut self, packet: Packet<'_>, now: Now) -> Result<(), Fault> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, now),
            Packet::PubAck(ack) => self.answered(ack.packet_id, Answer::Acknowledged, now),
            Packet::PubRec(ack) if ack.reason.is_error() => self.answered(ack.packet_id, Answer::Refused, now),
            Packet::PubRec(ack) => self.answered(ack.packet_id, Answer::Received, now),
            Packet::PubComp(ack) => self.answered(ack.packet_id, Answer::Completed, now),
            Packet::PubRel(ack) => {
                self.released(ack.packet_id);
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe),
            Packet::PingReq => {
                if let Some(live) = self.live() {
                    live.tidy();
                }
                self.send(&Packet::PingResp); // [MQTT-3.12.4-1]
                Ok(())
            }
            Packet::Disconnect(disconnect) => self.disconnect(&disconnect),
            Packet::Connect(_) => Err(Fault::SecondConnect), // [MQTT-3.1.0-2]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp | Packet::Auth(_) => {
                Err(Fault::Unexpected { packet: packet.packet_type() })
            }
        }
    }

    /// The client's own goodbye.
    fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Fault> {
        let Phase::Live(live) = &mut self.phase else { return Ok(()) };
        if let Some(expiry_s) = disconnect.properties.session_expiry_s() {
            if live.expiry_s == 0 && expiry_s > 0 {
                return Err(Fault::ExpiryFromZero); // section 3.14.2.2.2
            }
            live.expiry_s = expiry_s.min(self.environment.limits.session_expiry_s_max);
        }
        let clean = disconnect.reason == ReasonCode::Success;
        let will = if clean { WillFate::Discard } else { WillFate::Publish }; // [MQTT-3.14.4-3]
        let expiry_s = live.expiry_s;
        self.close(Close { reason: CloseReason::Client, will, expiry_s, fault: None });
        Ok(())
    }

    /// Writes `packet` to the output, unless it is larger than the client takes [MQTT-3.1.2-24].
    fn send(&mut self, packet: &Packet<'_>) {
        self.try_send(packet);
    }

    /// As [`Connection::send`]; whether it was written.
    fn try_send(&mut self, packet: &Packet<'_>) -> bool {
        let version = self.decoder.version;
        let limit = match &self.phase {
            Phase::Live(live) => live.packet_bytes_max,
            Phase::Challenged(challenged) => challenged.connecting.packet_bytes_max,
            Phase::Authenticating(connecting) | Phase::Attaching(connecting) => connecting.packet_bytes_max,
            Phase::New | Phase::Closed(_) => u32::MAX,
        };
        let output = self.output();
        let before = output.len();
        encode(packet, version, output).expect("packets made here keep the protocol's lengths");
        let fits = output.len() - before <= limit as usize;
        if !fits {
            output.truncate(before);
        }
        fits
    }

    fn live(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Live(live) => Some(live),
            Phase::New | Phase::Challenged(_) | Phase::Authenticating(_) | Phase::Attaching(_) | Phase::Closed(_) => {
                None
            }
        }
    }

    /// As [`Connection::live`], also after its end.
    fn with_session(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) | Phase::Closed(Some(live)) => Some(live),
            Phase::New
            | Phase::Challenged(_)
            | Phase::Authenticating(_)
            | Phase::Attaching(_)
            | Phase::Closed(None) => None,
        }
    }

    /// After a pause of ours: what the client has sent meanwhile is still in the socket.
    fn resume(&mut self, paused: bool, now: Now) {
        if paused && self.takes_packets() {
            self.heard_ms = now.monotonic_ms;
        }
    }
}

impl Live {
    /// Longest silence, in milliseconds; `None`: any.
    fn silence_ms_max(&self) -> Option<u64> {
        (self.keep_alive_s > 0).then(|| u64::from(self.keep_alive_s) * 1_000 * KEEP_ALIVE_TENTHS / 10)
    }

    fn publisher(&self) -> Publisher {
        self.session.publisher(self.identity.device.clone(), self.epoch)
    }
}

/// When the credential of `identity` ends, monotonic.
fn ends_ms(identity: &Identity, now: Now) -> u64 {
    identity.lasts_ms(now.unix_ms).map_or(NEVER, |lasts_ms| now.monotonic_ms.saturating_add(lasts_ms))
}

/// A packet id that the packet's type always has.
fn raw(packet_id: Option<PacketId>) -> u16 {
    packet_id.map_or(0, PacketId::get)
}
