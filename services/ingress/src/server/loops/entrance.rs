//! Where connections come in: within the node's limit, and to the threads in turn.
//!
//! Any thread lets in and hands on; what arrives at a thread waits there until its next turn, no more than the node has
//! room for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mio::Waker;
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use super::hands::{Entry, Shared};

/// A connection on its way from whoever has accepted it to its thread.
pub struct Arrival {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub anonymous: bool,
    /// It comes from a load balancer, which has yet to say for whom.
    pub proxied: bool,
    pub entry: Entry,
    pub speaks: Speaks,
}

/// A connection that has left HTTP for WebSocket, and was answered so.
pub struct Upgraded {
    /// It does not block.
    pub socket: std::net::TcpStream,
    /// After its handshake; `None`: there is no TLS.
    pub tls: Option<Box<ServerConnection>>,
    /// What the client has sent behind its request.
    pub early: Bytes,
}

/// What lies between the socket and MQTT.
pub enum Speaks {
    Nothing,
    Tls(Arc<ServerConfig>),
    /// A WebSocket whose handshake is done, over TLS if that is given, with what the client has sent behind it.
    WebSocket {
        tls: Option<Box<ServerConnection>>,
        early: Bytes,
    },
}

/// One thread, as those who hand on to it know it.
struct Thread {
    /// `None`: it takes no more.
    arrived: Mutex<Option<Vec<Arrival>>>,
    waker: Arc<Waker>,
}

/// The way in to all threads.
pub struct Entrance {
    shared: Arc<Shared>,
    threads: Box<[Thread]>,
    /// Connections handed on.
    handed: AtomicUsize,
}

impl Entrance {
    /// To the threads that these wake.
    pub fn new(shared: Arc<Shared>, wakers: impl IntoIterator<Item = Arc<Waker>>) -> Self {
        let thread = |waker| Thread { arrived: Mutex::new(Some(Vec::new())), waker };
        Self { shared, threads: wakers.into_iter().map(thread).collect(), handed: AtomicUsize::new(0) }
    }

    /// Serves MQTT over a WebSocket whose handshake is done; it counts as those accepted here.
    pub fn websocket(&self, upgraded: Upgraded, address: SocketAddr, anonymous: bool) {
        let Some(entry) = self.shared.enter(address) else { return };
        let Upgraded { socket, tls, early } = upgraded;
        let (stream, speaks) = (TcpStream::from_std(socket), Speaks::WebSocket { tls, early });
        self.hand_on(Arrival { stream, address, anonymous, proxied: false, entry, speaks }, None);
    }

    /// Gives a connection to the thread whose turn it is. That is woken if nothing waits for it yet, unless it is the thread
    /// `from` itself, which looks at the end of its turn.
    pub fn hand_on(&self, arrival: Arrival, from: Option<usize>) {
        let number = self.handed.fetch_add(1, Ordering::Relaxed) % self.threads.len().max(1);
        let Some(thread) = self.threads.get(number) else { return self.turn_away(arrival) };
        let is_first = match &mut *thread.arrived.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(arrived) => {
                arrived.push(arrival);
                arrived.len() == 1
            }
            None => return self.turn_away(arrival),
        };
        if !is_first || from == Some(number) {
            return;
        }
        if let Err(error) = thread.waker.wake() {
            tracing::error!(%error, "a thread of connections cannot be woken");
        }
    }

    /// What has arrived at thread `number`.
    pub fn take(&self, number: usize) -> Vec<Arrival> {
        let mut arrived = self.threads[number].arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Thread `number` takes no more: connections that arrive nevertheless are closed without a word.
    pub fn close(&self, number: usize) {
        let arrived = self.threads[number].arrived.lock().unwrap_or_else(PoisonError::into_inner).take();
        arrived.into_iter().flatten().for_each(|arrival| self.turn_away(arrival));
    }

    fn turn_away(&self, arrival: Arrival) {
        drop(arrival.stream);
        self.shared.doors.leave(arrival.entry);
    }
}
