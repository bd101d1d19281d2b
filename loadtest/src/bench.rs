//! The load generator: clients that publish as fast as their windows allow, and clients that only stay connected.
//!
//! All clients are tasks on one thread, so that the generator takes one core at most and its own cost can be stated.
//! A closed loop: a client publishes when an acknowledgement makes room, so the latency is that at saturation.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientError, ClientOptions, Event, Phase, SendError};
use drover_mqtt::{EncodeError, PacketId, Publish, Version};
use drover_types::Qos;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout_at};

use crate::clock::cpu_us;
use crate::target::{Stream, Target};

/// Connections being opened at the same time; more only fill the server's accept queue.
const CONNECTING_MAX: usize = 64;
/// How long a connection may take to open, and the last acknowledgements to arrive, unless a plan says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// At QoS 0 a ping follows this many bytes, and one ping may be unanswered before the next: no client has more than twice
/// this unread. Sockets alone would hold megabytes of each client, for which the server would take minutes.
const PING_AFTER_BYTES: usize = 32 * 1024;
const PINGS_MAX: u64 = 1;
/// Longest latency the histogram can state, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// Bytes of a connection's first read buffer: an acknowledgement has four.
const READ_BYTES: usize = 256;

/// What to do.
#[derive(Clone)]
pub struct Plan {
    pub target: Target,
    pub version: Version,
    /// Clients that publish.
    pub clients: usize,
    /// Clients that connect and stay silent.
    pub idle: usize,
    /// Unacknowledged messages of each client; at QoS 0 how many are written at once.
    pub window: NonZeroU16,
    /// 0 or 1.
    pub qos: Qos,
    pub payload_bytes: usize,
    pub duration: Duration,
    /// How long a connection may take to open, and the last acknowledgements to arrive.
    pub patience: Duration,
    /// `{i}` stands for the client's number.
    pub topic: String,
    pub client_id: String,
    pub user_name: Option<String>,
    pub password: Option<String>,
}

/// Why a client stopped before its time.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("connect or i/o: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Mqtt(#[from] ClientError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("server closed the connection")]
    Closed,
    #[error("no answer for {0:?}")]
    Silent(Duration),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub clients: usize,
    pub idle: usize,
    /// Clients that got as far as a CONNACK.
    pub connected: usize,
    /// Time of publishing, in seconds; at QoS 1 up to the last acknowledgement.
    pub seconds: f64,
    pub sent: u64,
    /// QoS 1: positive acknowledgements. QoS 0: messages known to be read, because a later ping was answered.
    pub acknowledged: u64,
    /// QoS 1: acknowledgements with an error code.
    pub refused: u64,
    pub messages_per_second: f64,
    /// Publish to acknowledgement, in microseconds; 0 at QoS 0.
    pub ack_p50_us: u64,
    pub ack_p99_us: u64,
    pub ack_max_us: u64,
    /// CPU time of this process per acknowledged message, in microseconds; absent where the system does not say.
    pub generator_us_per_message: Option<f64>,
    /// Why clients stopped early, and how many.
    pub errors: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, idle, connected, .. } = self;
        writeln!(f, "connected      {connected} of {} clients: {clients} publishing, {idle} idle", clients + idle)?;
        writeln!(f, "sent           {} in {:.1} s", self.sent, self.seconds)?;
        writeln!(
            f,
            "acknowledged   {} ({:.0} msg/s), {} refused",
            self.acknowledged, self.messages_per_second, self.refused
        )?;
        writeln!(
            f,
            "ack latency    p50 {} µs, p99 {} µs, max {} µs",
            self.ack_p50_us, self.ack_p99_us, self.ack_max_us
        )?;
        if let Some(cost) = self.generator_us_per_message {
            writeln!(f, "generator cpu  {cost:.2} µs a message")?;
        }
        write!(f, "errors         {}", self.errors.values().sum::<u64>())?;
        for (error, count) in &self.errors {
            write!(f, "\n  {count} × {error}")?;
        }
        Ok(())
    }
}

impl Report {
    /// Why clients stopped early, in one line; `None`: none did.
    pub fn failure(&self) -> Option<String> {
        let told: Vec<String> = self.errors.iter().map(|(error, count)| format!("{count} × {error}")).collect();
        let stopped = self.errors.values().sum::<u64>();
        (stopped > 0).then(|| format!("{stopped} clients stopped early: {}", told.join(", ")))
    }
}

