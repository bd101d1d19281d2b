//! The loops of this node: one a core for sockets, each on a thread of its own, and one for pipes within the process.
//!
//! Server layer. `driver` drives connections (`slot`) over a `transport`; `lanes` and `appends` take what they send into
//! the log; `thread` and `pipe` are the two ways a loop is run, `entrance` is the way to the threads. Why it is built this
//! way: ADR 17.

mod appends;
mod confirming;
mod drain;
mod driver;
mod entrance;
mod frames;
mod fuse;
mod hands;
mod lanes;
mod mailbox;
mod pipe;
mod proxied;
mod slot;
mod slots;
mod thread;
mod tls;
mod transport;
mod websocket;
mod wheel;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use drover_host::proxy::Balancers;
use drover_host::{Incoming, Tls};
use drover_types::TELEMETRY_TOPIC;
use mio::{Poll, Waker};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Timeouts;
use crate::domain::node::Node;
use appends::{Appends, Mailboxes};
pub use drain::Pace;
use driver::Loop;
pub use entrance::{Entrance, Upgraded};
use fuse::Fuse;
use hands::{Doors, Shared};
use lanes::Lanes;
use mailbox::{Mail, Mailbox};
use pipe::Pipe;
use thread::{Door, MAIL, Worker};
use transport::{Socket, Transport};

/// Address told of a peer within this process.
pub const PIPE_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Most loops; lanes know them by the bits of a word.
const LOOPS_MAX: usize = 64;
/// Wait before the log is asked again for its partitions.
const PARTITIONS_RETRY: Duration = Duration::from_millis(200);
/// How often it is told how much waits for the log.
const WATCH: Duration = Duration::from_secs(1);

/// A bound socket and how it is spoken to.
pub struct Listening {
    pub listener: std::net::TcpListener,
    pub tls: Option<Arc<Tls>>,
    pub anonymous: bool,
}

/// What the loops are to serve.
pub struct Setup {
    pub node: Arc<Node>,
    pub timeouts: Timeouts,
    pub connections_max: usize,
    pub listening: Vec<Listening>,
    /// Who says for whom it connects, at all of those.
    pub balancers: Balancers,
    /// Whether sockets come by the [`Loops::entrance`] as well.
    pub websockets: bool,
    /// Connections within this process, and whether they may be anonymous.
    pub pipes: (Incoming, bool),
    /// No new connections are taken from then on. Cancelled when a loop fails.
    pub shutdown: CancellationToken,
}

/// All loops of this node. They end when this is dropped, at the latest.
pub struct Loops {
    boxes: Mailboxes,
    entrance: Arc<Entrance>,
    running: TaskTracker,
    threads: Vec<JoinHandle<()>>,
    abort: CancellationToken,
    fuse: Fuse,
}

/// What every loop is made of.
struct Parts {
    shared: Arc<Shared>,
    lanes: Arc<Lanes>,
    boxes: Mailboxes,
}

impl Parts {
    /// Loop `number`, without connections.
    fn build<T: Transport>(&self, number: usize) -> Loop<T> {
        let Self { shared, lanes, boxes } = self;
        let appends = Appends::new(shared.node.clone(), lanes.clone(), boxes.clone(), number);
        Loop::new(shared.clone(), boxes[number].clone(), appends)
    }
}

