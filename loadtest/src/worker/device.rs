//! One device: its connection, what it has in flight, its part in each turn of the loop.
//!
//! An idle one is this struct and a descriptor; what it needs only while it sends, or has half a packet, is boxed and
//! given back. Messages are due by the schedule, whatever the server does: what cannot be sent waits, and its latency
//! counts from when it was due.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::rc::Rc;

use drover_mqtt::{DecodeError, EncodeError, PacketType, ReasonCode};

use super::coap::Exchange;
use super::hands::{Alarm, Hands};
use super::late::Late;
use super::link::Link;
use super::plan::Plan;
use super::{coap, http, mqtt, socket};
use crate::payload::Sensors;
use crate::scenario::Protocol;

/// Messages of a device that wait or are not acknowledged; what is due beyond them is counted as unsent.
pub const FLIGHTS_MAX: usize = 1_000;
/// Reads of one device in a turn; others are waiting.
const READS_MAX: usize = 16;
/// How long an attempt to connect may take, in seconds, or one and a half keep alives if those are shorter: who was cut off
/// from its server in the midst of it hears nothing more.
const CONNECT_SECONDS_MAX: u32 = 30;
/// Until a device that wants to leave looks again whether it may, in microseconds.
const STAY_US: u64 = 200_000;
/// A ping is sent after this part of the keep-alive, in percent.
const PING_AFTER_PERCENT: u64 = 66;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is none, but there will be.
    Absent,
    /// There is none: by the device's own choice.
    Away,
    /// Waits for its turn to connect.
    Queued,
    Opening,
    /// CONNECT is sent.
    Greeting,
    Up,
}

/// One device.
pub struct Device {
    pub link: Link,
    pub active: Option<Box<Active>>,
    /// When the connection was due, in microseconds since the start; tries that fail do not change it.
    pub due_us: u64,
    /// Its number in its fleet.
    pub number: u32,
    /// Its number in its worker.
    pub index: u32,
    /// When it has written last, or begun to connect; in seconds since the start.
    pub wrote_s: u32,
    pub fleet: u16,
    pub phase: Phase,
    /// Connections lost in a row.
    pub attempts: u8,
    pub awaits_pong: bool,
    pub will_leave: bool,
    /// Whether it has been connected before: then the server has its session, if that is to last.
    pub has_session: bool,
}

/// What a device has beyond its connection.
#[derive(Default)]
pub struct Active {
    pub sensors: Option<Sensors>,
    /// Oldest first: `in_flight` that are sent, then those that wait.
    pub flights: VecDeque<Flight>,
    pub in_flight: usize,
    pub next_number: u64,
    pub packet_id: u16,
    /// Of `timing = "change"`: what was sent last, and when.
    pub last: Option<(f64, u64)>,
    /// Of `timing = "batch"`: rows that wait, and how many.
    pub rows: Vec<u8>,
    pub row_count: u32,
    /// The begin of a packet.
    pub unread: Vec<u8>,
    /// What the socket has not taken.
    pub unsent: Vec<u8>,
    /// What a slow network has not let through.
    pub late: Late,
    /// Of the request under way over CoAP.
    pub exchange: Exchange,
}

/// A message, or a batch of them, without an acknowledgement.
pub struct Flight {
    pub due_us: u64,
    /// The message's number, or that of the first; answers have none.
    pub number: Option<u64>,
    /// How many messages it is: 1, or the rows of a batch.
    pub messages: u32,
    /// 0 at QoS 0 and over HTTP; over CoAP the message id.
    pub packet_id: u16,
    /// Whether it may be sent again after the connection was lost.
    pub is_repeatable: bool,
    /// Whether it has been counted as sent.
    pub was_sent: bool,
    /// The packet or request.
    pub frame: Vec<u8>,
}

impl Flight {
    /// So many of its messages are there.
    pub fn landed(&self, messages: u64, hands: &mut Hands) {
        hands.tally.counts.acknowledged += messages;
        hands.tally.ack.record(hands.clock.now_us().saturating_sub(self.due_us));
    }

    /// It was sent, and will have no answer; that has taken until now.
    pub fn give_up(&self, hands: &mut Hands) {
        hands.tally.counts.unacknowledged += u64::from(self.messages);
        hands.tally.ack.record(hands.now_us.saturating_sub(self.due_us));
    }
}

