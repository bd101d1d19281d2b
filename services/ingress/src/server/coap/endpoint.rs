//! One UDP socket and the messages over it: reads datagrams, starts requests, sends answers, and sends again.
//!
//! One loop reads; requests run in tasks of their own, so many at once. A datagram that the socket does not take at once is
//! lost, as it could be anywhere else on its way: what matters is sent again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coap_lite::{MessageType, Packet, ResponseType};
use drover_host::Shutdown;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use super::observers::Observers;
use super::requests;
use super::telemetry::{Lost, Telemetry};
use super::transport::Transport;
use crate::domain::coap::Peer;
use crate::domain::coap::downloads::Downloads;
use crate::domain::coap::exchanges::{Exchanges, Seen};
use crate::domain::coap::reply::{Reply, empty};
use crate::domain::coap::request::{Method, Received, Request, receive};
use crate::domain::coap::transmissions::{Due, Transmissions};
use crate::domain::coap::uploads::Uploads;
use crate::domain::identity::Proof;
use crate::domain::node::Node;

/// Largest datagram read, in bytes: as large as UDP has them.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Requests under way at the same time; more are answered with 5.03.
const REQUESTS_MAX: usize = 512;
/// Those of one peer, which may be a proxy; more are answered with 4.29.
const REQUESTS_PER_PEER_MAX: u32 = 64;
/// How often is looked at what is due.
const TICK: Duration = Duration::from_millis(100);
/// Looks between two at bodies that nobody fetches or sends any more.
const SWEEP_TICKS: u32 = 100;

/// What endpoints work with.
#[derive(Clone)]
pub struct Setup {
    pub node: Arc<Node>,
    /// For a message to become durable.
    pub patience: Duration,
    pub boot: u64,
    pub observers: Arc<Observers>,
    pub telemetry: Arc<Telemetry>,
}

/// Where a request is from, and how it is answered.
#[derive(Clone, Debug)]
pub struct Origin {
    pub peer: Peer,
    pub id: u16,
    pub token: Vec<u8>,
    pub confirmable: bool,
    /// Of its datagram.
    pub bytes: usize,
    /// What its association has shown; `None`: there is none, and the request shows who it is by itself.
    pub shown: Option<Proof>,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    /// The observer does not know what it is about.
    Reset,
    /// Nobody has answered.
    GivenUp,
}

/// A socket and what is under way over it.
pub struct Endpoint {
    pub setup: Setup,
    pub transport: Transport,
    requests: Arc<Semaphore>,
    state: Mutex<State>,
    pub tasks: TaskTracker,
    draining: AtomicBool,
}

/// What is under way.
#[derive(Default)]
pub struct State {
    exchanges: Exchanges,
    /// Notifications have somebody to tell what became of them.
    transmissions: Transmissions<Option<oneshot::Sender<Outcome>>>,
    pub uploads: Uploads,
    pub downloads: Downloads,
    peers: HashMap<Peer, u32>,
    last_id: u16,
}

/// The place of a request among those under way.
struct Turn {
    endpoint: Arc<Endpoint>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.endpoint.state();
        if let Some(count) = state.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                state.peers.remove(&self.peer);
            }
        }
    }
}

