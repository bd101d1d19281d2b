//! A client of MQTT 3.1.1 and 5 as a state machine: bytes and the clock in, bytes and events out.
//!
//! It publishes and receives at QoS 0, 1 and 2. The rule that keeps it simple: what is in flight is kept as the bytes that
//! were sent, so that redelivery is those bytes, for a PUBLISH with the DUP flag set. Who owns the socket calls
//! [`Client::open`] on a new connection, [`Client::receive`] with what arrives, [`Client::tick`] as time passes and
//! [`Client::lost`] when the connection ends, and sends what these append to `out`.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use drover_types::Qos;

use crate::{
    Ack, ConnAck, Connect, DecodeError, Decoder, Disconnect, EncodeError, Filters, Packet, PacketId, PacketType,
    Properties, Property, PropertyList, Publish, ReasonCode, ReasonCodes, Side, Subscribe, Subscriptions, Unsubscribe,
    Version, Will, encode,
};

/// Bit of the first byte of a PUBLISH that says it is delivered again (section 3.3.1.1).
const DUP: u8 = 0b1000;

/// Most SUBSCRIBE and UNSUBSCRIBE packets without an answer; with the window they must leave packet identifiers free.
const REQUESTS_MAX: usize = 100;
/// Largest window that does.
const WINDOW_MAX: u16 = u16::MAX - REQUESTS_MAX as u16 - 1;

/// What a client says about itself on every connection.
#[derive(Clone)]
pub struct ClientOptions {
    pub version: Version,
    pub client_id: String,
    pub clean_start: bool,
    /// Longest silence, in seconds; 0 = no pings.
    pub keep_alive_s: u16,
    pub user_name: Option<String>,
    pub password: Option<Vec<u8>>,
    /// How long the session outlives the connection, in seconds; MQTT 5 only.
    pub session_expiry_s: u32,
    pub will: Option<ClientWill>,
    /// Most QoS 1 messages sent and not acknowledged; a smaller receive maximum of the server goes first.
    pub window: NonZeroU16,
    /// Largest packet accepted from the server, in bytes.
    pub packet_bytes_max: u32,
}

impl ClientOptions {
    /// A clean session without keep-alive, will and credentials; window 100, packets up to 1 MiB.
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        Self {
            version,
            client_id: client_id.into(),
            clean_start: true,
            keep_alive_s: 0,
            user_name: None,
            password: None,
            session_expiry_s: 0,
            will: None,
            window: NonZeroU16::new(drover_types::limits::RECEIVE_MAXIMUM).expect("the default window is not zero"),
            packet_bytes_max: 1024 * 1024,
        }
    }
}

/// The will a client leaves with the server.
#[derive(Clone, Debug)]
pub struct ClientWill {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
}