impl Active {
    fn is_needless(&self) -> bool {
        let is_quiet = self.unread.is_empty() && self.unsent.is_empty() && self.late.is_empty();
        self.sensors.is_none() && self.flights.is_empty() && is_quiet
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("i/o: {0}")]
    Io(#[from] io::Error),
    #[error("tls: {0}")]
    Tls(String),
    #[error("connection closed by the server")]
    Closed,
    #[error("connection refused: {0}")]
    Refused(ReasonCode),
    #[error("disconnected by the server: {0}")]
    Disconnected(ReasonCode),
    #[error("no answer to a ping")]
    Silent,
    #[error("not connected within {CONNECT_SECONDS_MAX} s")]
    Late,
    #[error("unreadable answer: {0}")]
    Decode(#[from] DecodeError),
    #[error("not sendable: {0}")]
    Encode(#[from] EncodeError),
    #[error("unexpected {0}")]
    Unexpected(PacketType),
    #[error("unreadable answer over http: {0}")]
    Http(String),
    #[error("coap: {0}")]
    Coap(String),
}

impl Device {
    pub fn new(plan: &Plan, number: u32, index: u32) -> Self {
        Self {
            link: Link::Gone,
            active: None,
            due_us: plan.arrives_us(number),
            number,
            index,
            wrote_s: 0,
            fleet: plan.number as u16,
            phase: Phase::Absent,
            attempts: 0,
            awaits_pong: false,
            will_leave: false,
            has_session: false,
        }
    }

    pub fn plan(&self, hands: &Hands) -> Rc<Plan> {
        hands.plans[usize::from(self.fleet)].clone()
    }

    pub fn active(&mut self) -> &mut Active {
        self.active.get_or_insert_default()
    }

    /// Whether it has messages that wait, or that are not acknowledged.
    pub fn is_waited_for(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !active.flights.is_empty())
    }

    /// Begins to connect.
    pub fn open(&mut self, index: u32, hands: &mut Hands) {
        let plan = self.plan(hands);
        let source = socket::source(plan.address, plan.before + u64::from(self.number), plan.connections_per_source);
        (self.phase, self.wrote_s) = (Phase::Opening, seconds(hands.now_us));
        hands.connecting += 1;
        match self.opened(&plan, source, index, hands) {
            Ok(link) => self.link = link,
            Err(lost) => self.lost(index, &lost, hands),
        }
    }

    /// A link whose socket is watched.
    fn opened(&self, plan: &Plan, source: Option<Ipv4Addr>, index: u32, hands: &Hands) -> Result<Link, Lost> {
        if plan.fleet.protocol == Protocol::Coap {
            let socket = socket::open_datagrams(plan.address, source)?;
            hands.selector.add(&socket, index)?;
            return Ok(Link::Datagrams(socket));
        }
        let secured = plan.secured(self.number).map_err(|error| Lost::Tls(format!("{error:#}")))?;
        let tcp = socket::open(plan.address, source)?;
        hands.selector.add(&tcp, index)?;
        Ok(Link::new(tcp, secured.as_ref())?)
    }

    /// Does what the socket is ready for.
    pub fn turn(&mut self, index: u32, hands: &mut Hands) {
        if matches!(self.phase, Phase::Absent | Phase::Away | Phase::Queued) {
            return;
        }
        if let Err(lost) = self.progress(index, hands) {
            self.lost(index, &lost, hands);
        }
    }

    fn progress(&mut self, index: u32, hands: &mut Hands) -> Result<(), Lost> {
        let plan = self.plan(hands);
        if self.phase == Phase::Opening && !self.connect(&plan, index, hands)? {
            return Ok(());
        }
        self.read(&plan, index, hands)?;
        self.write_out(&plan, hands)
    }

    /// Writes what this turn has brought, and sends what nothing holds back any more.
    pub fn write_out(&mut self, plan: &Plan, hands: &mut Hands) -> Result<(), Lost> {
        self.write(hands)?;
        // What has waited until the socket took the bytes before it.
        while self.is_free_to_send(plan) {
            self.send_waiting(plan, hands);
            self.write(hands)?;
        }
        Ok(())
    }

    /// Whether messages wait that nothing holds back.
    fn is_free_to_send(&self, plan: &Plan) -> bool {
        self.phase == Phase::Up
            && self.active.as_ref().is_some_and(|active| {
                active.unsent.is_empty() && active.in_flight < active.flights.len() && active.in_flight < plan.window()
            })
    }

    /// Goes from TCP to the greeting; whether it has come so far.
    fn connect(&mut self, plan: &Plan, index: u32, hands: &mut Hands) -> Result<bool, Lost> {
        match self.link.connected() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if plan.fleet.protocol.is_web_socket() && matches!(self.link, Link::Stream(_)) {
            let scheme = if plan.fleet.protocol.is_tls() { "wss" } else { "ws" };
            self.link.upgrade(&format!("{scheme}://{}/mqtt", plan.authority))?;
        }
        if !self.link.is_open()? {
            return Ok(false);
        }
        if plan.fleet.protocol.is_mqtt() {
            self.phase = Phase::Greeting;
            mqtt::greet(self, plan, hands)?;
        } else {
            self.up(plan, index, hands);
            self.send_waiting(plan, hands);
        }
        Ok(true)
    }

    /// The connection serves its purpose from now on.
    pub fn up(&mut self, plan: &Plan, index: u32, hands: &mut Hands) {
        self.phase = Phase::Up;
        self.attempts = 0;
        self.awaits_pong = false;
        hands.connecting -= 1;
        hands.tally.connected += 1;
        hands.tally.counts.connects += 1;
        let now_us = hands.clock.now_us();
        hands.tally.connect.record(now_us.saturating_sub(self.due_us));
        if let Some(churn) = plan.fleet.churn.filter(|_| !self.will_leave) {
            let stay_us = exponential(churn.stay.us() as f64, &mut hands.random);
            hands.timers.set(now_us + stay_us, index, Alarm::Leave);
            self.will_leave = true;
        }
    }

    /// Reads what has come, and takes it in; half a packet is kept.
    fn read(&mut self, plan: &Plan, index: u32, hands: &mut Hands) -> Result<(), Lost> {
        let mut input = std::mem::take(&mut hands.input);
        input.clear();
        if let Some(active) = &mut self.active {
            input.append(&mut active.unread);
        }
        let mut ended = Ok(());
        for reads in 0.. {
            if reads == READS_MAX {
                hands.again.push(index);
                break;
            }
            match self.link.read(&mut input) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    ended = Err(Lost::Closed);
                    break;
                }
                Err(error) => {
                    ended = Err(error.into());
                    break;
                }
            }
        }
        let taken = match plan.fleet.protocol {
            Protocol::Http | Protocol::Https => http::take(self, plan, &input, hands),
            Protocol::Coap => coap::take(self, plan, &input, hands),
            Protocol::Mqtt | Protocol::Mqtts | Protocol::Ws | Protocol::Wss => {
                mqtt::take(self, plan, index, &input, hands)
            }
        };
        if let Ok(taken) = &taken
            && *taken < input.len()
        {
            self.active().unread.extend_from_slice(&input[*taken..]);
        }
        hands.input = input;
        taken?;
        ended
    }

