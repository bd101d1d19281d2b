//! The loops of this node: one a core for sockets, each on a thread of its own, and one for pipes within the process.
//!
//! Server layer. `core` drives connections (`slot`) over a `transport`; `lanes` and `appends` take what they send into
//! the log; `thread` and `pipe` are the two ways a loop is run. Why it is built this way: ADR 17.

mod appends;
mod core;
mod hands;
mod lanes;
mod mailbox;
mod pipe;
mod slot;
mod thread;
mod tls;
mod transport;
mod wheel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use drover_host::Incoming;
use drover_types::TELEMETRY_TOPIC;
use mio::{Poll, Waker};
use rustls::ServerConfig;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::IngressFaults;
use crate::config::Timeouts;
use crate::domain::node::Node;
use appends::{Appends, Mailboxes};
use core::Loop;
use hands::{Doors, Shared};
use lanes::Lanes;
use mailbox::{Mail, Mailbox};
use pipe::Pipe;
use thread::{Arrivals, Door, MAIL, Worker};
use transport::Socket;

/// Address told of a peer within this process.
pub const PIPE_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Most loops; lanes know them by the bits of a word.
const LOOPS_MAX: usize = 64;
/// Wait before the log is asked again for its partitions.
const PARTITIONS_RETRY: Duration = Duration::from_millis(200);

/// A bound socket and how it is spoken to.
pub struct Listening {
    pub listener: std::net::TcpListener,
    pub tls: Option<Arc<ServerConfig>>,
    pub anonymous: bool,
}

/// What the loops are to serve.
pub struct Setup {
    pub node: Arc<Node>,
    pub timeouts: Timeouts,
    pub connections_max: usize,
    pub faults: IngressFaults,
    pub listening: Vec<Listening>,
    /// Connections within this process, and whether they may be anonymous.
    pub pipes: (Incoming, bool),
}

/// All loops of this node. They end when this is dropped.
pub struct Loops {
    boxes: Mailboxes,
    running: TaskTracker,
    _abort: DropGuard,
}

impl Loops {
    /// Starts the loops: as many threads as there are cores if there is a socket to listen to.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let Setup { node, timeouts, connections_max, faults, listening, pipes } = setup;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(LOOPS_MAX - 1);
        let polls = (0..if listening.is_empty() { 0 } else { cores }).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), MAIL).map(Arc::new));
        let wakers = wakers.collect::<io::Result<Vec<_>>>()?;
        let bell = Arc::<Notify>::default();
        let mut boxes: Vec<_> = wakers.iter().enumerate().map(|(number, waker)| woken_by(number, waker)).collect();
        let pipe_bell = bell.clone();
        boxes.push(Mailbox::new(boxes.len(), move || pipe_bell.notify_one()));
        let boxes: Mailboxes = boxes.into();

        let (lanes, abort, running) = (Arc::<Lanes>::default(), CancellationToken::new(), TaskTracker::new());
        let write_ms = timeouts.write.as_millis();
        let (doors, runtime) = (Doors::new(connections_max), Handle::current());
        let shared = Arc::new(Shared { node: node.clone(), write_ms, faults, doors, runtime });
        let make = |number: usize| {
            let appends = Appends::new(node.clone(), lanes.clone(), boxes.clone(), number, faults.scatter_devices);
            (shared.clone(), boxes[number].clone(), appends)
        };
        tokio::spawn(abort.clone().run_until_cancelled_owned(learn(node.clone(), lanes.clone())));
        let (shared_pipes, mailbox, appends) = make(boxes.len() - 1);
        let pipe_loop = Loop::<Pipe>::new(shared_pipes, mailbox, appends);
        running.spawn(pipe::run(pipe_loop, pipes.0, pipes.1, bell, abort.clone()));

        let threads: Arc<[_]> = wakers.into_iter().map(|waker| (Arrivals::default(), waker)).collect();
        let mut doors: Vec<Vec<Door>> = polls.iter().map(|_| Vec::new()).collect();
        for (number, Listening { listener, tls, anonymous }) in listening.into_iter().enumerate() {
            doors[number % cores].push(Door::new(listener, tls, anonymous));
        }
        for (own, (poll, doors)) in polls.into_iter().zip(doors).enumerate() {
            let (shared, mailbox, appends) = make(own);
            let core = Loop::<Socket>::new(shared, mailbox, appends);
            let (threads, abort) = (threads.clone(), abort.clone());
            spawn(Worker { poll, core, doors, threads, own, turn: own, abort }, &running)?;
        }
        Ok(Self { boxes, running, _abort: abort.drop_guard() })
    }

    /// Takes no new connections from now on.
    pub fn shut(&self) {
        self.boxes.iter().for_each(|mailbox| mailbox.post(Mail::Shut));
    }

    /// Asks every connection to end, and returns when they have, and what they sent is stored and routed.
    pub async fn drain(&self) {
        self.boxes.iter().for_each(|mailbox| mailbox.post(Mail::Drain));
        self.running.close();
        self.running.wait().await;
    }
}

fn woken_by(number: usize, waker: &Arc<Waker>) -> Arc<Mailbox> {
    let waker = waker.clone();
    Mailbox::new(number, move || {
        if let Err(error) = waker.wake() {
            tracing::error!(%error, "a thread of connections cannot be woken");
        }
    })
}

/// Runs a loop on a thread that belongs to this runtime, and logs where this one does.
fn spawn(worker: Worker, running: &TaskTracker) -> io::Result<()> {
    let (runtime, token) = (Handle::current(), running.token());
    let log = tracing::dispatcher::get_default(Clone::clone);
    let work = move || {
        let _token = token;
        let _log = tracing::dispatcher::set_default(&log);
        let _runtime = runtime.enter();
        if let Err(error) = worker.run() {
            tracing::error!(%error, "a thread of connections has ended");
        }
    };
    std::thread::Builder::new().name("drover-loop".into()).spawn(work).map(drop)
}

/// Tells the lanes how many partitions there are, once the log says so.
async fn learn(node: Arc<Node>, lanes: Arc<Lanes>) {
    loop {
        let topics = node.bus.topics().await.unwrap_or_default();
        if let Some(topic) = topics.iter().find(|topic| &*topic.topic == TELEMETRY_TOPIC) {
            return lanes.learn(topic.partitions);
        }
        tokio::time::sleep(PARTITIONS_RETRY).await;
    }
}