impl Loops {
    /// Starts the loops: as many threads as there are cores if sockets may come.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let Setup { node, timeouts, connections_max, listening, balancers, websockets, pipes, shutdown } = setup;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(LOOPS_MAX - 1);
        let threads = if listening.is_empty() && !websockets { 0 } else { cores };
        let polls = (0..threads).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), MAIL).map(Arc::new));
        let wakers = wakers.collect::<io::Result<Vec<_>>>()?;
        let bell = Arc::<Notify>::default();
        let boxes = mailboxes(&wakers, &bell);

        let (write_ms, doors) = (timeouts.write.as_millis(), Doors::new(connections_max));
        let shared = Arc::new(Shared { node, write_ms, doors, balancers, runtime: Handle::current() });
        let entrance = Arc::new(Entrance::new(shared.clone(), wakers));
        let parts = Parts { shared, lanes: Arc::default(), boxes };
        let mut loops = Self {
            boxes: parts.boxes.clone(),
            entrance,
            running: TaskTracker::new(),
            threads: Vec::new(),
            abort: CancellationToken::new(),
            fuse: Fuse::new(shutdown.clone()),
        };
        loops.spawn(learn(parts.shared.node.clone(), parts.lanes.clone()));
        loops.spawn(watch(parts.shared.node.clone(), parts.lanes.clone()));
        loops.spawn(shut(parts.boxes.clone(), shutdown));
        let (incoming, anonymous) = pipes;
        let core = parts.build::<Pipe>(threads);
        let (abort, fuse) = (loops.abort.clone(), loops.fuse.clone());
        loops.running.spawn(async move {
            let _fuse = fuse;
            pipe::run(core, incoming, anonymous, bell, abort).await;
        });
        loops.start_threads(&parts, polls, listening)?;
        Ok(loops)
    }

    /// One thread for each of `polls`; listeners are shared out among them.
    fn start_threads(&mut self, parts: &Parts, polls: Vec<Poll>, listening: Vec<Listening>) -> io::Result<()> {
        let mut doors: Vec<Vec<Door>> = polls.iter().map(|_| Vec::new()).collect();
        for (number, Listening { listener, tls, anonymous }) in listening.into_iter().enumerate() {
            doors[number % polls.len()].push(Door::new(listener, tls, anonymous));
        }
        for (own, (poll, doors)) in polls.into_iter().zip(doors).enumerate() {
            let core = parts.build::<Socket>(own);
            let (entrance, abort) = (self.entrance.clone(), self.abort.clone());
            self.start_thread(Worker { poll, core, doors, entrance, own, abort })?;
        }
        Ok(())
    }

    /// The way in for connections that were accepted elsewhere.
    pub fn entrance(&self) -> Arc<Entrance> {
        self.entrance.clone()
    }

    /// Runs a task of the loops while they run.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.abort.clone().run_until_cancelled_owned(task));
    }

    /// Asks every connection to end, as many a second as `pace` says; what is returned ends when they have, and what they
    /// sent is stored and routed.
    pub fn drain(&self, pace: Pace) -> impl Future<Output = ()> + use<> {
        self.running.close();
        let (running, boxes) = (self.running.clone(), self.boxes.clone());
        async move {
            let told = async {
                pace.close(&boxes).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = running.wait() => {}
                () = told => {}
            }
        }
    }

    /// Ends the loops with the turns they are in, whatever connections are left; returns when they have ended, with
    /// whether one of them had failed.
    pub async fn end(self) -> bool {
        let (running, fuse) = (self.running.clone(), self.fuse.clone());
        drop(self);
        running.close();
        running.wait().await;
        fuse.is_blown()
    }

    /// Runs a loop on a thread that belongs to this runtime, and logs where this one does.
    fn start_thread(&mut self, worker: Worker) -> io::Result<()> {
        let (runtime, token, fuse) = (Handle::current(), self.running.token(), self.fuse.clone());
        let log = tracing::dispatcher::get_default(Clone::clone);
        let work = move || {
            let _token = token;
            let _log = tracing::dispatcher::set_default(&log);
            let _runtime = runtime.enter();
            let fuse = fuse; // dropped first
            if let Err(error) = worker.run() {
                tracing::error!(%error, "a thread of connections has failed, the service ends");
                fuse.blow();
            }
        };
        self.threads.push(std::thread::Builder::new().name("drover-loop".into()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        self.abort.cancel();
        self.boxes.iter().for_each(|mailbox| mailbox.wake());
        // They end with the turn they are in; a thread that has panicked has said so.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
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

/// Those of the threads, then that of the loop for pipes.
fn mailboxes(wakers: &[Arc<Waker>], bell: &Arc<Notify>) -> Mailboxes {
    let bell = bell.clone();
    let pipes = Mailbox::new(wakers.len(), move || bell.notify_one());
    wakers.iter().enumerate().map(|(number, waker)| woken_by(number, waker)).chain([pipes]).collect()
}

/// Closes the doors when the node is to shut down.
async fn shut(boxes: Mailboxes, shutdown: CancellationToken) {
    shutdown.cancelled().await;
    boxes.iter().for_each(|mailbox| mailbox.post(Mail::Shut));
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

/// Tells how much waits for the log.
async fn watch(node: Arc<Node>, lanes: Arc<Lanes>) {
    loop {
        node.telemetry.waiting("log", lanes.waiting());
        tokio::time::sleep(WATCH).await;
    }
}