    /// Writes what this turn has brought; over a slow network it is on its way for a time.
    pub fn write(&mut self, hands: &mut Hands) -> Result<(), Lost> {
        let fleet = &hands.plans[usize::from(self.fleet)].fleet;
        let (network, is_datagram) = (fleet.network, fleet.protocol == Protocol::Coap);
        let Some(network) = network.filter(|_| !hands.output.is_empty()) else { return self.write_now(hands) };
        let bytes = std::mem::take(&mut hands.output);
        self.wrote_s = seconds(hands.now_us);
        let due_us = self.active().late.keep(bytes, &network, is_datagram, hands.now_us, &mut hands.random);
        if let Some(due_us) = due_us {
            hands.timers.set(due_us, self.index, Alarm::Through);
        }
        Ok(())
    }

    /// Writes what a slow network lets through now.
    pub fn through(&mut self, hands: &mut Hands) {
        let now_us = hands.now_us;
        let Some(active) = &mut self.active else { return };
        active.late.take(now_us, &mut hands.output);
        if let Err(lost) = self.write_now(hands) {
            self.lost(self.index, &lost, hands);
        }
    }

    /// Writes, after what an earlier turn has left.
    fn write_now(&mut self, hands: &mut Hands) -> Result<(), Lost> {
        let mut output = std::mem::take(&mut hands.output);
        if let Some(active) = self.active.as_mut().filter(|active| !active.unsent.is_empty()) {
            active.unsent.append(&mut output);
            output.append(&mut active.unsent);
        }
        let written = self.write_all(&output, hands);
        if let Ok(written) = &written
            && *written < output.len()
        {
            self.active().unsent.extend_from_slice(&output[*written..]);
        }
        output.clear();
        hands.output = output;
        self.active.take_if(|active| active.is_needless());
        written?;
        Ok(self.link.flush()?)
    }

