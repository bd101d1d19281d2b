//! The load generator: clients that publish as fast as their windows allow or at a pace, clients that get all messages, and
//! clients that only stay connected.
//!
//! All clients are tasks on one thread, so that the generator takes one core at most and its own cost can be stated.
//! Without a pace it is a closed loop: a client publishes when an acknowledgement makes room, so the latency is that at
//! saturation.

mod report;
mod session;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::rc::Rc;
use std::time::Duration;

use drover_mqtt::{Publish, Version};
use drover_types::Qos;
use hdrhistogram::Histogram;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep, timeout_at};

pub use report::Report;
use session::{Session, Stopped};

use crate::clock::cpu_us;
use crate::target::Target;

/// Connections being opened at the same time; more only fill the server's accept queue.
const CONNECTING_MAX: usize = 64;
/// Pause before a server that was too busy for a client is asked again.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection may take to open, and the last acknowledgements to arrive, unless a plan says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Longest latency the histogram can state, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What to do.
#[derive(Clone)]
pub struct Plan {
    pub target: Target,
    pub version: Version,
    /// Clients that publish.
    pub clients: usize,
    /// Clients that connect and stay silent.
    pub idle: usize,
    /// Clients that subscribe to everything, at `qos`.
    pub subscribers: usize,
    /// Messages a second of all publishing clients together; absent: as fast as their windows allow.
    pub rate: Option<NonZeroU32>,
    /// Local addresses that clients connect from in turn; empty: the system's choice.
    pub sources: Vec<IpAddr>,
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

/// Counts of all clients; they run on one thread.
struct Tally {
    sent: u64,
    /// Messages that were due while the window of their client was full.
    skipped: u64,
    acknowledged: u64,
    refused: u64,
    connected: usize,
    /// Messages that subscribers got, and when the last of them came.
    delivered: u64,
    last_delivery: Option<Instant>,
    /// Clients that are not done publishing, and when the last one was.
    publishing: usize,
    last_done: Option<Instant>,
    latency_us: Histogram<u64>,
    errors: BTreeMap<String, u64>,
}

/// Runs `plan` to its end on the current thread; needs a current-thread runtime.
pub async fn run(plan: &Plan) -> Report {
    let tally = Rc::new(RefCell::new(Tally::new()));
    let Spent { publishing_s, delivering_s, cpu_us } = LocalSet::new().run_until(run_clients(plan, &tally)).await;
    let tally = tally.borrow();
    let count = tally.acknowledged;
    let per_second = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    Report {
        clients: plan.clients,
        idle: plan.idle,
        subscribers: plan.subscribers,
        connected: tally.connected,
        seconds: publishing_s,
        sent: tally.sent,
        skipped: tally.skipped,
        acknowledged: count,
        refused: tally.refused,
        messages_per_second: per_second(count, publishing_s),
        delivered: tally.delivered,
        delivered_per_second: per_second(tally.delivered, delivering_s),
        ack_p50_us: tally.latency_us.value_at_quantile(0.5),
        ack_p99_us: tally.latency_us.value_at_quantile(0.99),
        ack_max_us: tally.latency_us.max(),
        generator_us_per_message: cpu_us.filter(|_| count > 0).map(|us| us as f64 / count as f64),
        errors: tally.errors.clone(),
    }
}

/// What a run took.
struct Spent {
    /// From the first message to the last acknowledgement.
    publishing_s: f64,
    /// From the first message to the last delivery.
    delivering_s: f64,
    /// Processor time of this thread.
    cpu_us: Option<u64>,
}

/// Connects everyone, then lets them publish until the time is up; what the latter took.
async fn run_clients(plan: &Plan, tally: &Rc<RefCell<Tally>>) -> Spent {
    let sessions = connect_all(plan, tally).await;
    tally.borrow_mut().publishing = sessions.iter().filter(|(index, _)| *index < plan.clients).count();
    let (started, cpu_before_us) = (Instant::now(), cpu_us());
    let stop_at = started + plan.duration;
    let payload: Rc<[u8]> = vec![b'x'; plan.payload_bytes].into();
    let mut tasks = JoinSet::new();
    for (index, session) in sessions {
        let (topic, payload, plan) = (numbered(&plan.topic, index), payload.clone(), plan.clone());
        tasks.spawn_local(async move {
            let tally = session.tally.clone();
            let message = Publish { qos: plan.qos, ..Publish::new(&topic, &payload) };
            let ended = if index < plan.clients {
                let ended = patient(&plan, stop_at, publish(session, &plan, index, &message, stop_at)).await;
                tally.borrow_mut().done();
                ended
            } else if index < plan.clients + plan.idle {
                session.stay(stop_at).await
            } else {
                session.receive().await
            };
            tally.borrow_mut().note(ended);
        });
    }
    tasks.join_all().await;
    let cpu_us = cpu_us().zip(cpu_before_us).map(|(after, before)| after - before);
    let tally = tally.borrow();
    let until = |end: Option<Instant>| end.map_or_else(|| started.elapsed(), |end| end - started).as_secs_f64();
    Spent { publishing_s: until(tally.last_done), delivering_s: until(tally.last_delivery), cpu_us }
}

/// Publishes until `stop_at`, as the plan says, and waits for what is under way then.
async fn publish(
    session: Session,
    plan: &Plan,
    index: usize,
    message: &Publish<'_>,
    stop_at: Instant,
) -> Result<(), Stopped> {
    if let Some(rate) = plan.rate {
        let pace = Duration::from_secs(1) * u32::try_from(plan.clients).unwrap_or(u32::MAX) / rate.get();
        // Not all at once.
        let first = Instant::now() + pace.mul_f64(index as f64 / plan.clients as f64);
        return session.publish_at_pace(message, first, pace, stop_at).await;
    }
    match plan.qos {
        Qos::AtMostOnce => session.publish_at_most_once(message, plan.window, stop_at).await,
        Qos::AtLeastOnce | Qos::ExactlyOnce => session.publish_acknowledged(message, stop_at).await,
    }
}

async fn connect_all(plan: &Plan, tally: &Rc<RefCell<Tally>>) -> Vec<(usize, Session)> {
    let permits = Rc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for index in 0..plan.clients + plan.idle + plan.subscribers {
        let (plan, tally, permits) = (plan.clone(), tally.clone(), permits.clone());
        tasks.spawn_local(async move {
            let permit = permits.acquire().await;
            let session = patient(&plan, Instant::now(), connect(&plan, index, &tally)).await;
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

/// Connects client number `index`, as devices do: again, if the server is too busy for it.
async fn connect(plan: &Plan, index: usize, tally: &Rc<RefCell<Tally>>) -> Result<Session, Stopped> {
    loop {
        match Session::open(plan, index, tally).await {
            Err(stopped) if stopped.is_for_now() => sleep(BUSY_PAUSE).await,
            opened => return opened,
        }
    }
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
    fn new() -> Self {
        Self {
            sent: 0,
            skipped: 0,
            acknowledged: 0,
            refused: 0,
            connected: 0,
            delivered: 0,
            last_delivery: None,
            publishing: 0,
            last_done: None,
            latency_us: Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds are valid"),
            errors: BTreeMap::new(),
        }
    }

    /// A client has published all it will.
    fn done(&mut self) {
        self.publishing -= 1;
        self.last_done = Some(Instant::now());
    }

    fn note(&mut self, ended: Result<(), Stopped>) {
        if let Err(stopped) = ended {
            *self.errors.entry(stopped.to_string()).or_default() += 1;
        }
    }
}