/// Counts of all clients; they run on one thread.
struct Tally {
    sent: u64,
    acknowledged: u64,
    refused: u64,
    connected: usize,
    latency_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// One client with its connection.
struct Session {
    client: Client,
    stream: Box<dyn Stream>,
    tally: Rc<RefCell<Tally>>,
    out: Vec<u8>,
    unread: Vec<u8>,
    /// When what was published and not acknowledged was published, oldest first; at most the window.
    published: VecDeque<(PacketId, Instant)>,
    pongs: u64,
}

/// Runs `plan` to its end on the current thread; needs a current-thread runtime.
pub async fn run(plan: &Plan) -> Report {
    let latency_us = Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds are valid");
    let (errors, connected) = (BTreeMap::new(), 0);
    let tally = Tally { sent: 0, acknowledged: 0, refused: 0, connected, latency_us, errors };
    let tally = Rc::new(RefCell::new(tally));
    let (seconds, cpu_us) = LocalSet::new().run_until(run_clients(plan, &tally)).await;
    let tally = tally.borrow();
    let count = tally.acknowledged;
    Report {
        clients: plan.clients,
        idle: plan.idle,
        connected: tally.connected,
        seconds,
        sent: tally.sent,
        acknowledged: count,
        refused: tally.refused,
        messages_per_second: if seconds > 0.0 { count as f64 / seconds } else { 0.0 },
        ack_p50_us: tally.latency_us.value_at_quantile(0.5),
        ack_p99_us: tally.latency_us.value_at_quantile(0.99),
        ack_max_us: tally.latency_us.max(),
        generator_us_per_message: cpu_us.filter(|_| count > 0).map(|us| us as f64 / count as f64),
        errors: tally.errors.clone(),
    }
}

/// Connects everyone, then lets them publish until the time is up; the seconds and CPU microseconds of the latter.
async fn run_clients(plan: &Plan, tally: &Rc<RefCell<Tally>>) -> (f64, Option<u64>) {
    let sessions = connect_all(plan, tally).await;
    let (started, cpu_before_us) = (Instant::now(), cpu_us());
    let stop_at = started + plan.duration;
    let payload: Rc<[u8]> = vec![b'x'; plan.payload_bytes].into();
    let mut tasks = JoinSet::new();
    for (index, session) in sessions {
        let is_publisher = index < plan.clients;
        let (topic, payload, plan) = (numbered(&plan.topic, index), payload.clone(), plan.clone());
        tasks.spawn_local(async move {
            let tally = session.tally.clone();
            let message = Publish { qos: plan.qos, ..Publish::new(&topic, &payload) };
            let ended = match (is_publisher, plan.qos) {
                (false, _) => session.stay(stop_at).await,
                (true, Qos::AtMostOnce) => {
                    patient(&plan, stop_at, session.publish_at_most_once(&message, plan.window, stop_at)).await
                }
                (true, Qos::AtLeastOnce | Qos::ExactlyOnce) => {
                    patient(&plan, stop_at, session.publish_acknowledged(&message, stop_at)).await
                }
            };
            tally.borrow_mut().note(ended);
        });
    }
    tasks.join_all().await;
    let cpu_us = cpu_us().zip(cpu_before_us).map(|(after, before)| after - before);
    (started.elapsed().as_secs_f64(), cpu_us)
}

async fn connect_all(plan: &Plan, tally: &Rc<RefCell<Tally>>) -> Vec<(usize, Session)> {
    let permits = Rc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for index in 0..plan.clients + plan.idle {
        let (plan, tally, permits) = (plan.clone(), tally.clone(), permits.clone());
        tasks.spawn_local(async move {
            let permit = permits.acquire().await;
            let session = patient(&plan, Instant::now(), Session::open(&plan, index, &tally)).await;
            drop(permit);
            match session {
                Ok(session) => {
                    tally.borrow_mut().connected += 1;
                    Some((index, session))
                }
                Err(stopped) => {
                    tally.borrow_mut().note(Err(stopped));
                    None
                }
            }
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Gives `work` some time beyond `stop_at`: one timer a client, not one a message.
async fn patient<T>(
    plan: &Plan,
    stop_at: Instant,
    work: impl Future<Output = Result<T, Stopped>>,
) -> Result<T, Stopped> {
    timeout_at(stop_at + plan.patience, work).await.unwrap_or(Err(Stopped::Silent(plan.patience)))
}

fn numbered(template: &str, index: usize) -> String {
    template.replace("{i}", &index.to_string())
}

impl Tally {
    fn note(&mut self, ended: Result<(), Stopped>) {
        if let Err(stopped) = ended {
            *self.errors.entry(stopped.to_string()).or_default() += 1;
        }
    }
}

impl Session {
    /// Connects client number `index`.
    async fn open(plan: &Plan, index: usize, tally: &Rc<RefCell<Tally>>) -> Result<Self, Stopped> {
        let mut options = ClientOptions::new(plan.version, numbered(&plan.client_id, index));
        options.window = plan.window;
        options.user_name = plan.user_name.as_ref().map(|name| numbered(name, index));
        options.password = plan.password.as_ref().map(|password| password.clone().into_bytes());
        let stream = plan.target.connect().await?;
        let mut session = Self {
            client: Client::new(options),
            stream,
            tally: tally.clone(),
            out: Vec::new(),
            unread: Vec::new(),
            published: VecDeque::new(),
            pongs: 0,
        };
        session.client.open(0, &mut session.out)?;
        while session.client.phase() == Phase::Connecting {
            session.exchange().await?;
        }
        Ok(session)
    }

    /// Writes what is to be sent, and takes what has come; waits for at least one byte.
    async fn exchange(&mut self) -> Result<(), Stopped> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        self.unread.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.unread).await? == 0 {
            return Err(Stopped::Closed);
        }
        self.digest()
    }

    fn digest(&mut self) -> Result<(), Stopped> {
        let Self { client, tally, out, unread, published, pongs, .. } = self;
        let (mut tally, now) = (tally.borrow_mut(), Instant::now());
        let taken = client.receive(unread, 0, out, |event| match event {
            Event::Acknowledged { packet_id, reason } => {
                let at = published.iter().position(|(id, _)| *id == packet_id);
                if let Some((_, since)) = at.and_then(|at| published.remove(at)) {
                    tally.latency_us.saturating_record((now - since).as_micros() as u64);
                }
                if reason.is_error() { tally.refused += 1 } else { tally.acknowledged += 1 }
            }
            Event::Pong => *pongs += 1,
            Event::Connected { .. }
            | Event::Message(_)
            | Event::Subscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::Disconnected { .. } => {}
        })?;
        unread.drain(..taken);
        if self.client.phase() == Phase::Closed { Err(Stopped::Closed) } else { Ok(()) }
    }

    /// Publishes whenever half of the window is free, so that one write carries several messages; after `stop_at` waits
    /// for what is in flight.
    async fn publish_acknowledged(mut self, message: &Publish<'_>, stop_at: Instant) -> Result<(), Stopped> {
        let worth_a_write = usize::from(self.client.window()).div_ceil(2);
        loop {
            let (now, room) = (Instant::now(), self.client.capacity());
            if room >= worth_a_write && now < stop_at {
                for _ in 0..room {
                    let packet_id = self.client.publish(message, 0, &mut self.out)?;
                    self.published.extend(packet_id.map(|packet_id| (packet_id, now)));
                }
                self.tally.borrow_mut().sent += room as u64;
            }
            if self.client.in_flight() == 0 {
                return self.close().await;
            }
            self.exchange().await?;
        }
    }

    /// Writes `window` messages at a time, as long as pings behind earlier ones are answered; they count when the last ping
    /// has been.
    async fn publish_at_most_once(
        mut self,
        message: &Publish<'_>,
        window: NonZeroU16,
        stop_at: Instant,
    ) -> Result<(), Stopped> {
        let (mut sent, mut pings, mut behind) = (0, 0, 0);
        while Instant::now() < stop_at {
            for _ in 0..window.get() {
                self.client.publish(message, 0, &mut self.out)?;
            }
            sent += u64::from(window.get());
            self.tally.borrow_mut().sent += u64::from(window.get());
            behind += self.out.len();
            if behind >= PING_AFTER_BYTES {
                self.client.ping(0, &mut self.out)?;
                (pings, behind) = (pings + 1, 0);
            }
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            while self.pongs + PINGS_MAX < pings {
                self.exchange().await?;
            }
        }
        self.client.ping(0, &mut self.out)?;
        while self.pongs <= pings {
            self.exchange().await?;
        }
        self.tally.borrow_mut().acknowledged += sent;
        self.close().await
    }

    /// Stays connected until `stop_at` without sending anything.
    async fn stay(mut self, stop_at: Instant) -> Result<(), Stopped> {
        loop {
            match timeout_at(stop_at, self.exchange()).await {
                Ok(exchanged) => exchanged?,
                Err(_) => return self.close().await,
            }
        }
    }

    async fn close(mut self) -> Result<(), Stopped> {
        self.client.disconnect(0, &mut self.out)?;
        self.stream.write_all(&self.out).await?;
        Ok(())
    }
}