    /// Writes as much as the socket takes; how much.
    fn write_all(&mut self, output: &[u8], hands: &Hands) -> Result<usize, Lost> {
        let mut written = 0;
        while written < output.len() {
            match self.link.write(&output[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if written > 0 {
            self.wrote_s = seconds(hands.now_us);
        }
        Ok(written)
    }

    /// Sends what waits, as far as the window allows. At QoS 0, where what is written is as good as acknowledged, as long as
    /// the socket has taken everything before it.
    pub fn send_waiting(&mut self, plan: &Plan, hands: &mut Hands) {
        let Some(active) = self.active.as_mut().filter(|_| self.phase == Phase::Up) else { return };
        let (is_http, window) = (plan.fleet.protocol.is_http(), plan.window());
        let is_full = !active.unsent.is_empty();
        while active.in_flight < window && active.in_flight < active.flights.len() {
            let flight = &mut active.flights[active.in_flight];
            let is_answered = flight.packet_id > 0 || is_http;
            if is_full && !is_answered {
                break;
            }
            hands.output.extend_from_slice(&flight.frame);
            if !flight.was_sent {
                flight.was_sent = true;
                hands.tally.counts.sent += u64::from(flight.messages);
            }
            if is_answered {
                active.in_flight += 1;
                if plan.fleet.protocol == Protocol::Coap {
                    active.exchange = Exchange::begin(hands.now_us, &mut hands.random);
                }
            } else {
                flight.landed(u64::from(flight.messages), hands);
                active.flights.remove(active.in_flight);
            }
        }
    }

    /// What a second without bytes asks for: pings, and an end to waiting.
    pub fn tick(&mut self, index: u32, hands: &mut Hands) {
        let quiet_s = u64::from(seconds(hands.now_us).saturating_sub(self.wrote_s));
        let is_connecting = matches!(self.phase, Phase::Opening | Phase::Greeting);
        if !is_connecting && self.phase != Phase::Up {
            return;
        }
        let plan = self.plan(hands);
        let keep_alive_s = plan.fleet.keep_alive.us() / 1_000_000;
        if is_connecting {
            let silence_s_max = if keep_alive_s == 0 { u64::MAX } else { keep_alive_s * 3 / 2 };
            if quiet_s > silence_s_max.min(u64::from(CONNECT_SECONDS_MAX)) {
                self.lost(index, &Lost::Late, hands);
            }
            return;
        }
        if plan.fleet.protocol == Protocol::Coap {
            coap::tick(self, &plan, hands);
            if let Err(lost) = self.write(hands) {
                self.lost(index, &lost, hands);
            }
            return;
        }
        if keep_alive_s == 0 || plan.fleet.protocol.is_http() || quiet_s * 100 < keep_alive_s * PING_AFTER_PERCENT {
            return;
        }
        if self.awaits_pong {
            return self.lost(index, &Lost::Silent, hands);
        }
        self.awaits_pong = true;
        if let Err(lost) = mqtt::ping(&plan, hands).and_then(|()| self.write(hands)) {
            self.lost(index, &lost, hands);
        }
    }

    /// Leaves by choice, and comes back later; stays until what it has sent is acknowledged.
    pub fn leave(&mut self, index: u32, hands: &mut Hands) {
        if self.is_waited_for() && self.phase == Phase::Up {
            return hands.timers.set(hands.now_us + STAY_US, index, Alarm::Leave);
        }
        self.will_leave = false;
        let plan = self.plan(hands);
        let Some(churn) = plan.fleet.churn.filter(|_| self.phase == Phase::Up) else { return };
        if churn.goodbye {
            self.goodbye(&plan, hands);
        }
        self.cut(hands);
        self.phase = Phase::Away;
        self.due_us = hands.now_us + churn.away.us();
        hands.timers.set(self.due_us, index, Alarm::Connect);
    }

    /// Says goodbye, as far as the socket takes it.
    pub fn goodbye(&mut self, plan: &Plan, hands: &mut Hands) {
        if self.phase == Phase::Up && plan.fleet.protocol.is_mqtt() {
            // It is behind all that is under way; what becomes of it is of no interest any more.
            if let Some(active) = &mut self.active {
                active.late.take(u64::MAX, &mut hands.output);
            }
            mqtt::disconnect(plan, hands).and_then(|()| self.write_now(hands)).ok();
        }
    }

    /// Ends the connection without a word, as a network does that is gone. The reason is not counted.
    pub fn cut(&mut self, hands: &mut Hands) {
        match self.phase {
            Phase::Up => hands.tally.connected -= 1,
            Phase::Opening | Phase::Greeting => hands.connecting -= 1,
            Phase::Absent | Phase::Away | Phase::Queued => return,
        }
        self.link = Link::Gone;
        self.phase = Phase::Absent;
        self.awaits_pong = false;
        hands.output.clear();
        let protocol = self.plan(hands).fleet.protocol;
        if let Some(active) = &mut self.active {
            active.unread.clear();
            active.unsent.clear();
            active.late.clear();
            match protocol {
                Protocol::Http | Protocol::Https => http::restart(active, hands),
                Protocol::Coap => coap::restart(active),
                Protocol::Mqtt | Protocol::Mqtts | Protocol::Ws | Protocol::Wss => mqtt::restart(active),
            }
        }
        self.active.take_if(|active| active.is_needless());
    }

    /// The connection is gone: counts it, and comes back after a pause.
    pub fn lost(&mut self, index: u32, why: &Lost, hands: &mut Hands) {
        let plan = self.plan(hands);
        // Servers close connections of HTTP that have nothing to say: it is opened again when it has.
        let is_rest = plan.fleet.protocol.is_http() && matches!(why, Lost::Closed) && !self.is_waited_for();
        if !is_rest {
            match self.phase {
                Phase::Up => hands.tally.counts.connections_lost += 1,
                Phase::Opening | Phase::Greeting => hands.tally.counts.connect_failures += 1,
                Phase::Absent | Phase::Away | Phase::Queued => return,
            }
            hands.tally.error(why.to_string());
        }
        let was_up = self.phase == Phase::Up;
        self.cut(hands);
        if is_rest {
            return;
        }
        let [first, last] = plan.fleet.reconnect;
        let pause_us = first.us().saturating_mul(1 << self.attempts.min(20)).min(last.us()).max(1);
        self.attempts = self.attempts.saturating_add(1);
        // Half of the pause is by chance, or all would come back at once.
        let back_us = hands.now_us + pause_us / 2 + hands.random.u64(0..=pause_us / 2);
        if was_up {
            self.due_us = back_us;
        }
        hands.timers.set(back_us, index, Alarm::Connect);
    }
}

/// A time as whole seconds since the start.
pub fn seconds(us: u64) -> u32 {
    u32::try_from(us / 1_000_000).unwrap_or(u32::MAX)
}

/// A gap of a Poisson process, in microseconds.
pub fn exponential(mean_us: f64, random: &mut fastrand::Rng) -> u64 {
    (-(1.0 - random.f64()).ln() * mean_us) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise of the README: what a worker keeps of an idle connection, its alarm included.
    const IDLE_BYTES_MAX: usize = 300;

    #[test]
    fn an_idle_device_is_small() {
        let alarm = size_of::<(u64, u32, Alarm)>();
        let bytes = size_of::<Device>() + alarm;
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes} B");
        assert!(size_of::<Device>() <= 72, "{} B", size_of::<Device>());
    }

    #[test]
    fn gaps_of_a_poisson_process_have_their_mean() {
        let mut random = fastrand::Rng::with_seed(7);
        let gaps = 50_000;
        let sum: u64 = (0..gaps).map(|_| exponential(1_000.0, &mut random)).sum();
        assert!((950..1_050).contains(&(sum / gaps)), "{}", sum / gaps);
    }
}