impl Endpoint {
    /// An endpoint that has received nothing.
    pub fn new(setup: Setup, transport: Transport) -> Self {
        let state = State { last_id: random(&setup), ..State::default() };
        Self {
            setup,
            transport,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Serves until `shutdown`, then until all is answered; who still asks is told to come again.
    pub async fn serve(self: Arc<Self>, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        shutdown.run_until_cancelled(self.receive_all(&mut ticks, &mut buffer)).await;
        self.draining.store(true, Ordering::Release);
        self.transport.drain();
        self.setup.observers.stop();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.receive_all(&mut ticks, &mut buffer) => {}
        }
        self.transport.end();
    }

    async fn receive_all(self: &Arc<Self>, ticks: &mut Interval, buffer: &mut [u8]) {
        let mut count = 0_u32;
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    count = count.wrapping_add(1);
                    self.tick(count.is_multiple_of(SWEEP_TICKS));
                }
                received = self.transport.socket().recv_from(buffer) => match received {
                    Ok((bytes, address)) => self.take(&buffer[..bytes], address),
                    Err(error) => {
                        tracing::debug!(%error, "a datagram could not be read");
                        self.setup.telemetry.lost(Lost::Socket);
                        tokio::time::sleep(TICK).await; // the error may stay
                    }
                }
            }
        }
    }

    /// What is under way; held for a moment only.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what is under way is only brought to its end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Monotonic milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.setup.node.now().monotonic_ms
    }

    /// A message has come; `shown` is what its association has, if it came by one.
    pub fn receive(self: &Arc<Self>, datagram: &[u8], peer: Peer, shown: Option<Proof>) {
        match receive(datagram) {
            Received::Request(packet) => self.start(*packet, peer, datagram.len(), shown),
            Received::Acknowledged(id) => self.told((peer, id), Outcome::Acknowledged),
            Received::Reset(id) => self.told((peer, id), Outcome::Reset),
            Received::Unfit(id) => {
                self.setup.telemetry.lost(Lost::Malformed);
                self.send(peer, &empty(MessageType::Reset, id));
            }
            Received::Ignored => self.setup.telemetry.lost(Lost::Malformed),
        }
    }

    fn told(&self, key: (Peer, u16), outcome: Outcome) {
        let purpose = self.state().transmissions.answered(&key).flatten();
        if let Some(waiting) = purpose {
            waiting.send(outcome).ok(); // whoever has waited may be gone
        }
    }

    /// Starts a request, or answers one that has come again.
    fn start(self: &Arc<Self>, packet: Packet, peer: Peer, bytes: usize, shown: Option<Proof>) {
        let (id, token) = (packet.header.message_id, packet.get_token().to_vec());
        let confirmable = packet.header.get_type() == MessageType::Confirmable;
        let origin = Origin { peer, id, token, confirmable, bytes, shown };
        let now_ms = self.now_ms();
        let mut state = self.state();
        let seen = state.exchanges.begin((peer, id), confirmable, now_ms);
        let crowded_out = state.exchanges.take_crowded_out();
        drop(state);
        self.setup.telemetry.crowded_out(crowded_out);
        match seen {
            Seen::New => {}
            Seen::UnderWay(answer) => return self.repeat(&origin, answer),
            Seen::Answered(answer) => return self.repeat(&origin, Some(answer)),
        }
        let request = match Request::read(packet) {
            Ok(request) => request,
            Err(unanswerable) => return self.respond(&origin, &unanswerable.into(), true, false),
        };
        match self.turn(peer) {
            Ok(turn) => self.spawn(turn, origin, request),
            Err(reply) => self.respond(&origin, &reply, request.wants(reply.code), false),
        }
    }

    /// Nobody waits for the answer to a non-confirmable request that has come again (section 4.3).
    fn repeat(&self, origin: &Origin, answer: Option<Bytes>) {
        self.setup.telemetry.repeated();
        if let Some(answer) = answer.filter(|answer| origin.confirmable && !answer.is_empty()) {
            self.send(origin.peer, &answer);
        }
    }

    #[expect(clippy::result_large_err, reason = "it is answered at once, and not passed on")]
    fn turn(self: &Arc<Self>, peer: Peer) -> Result<Turn, Reply> {
        if self.is_draining() {
            return Err(Reply::refusing(ResponseType::ServiceUnavailable, "the node stops"));
        }
        let Ok(permit) = self.requests.clone().try_acquire_owned() else {
            return Err(Reply::refusing(ResponseType::ServiceUnavailable, "too many requests are under way"));
        };
        let mut state = self.state();
        let count = state.peers.entry(peer).or_default();
        if *count >= REQUESTS_PER_PEER_MAX {
            return Err(Reply::refusing(ResponseType::TooManyRequests, "too many requests of this peer are under way"));
        }
        *count += 1;
        drop(state);
        Ok(Turn { endpoint: self.clone(), peer, _permit: permit })
    }

    fn spawn(self: &Arc<Self>, turn: Turn, origin: Origin, request: Request) {
        let endpoint = self.clone();
        self.tasks.spawn(async move {
            let (method, no_response) = (request.method, request.no_response);
            let reply = requests::answer(&endpoint, &origin, request).await;
            // What is only read may be read again; what was done is not done twice.
            let keep = method == Method::Post && reply.known;
            endpoint.respond(&origin, &reply, Request::is_wanted(no_response, reply.code), keep);
            if requests::is_refused(&reply) {
                endpoint.transport.dissociate(origin.peer); // its revocation may have been missed
            }
            drop(turn);
        });
    }

    /// Answers a request, if the answer is wanted. `keep`: when the request comes again it gets the same answer.
    fn respond(&self, origin: &Origin, reply: &Reply, wanted: bool, keep: bool) {
        self.setup.telemetry.answered(reply.code);
        let reply = reply.clone().bounded(origin.bytes, origin.token.len());
        let (key, now_ms) = ((origin.peer, origin.id), self.now_ms());
        let mut state = self.state();
        let piggyback = state.exchanges.may_piggyback(&key);
        let datagram: Bytes = if piggyback && wanted {
            reply.encode(MessageType::Acknowledgement, origin.id, &origin.token).into()
        } else if piggyback {
            Bytes::copy_from_slice(&empty(MessageType::Acknowledgement, origin.id))
        } else if !wanted {
            Bytes::new()
        } else if origin.confirmable && reply.known {
            let id = state.next_id();
            let datagram = Bytes::from(reply.encode(MessageType::Confirmable, id, &origin.token));
            let random = random(&self.setup);
            // With too many under way it is sent once.
            state.transmissions.sent((origin.peer, id), datagram.clone(), None, now_ms, random).ok();
            datagram
        } else {
            // To somebody unknown, too: its address may be somebody else's, who is to get it once.
            reply.encode(MessageType::NonConfirmable, state.next_id(), &origin.token).into()
        };
        if piggyback && !keep {
            state.exchanges.forget(&key);
        } else {
            state.exchanges.answered(&key, if piggyback { datagram.clone() } else { Bytes::new() });
        }
        drop(state);
        if !datagram.is_empty() {
            self.send(origin.peer, &datagram);
        }
    }

    /// Sends a notification, as soon as there is room to wait for its answer, and again until it is answered; what became
    /// of it.
    pub async fn notify(self: Arc<Self>, peer: Peer, token: Vec<u8>, reply: Reply) -> Outcome {
        loop {
            if let Some(told) = self.try_notify(peer, &token, &reply) {
                return told.await.unwrap_or(Outcome::GivenUp);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// `None`: there is no room now.
    fn try_notify(&self, peer: Peer, token: &[u8], reply: &Reply) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, told) = oneshot::channel();
        let (now_ms, random) = (self.now_ms(), random(&self.setup));
        let mut state = self.state();
        if !state.transmissions.has_room() {
            return None; // and no id is used up
        }
        let id = state.next_id();
        let datagram = Bytes::from(reply.encode(MessageType::Confirmable, id, token));
        state.transmissions.sent((peer, id), datagram.clone(), Some(sender), now_ms, random).ok()?;
        drop(state);
        self.send(peer, &datagram);
        Some(told)
    }

    /// Sends what nobody has to answer.
    pub fn tell(&self, peer: Peer, token: &[u8], reply: &Reply) {
        let id = self.state().next_id();
        self.send(peer, &reply.encode(MessageType::NonConfirmable, id, token));
    }

    fn tick(&self, sweep: bool) {
        self.transport.tick(sweep, &self.setup.node);
        let now_ms = self.now_ms();
        let mut state = self.state();
        let slow = state.exchanges.slow(now_ms);
        let due = state.transmissions.due(now_ms);
        if sweep {
            state.uploads.forget_old(now_ms);
            state.downloads.forget_old(now_ms);
        }
        drop(state);
        slow.iter().for_each(|((peer, _), acknowledgement)| self.send(*peer, acknowledgement));
        for due in due {
            match due {
                Due::Again((peer, _), datagram) => {
                    self.setup.telemetry.retransmitted();
                    self.send(peer, &datagram);
                }
                Due::GivenUp(waiting) => give_up(waiting),
            }
        }
    }

    fn send(&self, peer: Peer, datagram: &[u8]) {
        self.transport.send(peer, datagram, &self.setup.telemetry);
    }
}

impl State {
    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }
}

fn give_up(waiting: Option<oneshot::Sender<Outcome>>) {
    if let Some(waiting) = waiting {
        waiting.send(Outcome::GivenUp).ok(); // whoever has waited may be gone
    }
}

fn random(setup: &Setup) -> u16 {
    let mut bytes = [0; 2];
    setup.node.random.fill(&mut bytes);
    u16::from_be_bytes(bytes)
}