/// What happened on the connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server accepted the CONNECT. Unacknowledged messages have been sent again.
    Connected { session_present: bool, properties: Properties<'a> },
    /// A message, handed over once also at QoS 2; it has been acknowledged.
    Message(Publish<'a>),
    /// The exchange of a publish at QoS 1 or 2 is complete; at an error code the server did not take the message.
    Acknowledged { packet_id: PacketId, reason: ReasonCode },
    /// The answer to [`Client::subscribe`].
    Subscribed { packet_id: PacketId, reasons: ReasonCodes<'a> },
    /// The answer to [`Client::unsubscribe`]; without reasons in MQTT 3.1.1.
    Unsubscribed { packet_id: PacketId, reasons: ReasonCodes<'a> },
    /// The answer to a ping.
    Pong,
    /// The server closes the connection; call [`Client::lost`].
    Disconnected { reason: ReasonCode, properties: Properties<'a> },
}

/// Why a connection cannot go on; close it and call [`Client::lost`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    #[error("server refused the connection: {0}")]
    Refused(ReasonCode),
    #[error("server sent what is no packet: {0}")]
    Decode(#[from] DecodeError),
    #[error("server sent {packet} while the client was {phase:?}")]
    Unexpected { packet: PacketType, phase: Phase },
    #[error("server used a topic alias, none was allowed")]
    TopicAlias,
    #[error("server has not answered a ping for {silent_ms} ms")]
    Silent { silent_ms: u64 },
}

/// Why a packet was not sent; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("client is not connected")]
    NotConnected,
    #[error("{in_flight} messages are not acknowledged, limit is {window}")]
    WindowFull { in_flight: usize, window: u16 },
    #[error("{REQUESTS_MAX} subscribe and unsubscribe packets have no answer yet")]
    TooManyRequests,
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection.
    Closed,
    /// CONNECT sent, CONNACK awaited.
    Connecting,
    /// Packets flow.
    Connected,
}

/// A message of QoS 1 or 2 whose exchange is not complete.
struct InFlight {
    packet_id: PacketId,
    qos: Qos,
    /// Whether the server has received it (QoS 2).
    received: bool,
    /// The PUBLISH as it was or will be sent, with DUP once a connection it was sent on has ended; or the PUBREL.
    frame: Vec<u8>,
    /// Whether it has been sent on this connection.
    sent: bool,
}

/// One client and its session; lives across connections.
pub struct Client {
    options: ClientOptions,
    phase: Phase,
    window: u16,
    last_packet_id: u16,
    in_flight: VecDeque<InFlight>,
    /// Identifiers of SUBSCRIBE and UNSUBSCRIBE packets sent on this connection and not answered; at most `REQUESTS_MAX`.
    requests: Vec<PacketId>,
    /// Buffers of acknowledged messages, to be used again; at most `window`.
    spare: Vec<Vec<u8>>,
    /// QoS 2 messages handed over whose PUBREL has not come; at most one for each packet identifier.
    received: Vec<PacketId>,
    last_sent_ms: u64,
    ping_sent_ms: Option<u64>,
}

impl Client {
    /// A client without a connection.
    pub fn new(options: ClientOptions) -> Self {
        let window = options.window.get().min(WINDOW_MAX);
        Self {
            options,
            phase: Phase::Closed,
            window,
            last_packet_id: 0,
            in_flight: VecDeque::new(),
            requests: Vec::new(),
            spare: Vec::new(),
            received: Vec::new(),
            last_sent_ms: 0,
            ping_sent_ms: None,
        }
    }

    /// How far the connection has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// QoS 1 messages not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Most QoS 1 messages in flight on this connection: the smaller of the client's window and the server's receive
    /// maximum.
    pub fn window(&self) -> u16 {
        self.window
    }

    /// How many more QoS 1 messages fit the window now.
    pub fn capacity(&self) -> usize {
        usize::from(self.window).saturating_sub(self.in_flight.len())
    }

    /// Begins a new connection: appends CONNECT.
    pub fn open(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let options = &self.options;
        let mut properties = PropertyList::default();
        if options.version == Version::V5 && options.session_expiry_s > 0 {
            properties.push(Property::SessionExpiry(options.session_expiry_s))?;
        }
        let connect = Connect {
            clean_start: options.clean_start,
            keep_alive_s: options.keep_alive_s,
            properties: properties.as_properties(),
            will: options.will.as_ref().map(|will| Will {
                qos: will.qos,
                retain: will.retain,
                properties: Properties::default(),
                topic: &will.topic,
                payload: &will.payload,
            }),
            user_name: options.user_name.as_deref(),
            password: options.password.as_deref(),
            ..Connect::new(options.version, &options.client_id)
        };
        encode(&Packet::Connect(connect), options.version, out)?;
        self.lost();
        self.phase = Phase::Connecting;
        self.last_sent_ms = now_ms;
        self.ping_sent_ms = None;
        Ok(())
    }

    /// The connection has ended. What is in flight stays, to be sent again on the next one.
    pub fn lost(&mut self) {
        self.phase = Phase::Closed;
        self.requests.clear();
        for message in self.in_flight.iter_mut().filter(|message| message.sent) {
            if !message.received {
                message.frame[0] |= DUP; // [MQTT-3.3.1-1]
            }
            message.sent = false;
        }
    }

    /// Publishes `message`; its `packet_id` and `dup` are chosen here.
    ///
    /// At QoS 1 and 2 returns the identifier that [`Event::Acknowledged`] will name; without a connection the message is kept
    /// and sent on the next one.
    pub fn publish(
        &mut self,
        message: &Publish<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Option<PacketId>, SendError> {
        match message.qos {
            Qos::AtMostOnce => {
                let message = Publish { dup: false, packet_id: None, ..*message };
                self.send(&Packet::Publish(message), now_ms, out)?;
                Ok(None)
            }
            Qos::AtLeastOnce | Qos::ExactlyOnce => self.publish_in_window(message, now_ms, out).map(Some),
        }
    }

    fn publish_in_window(
        &mut self,
        message: &Publish<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<PacketId, SendError> {
        if self.capacity() == 0 {
            return Err(SendError::WindowFull { in_flight: self.in_flight.len(), window: self.window });
        }
        let packet_id = self.next_packet_id();
        let message = Publish { dup: false, packet_id: Some(packet_id), ..*message };
        let mut frame = self.spare.pop().unwrap_or_default();
        encode(&Packet::Publish(message), self.options.version, &mut frame)?;
        let sent = self.phase == Phase::Connected;
        if sent {
            out.extend_from_slice(&frame);
            self.last_sent_ms = now_ms;
        }
        self.in_flight.push_back(InFlight { packet_id, qos: message.qos, received: false, frame, sent });
        Ok(packet_id)
    }

    /// Subscribes; the answer is [`Event::Subscribed`] with the identifier returned.
    pub fn subscribe(
        &mut self,
        subscriptions: Subscriptions<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<PacketId, SendError> {
        let packet_id = self.next_request_id()?;
        let packet = Subscribe { packet_id, properties: Properties::default(), subscriptions };
        self.send(&Packet::Subscribe(packet), now_ms, out)?;
        self.requests.push(packet_id);
        Ok(packet_id)
    }

    /// Unsubscribes; the answer is [`Event::Unsubscribed`] with the identifier returned.
    pub fn unsubscribe(&mut self, filters: Filters<'_>, now_ms: u64, out: &mut Vec<u8>) -> Result<PacketId, SendError> {
        let packet_id = self.next_request_id()?;
        let packet = Unsubscribe { packet_id, properties: Properties::default(), filters };
        self.send(&Packet::Unsubscribe(packet), now_ms, out)?;
        self.requests.push(packet_id);
        Ok(packet_id)
    }

    /// Asks for an [`Event::Pong`], which comes when the server has read everything sent before.
    pub fn ping(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.send(&Packet::PingReq, now_ms, out)?;
        self.ping_sent_ms = Some(now_ms);
        Ok(())
    }

    /// Says goodbye: the server will not publish the will. Close the connection after sending.
    pub fn disconnect(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)), now_ms, out)?;
        self.phase = Phase::Closed;
        Ok(())
    }

    /// Takes the whole packets at the front of `bytes`, and returns how many bytes they were; the rest has to be shown
    /// again, with what arrives behind it.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<usize, ClientError> {
        let decoder = Decoder {
            sender: Side::Server,
            version: self.options.version,
            packet_bytes_max: self.options.packet_bytes_max,
        };
        let mut taken = 0;
        while let Some((packet, packet_bytes)) = decoder.decode(&bytes[taken..])? {
            taken += packet_bytes;
            let answered_from = out.len();
            if let Some(event) = self.packet(packet, out)? {
                on_event(event);
            }
            if out.len() > answered_from {
                self.last_sent_ms = now_ms;
            }
        }
        Ok(taken)
    }

    /// When [`Client::tick`] has something to do next, in milliseconds of the caller's clock; `None` without keep-alive.
    pub fn deadline_ms(&self) -> Option<u64> {
        let keep_alive_ms = self.keep_alive_ms()?;
        Some(self.ping_sent_ms.unwrap_or(self.last_sent_ms) + keep_alive_ms)
    }

    /// Lets time pass: appends a ping when the connection has been silent for the keep-alive time [MQTT-3.1.2-20], and
    /// fails when a ping has not been answered for as long.
    pub fn tick(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let Some(keep_alive_ms) = self.keep_alive_ms() else { return Ok(()) };
        if let Some(ping_sent_ms) = self.ping_sent_ms {
            let silent_ms = now_ms.saturating_sub(ping_sent_ms);
            return if silent_ms >= keep_alive_ms { Err(ClientError::Silent { silent_ms }) } else { Ok(()) };
        }
        if now_ms.saturating_sub(self.last_sent_ms) >= keep_alive_ms && self.send(&Packet::PingReq, now_ms, out).is_ok()
        {
            self.ping_sent_ms = Some(now_ms);
        }
        Ok(())
    }

    /// The keep-alive time, while connected and not 0.
    fn keep_alive_ms(&self) -> Option<u64> {
        let keep_alive_s = self.options.keep_alive_s;
        (self.phase == Phase::Connected && keep_alive_s > 0).then(|| u64::from(keep_alive_s) * 1_000)
    }

    fn send(&mut self, packet: &Packet<'_>, now_ms: u64, out: &mut Vec<u8>) -> Result<(), SendError> {
        if self.phase != Phase::Connected {
            return Err(SendError::NotConnected);
        }
        encode(packet, self.options.version, out)?;
        self.last_sent_ms = now_ms;
        Ok(())
    }

    fn next_request_id(&mut self) -> Result<PacketId, SendError> {
        if self.requests.len() == REQUESTS_MAX {
            return Err(SendError::TooManyRequests);
        }
        Ok(self.next_packet_id())
    }

    /// The next identifier nothing in flight has [MQTT-2.2.1-3]; the bounds of what is in flight leave some free.
    fn next_packet_id(&mut self) -> PacketId {
        loop {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            if let Some(packet_id) = PacketId::new(self.last_packet_id)
                && !self.in_flight.iter().any(|message| message.packet_id == packet_id)
                && !self.requests.contains(&packet_id)
            {
                return packet_id;
            }
        }
    }

    fn packet<'a>(&mut self, packet: Packet<'a>, out: &mut Vec<u8>) -> Result<Option<Event<'a>>, ClientError> {
        let unexpected = ClientError::Unexpected { packet: packet.packet_type(), phase: self.phase };
        match (self.phase, packet) {
            (Phase::Connecting, Packet::ConnAck(ack)) => self.connected(ack, out).map(Some),
            (Phase::Closed | Phase::Connecting, _) => Err(unexpected),
            (Phase::Connected, Packet::PubAck(ack)) => Ok(self.acknowledged(ack, out)),
            (Phase::Connected, Packet::PubRec(ack)) => Ok(self.received(ack, out)),
            (Phase::Connected, Packet::PubComp(ack)) => {
                // Whatever its reason says: the server had received the message.
                Ok(self.acknowledged(Ack::new(ack.packet_id, ReasonCode::Success), out))
            }
            (Phase::Connected, Packet::Publish(message)) => self.message(message, out),
            (Phase::Connected, Packet::PubRel(ack)) => {
                self.received.retain(|packet_id| *packet_id != ack.packet_id);
                put_ack(Packet::PubComp, ack.packet_id, out);
                Ok(None)
            }
            (Phase::Connected, Packet::SubAck(ack)) => {
                self.requests.retain(|packet_id| *packet_id != ack.packet_id);
                Ok(Some(Event::Subscribed { packet_id: ack.packet_id, reasons: ack.reasons }))
            }
            (Phase::Connected, Packet::UnsubAck(ack)) => {
                self.requests.retain(|packet_id| *packet_id != ack.packet_id);
                Ok(Some(Event::Unsubscribed { packet_id: ack.packet_id, reasons: ack.reasons }))
            }
            (Phase::Connected, Packet::PingResp) => {
                self.ping_sent_ms = None;
                Ok(Some(Event::Pong))
            }
            (Phase::Connected, Packet::Disconnect(packet)) => {
                self.phase = Phase::Closed;
                Ok(Some(Event::Disconnected { reason: packet.reason, properties: packet.properties }))
            }
            (
                Phase::Connected,
                Packet::Connect(_)
                | Packet::ConnAck(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::PingReq
                | Packet::Auth(_),
            ) => Err(unexpected),
        }
    }

    fn connected<'a>(&mut self, ack: ConnAck<'a>, out: &mut Vec<u8>) -> Result<Event<'a>, ClientError> {
        if ack.reason.is_error() {
            return Err(ClientError::Refused(ack.reason));
        }
        if !ack.session_present {
            self.received.clear();
        }
        self.phase = Phase::Connected;
        let server_window = ack.properties.receive_maximum().unwrap_or(NonZeroU16::MAX);
        self.window = self.options.window.min(server_window).get().min(WINDOW_MAX);
        self.send_waiting(out);
        Ok(Event::Connected { session_present: ack.session_present, properties: ack.properties })
    }

    /// Sends what waits and fits the window, in the order first sent [MQTT-4.6.0-1]. A message that was sent before has
    /// DUP also where the server forgot the session: the former session may have delivered it.
    fn send_waiting(&mut self, out: &mut Vec<u8>) {
        for message in self.in_flight.iter_mut().take(usize::from(self.window)).filter(|message| !message.sent) {
            out.extend_from_slice(&message.frame);
            message.sent = true;
        }
    }

    /// Takes the acknowledged message out of flight. One nobody waits for is ignored: it answers a former connection.
    fn acknowledged<'a>(&mut self, ack: Ack<'a>, out: &mut Vec<u8>) -> Option<Event<'a>> {
        let at = self.in_flight.iter().position(|message| message.packet_id == ack.packet_id)?;
        let mut frame = self.in_flight.remove(at)?.frame;
        frame.clear();
        self.spare.push(frame);
        if self.in_flight.back().is_some_and(|last| !last.sent) {
            self.send_waiting(out);
        }
        Some(Event::Acknowledged { packet_id: ack.packet_id, reason: ack.reason })
    }

    /// The server has a message of QoS 2, or refuses it: PUBREL, or the end of the exchange [MQTT-4.3.3-4].
    fn received<'a>(&mut self, ack: Ack<'a>, out: &mut Vec<u8>) -> Option<Event<'a>> {
        if ack.reason.is_error() {
            return self.acknowledged(ack, out);
        }
        let ours = |message: &&mut InFlight| message.packet_id == ack.packet_id && message.qos == Qos::ExactlyOnce;
        let Some(message) = self.in_flight.iter_mut().find(ours) else {
            put_ack(Packet::PubRel, ack.packet_id, out); // so that the server forgets it as well
            return None;
        };
        message.received = true;
        message.frame.clear();
        put_ack(Packet::PubRel, ack.packet_id, &mut message.frame);
        out.extend_from_slice(&message.frame);
        None
    }

    fn message<'a>(&mut self, message: Publish<'a>, out: &mut Vec<u8>) -> Result<Option<Event<'a>>, ClientError> {
        if message.properties.topic_alias().is_some() {
            return Err(ClientError::TopicAlias);
        }
        let Some(packet_id) = message.packet_id else { return Ok(Some(Event::Message(message))) };
        if message.qos == Qos::AtLeastOnce {
            put_ack(Packet::PubAck, packet_id, out);
            return Ok(Some(Event::Message(message)));
        }
        put_ack(Packet::PubRec, packet_id, out);
        if self.received.contains(&packet_id) {
            return Ok(None); // [MQTT-4.3.3-10]
        }
        self.received.push(packet_id);
        Ok(Some(Event::Message(message)))
    }
}

/// Appends an acknowledgement that says success; its bytes are the same in both versions.
fn put_ack(packet: fn(Ack<'static>) -> Packet<'static>, packet_id: PacketId, out: &mut Vec<u8>) {
    let ack = packet(Ack::new(packet_id, ReasonCode::Success));
    encode(&ack, Version::V311, out).expect("an acknowledgement has four bytes");
}
