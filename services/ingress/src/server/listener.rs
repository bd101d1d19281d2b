//! Accepts connections, within the node's limit, and knows all that are open so that they can be drained.
//!
//! Server layer. A handshake runs in its connection's own task and deadline: a slow one costs only itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::WebSocket;
use drover_host::Incoming;
use futures::StreamExt;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mqtt::{self, Setup};
use super::tls;
use super::websocket::BinaryFrames;
use crate::config::Timeouts;
use crate::domain::connection::Peer;
use crate::domain::link::{Link, Stop};
use crate::domain::node::Node;

/// Connections over the limit that are answered with a reason at the same time; more are just closed.
const REFUSALS_MAX: usize = 64;
/// Wait after an accept that failed, for lack of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Address told of a peer within this process.
pub const PIPE_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// All listeners and connections of this node.
pub struct Listeners {
    pub node: Arc<Node>,
    pub timeouts: Timeouts,
    room: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Open connections by the order of their coming.
    open: Mutex<HashMap<u64, Arc<Link>>>,
    accepted: AtomicU64,
    tasks: TaskTracker,
}

/// What a connection comes in by.
enum Transport {
    Tcp(TcpStream),
    Tls(TcpStream, TlsAcceptor),
    Pipe(DuplexStream),
    WebSocket(Box<BinaryFrames>),
}

/// A bound socket and how it is spoken to.
pub struct Listening {
    pub listener: TcpListener,
    pub tls: Option<TlsAcceptor>,
    pub anonymous: bool,
}

impl Listeners {
    /// No connections yet, at most `connections_max` later.
    pub fn new(node: Arc<Node>, timeouts: Timeouts, connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            node,
            timeouts,
            room: Arc::new(Semaphore::new(connections_max)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            tasks: TaskTracker::new(),
        })
    }

    /// Accepts connections until `stop`.
    pub async fn accept(self: Arc<Self>, listening: Listening, stop: CancellationToken) {
        let Listening { listener, tls, anonymous } = listening;
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, address)) => {
                    let transport = match &tls {
                        Some(tls) => Transport::Tls(stream, tls.clone()),
                        None => Transport::Tcp(stream),
                    };
                    self.clone().start(transport, address, anonymous);
                }
                Err(error) => {
                    self.node.telemetry.accept_failed(&error);
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Accepts connections made within this process, as a simulation does, until `stop`.
    pub async fn accept_pipes(self: Arc<Self>, mut incoming: Incoming, anonymous: bool, stop: CancellationToken) {
        while let Some(Some(Ok(pipe))) = stop.run_until_cancelled(incoming.next()).await {
            self.clone().start(Transport::Pipe(pipe), PIPE_PEER, anonymous);
        }
    }

    /// Serves a connection that HTTP has accepted; it counts as those accepted here.
    pub fn start_websocket(self: Arc<Self>, socket: WebSocket, address: SocketAddr, anonymous: bool) {
        self.start(Transport::WebSocket(Box::new(BinaryFrames::new(socket))), address, anonymous);
    }

    /// Asks every connection to end, and waits until they have, and what they sent is stored and routed. Those that
    /// still come are asked at once.
    pub async fn drain(&self) {
        self.tasks.close();
        let links: Vec<_> = self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        links.iter().for_each(|link| link.stop(Stop::Drain));
        self.tasks.wait().await;
    }

    fn start(self: Arc<Self>, transport: Transport, address: SocketAddr, anonymous: bool) {
        let admitted = self.room.clone().try_acquire_owned();
        let over_limit = admitted.is_err();
        let Ok(permit) = admitted.or_else(|_| self.refusals.clone().try_acquire_owned()) else {
            return self.node.telemetry.refused(address);
        };
        if over_limit {
            self.node.telemetry.refused(address);
        }
        let peer = Peer { address, certificate: None, anonymous, over_limit };
        let link = Arc::<Link>::default();
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, link.clone());
        if self.tasks.is_closed() {
            link.stop(Stop::Drain);
        }
        let listeners = self.clone();
        self.tasks.spawn(async move {
            listeners.node.telemetry.opened();
            listeners.serve(transport, peer, link).await;
            listeners.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            listeners.node.telemetry.closed();
            drop(permit);
        });
    }

    async fn serve(&self, transport: Transport, mut peer: Peer, link: Arc<Link>) {
        let address = peer.address;
        let setup = |peer| Setup {
            node: self.node.clone(),
            peer,
            link: link.clone(),
            write_timeout: self.timeouts.write.as_std(),
        };
        // Without it the acknowledgement of a lone message may wait for the peer's delayed TCP acknowledgement.
        if let Transport::Tcp(stream) | Transport::Tls(stream, _) = &transport
            && let Err(error) = stream.set_nodelay(true)
        {
            return self.node.telemetry.transport_failed(address, &error);
        }
        match transport {
            Transport::Pipe(stream) => Box::pin(mqtt::serve(stream, setup(peer))).await,
            Transport::Tcp(stream) => Box::pin(mqtt::serve(stream, setup(peer))).await,
            Transport::WebSocket(stream) => Box::pin(mqtt::serve(*stream, setup(peer))).await,
            Transport::Tls(stream, tls) => {
                match tokio::time::timeout(self.timeouts.connect.as_std(), tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificates = stream.get_ref().1.peer_certificates();
                        peer.certificate = certificates.and_then(|chain| chain.first()).map(tls::fingerprint);
                        Box::pin(mqtt::serve(stream, setup(peer))).await;
                    }
                    Ok(Err(error)) => self.node.telemetry.transport_failed(address, &error),
                    Err(elapsed) => self.node.telemetry.transport_failed(address, &elapsed),
                }
            }
        }
    }
}
