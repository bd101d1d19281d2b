//! One thread of the node: epoll, its listeners, and the loop of its connections.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use drover_host::Tls;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::{Loop, Readiness};
use super::entrance::{Arrival, Entrance, Speaks};
use super::proxied::Proxied;
use super::tls::TlsStream;
use super::transport::Socket;
use super::websocket::{Carrier, WebSocketStream};

/// Wakes the thread for its mail.
pub const MAIL: Token = Token(usize::MAX);
/// The first of its listeners; the others count down from it. Slots count up from 0 and never come near.
const LISTENER: usize = usize::MAX - 1;
/// Events taken at once.
const EVENTS_MAX: usize = 1_024;
/// Connections accepted by one listener in one turn; those that are there are waiting.
const ACCEPTS_MAX: usize = 64;
/// Wait after an accept that failed, for lack of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A socket that others connect to, and how it is spoken to.
pub struct Door {
    pub listener: TcpListener,
    pub tls: Option<Arc<Tls>>,
    pub anonymous: bool,
    /// Whether connections may be waiting.
    waiting: bool,
    /// Not to be tried before.
    retry: Option<Instant>,
}

/// What a thread works with.
pub struct Worker {
    pub poll: Poll,
    pub core: Loop<Socket>,
    pub doors: Vec<Door>,
    /// To all threads.
    pub entrance: Arc<Entrance>,
    pub own: usize,
    pub abort: CancellationToken,
}

impl Door {
    /// A listener that is bound.
    pub fn new(listener: std::net::TcpListener, tls: Option<Arc<Tls>>, anonymous: bool) -> Self {
        Self { listener: TcpListener::from_std(listener), tls, anonymous, waiting: false, retry: None }
    }
}

impl Worker {
    /// Works until the loop is done, or `abort`.
    pub fn run(mut self) -> io::Result<()> {
        let served = self.serve();
        self.entrance.close(self.own);
        served
    }

    fn serve(&mut self) -> io::Result<()> {
        for (number, door) in self.doors.iter_mut().enumerate() {
            self.poll.registry().register(&mut door.listener, Token(LISTENER - number), Interest::READABLE)?;
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.core.is_done() && !self.abort.is_cancelled() {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                self.note(event);
            }
            self.accept();
            self.arrive();
            self.core.turn();
        }
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        let now = Instant::now();
        let door = |door: &Door| match door.retry {
            Some(retry) => Some(retry.saturating_duration_since(now)),
            None => door.waiting.then_some(Duration::ZERO),
        };
        let busy = self.core.is_busy().then_some(Duration::ZERO);
        self.doors.iter().filter_map(door).chain(busy).chain(self.core.due_in()).min()
    }

    fn note(&mut self, event: &mio::event::Event) {
        match event.token() {
            MAIL => {}
            Token(token) if token > LISTENER - self.doors.len() => self.doors[LISTENER - token].waiting = true,
            Token(slot) => {
                let hangup = event.is_read_closed() || event.is_error();
                let readiness = Readiness { read: event.is_readable() || hangup, write: event.is_writable(), hangup };
                self.core.stir(slot, readiness);
            }
        }
    }

    /// Takes what was accepted for this thread.
    fn arrive(&mut self) {
        self.entrance.take(self.own).into_iter().for_each(|arrival| self.take_in(arrival));
    }

    fn accept(&mut self) {
        if !self.core.accepts() {
            self.doors.clear();
        }
        let now = Instant::now();
        let mut doors = std::mem::take(&mut self.doors);
        for door in &mut doors {
            if door.retry.is_some_and(|retry| retry <= now) {
                (door.retry, door.waiting) = (None, true);
            }
            for _ in 0..ACCEPTS_MAX {
                if !door.waiting || door.retry.is_some() {
                    break;
                }
                self.accept_one(door, now);
            }
        }
        self.doors = doors;
    }

    fn accept_one(&mut self, door: &mut Door, now: Instant) {
        let shared = self.core.shared();
        match door.listener.accept() {
            Ok((stream, address)) => {
                let Some(entry) = shared.enter(address) else { return };
                let speaks = door.tls.as_ref().map_or(Speaks::Nothing, |tls| Speaks::Tls(tls.mqtt()));
                let proxied = shared.balancers.contain(address);
                let arrival = Arrival { stream, address, anonymous: door.anonymous, proxied, entry, speaks };
                self.entrance.hand_on(arrival, Some(self.own));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => door.waiting = false,
            // The peer has gone meanwhile.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => {
                shared.node.telemetry.accept_failed(&error);
                door.retry = Some(now + ACCEPT_RETRY);
            }
        }
    }

    fn take_in(&mut self, arrival: Arrival) {
        let Arrival { stream, address, anonymous, proxied, entry, speaks } = arrival;
        let has_early = matches!(&speaks, Speaks::WebSocket { early, .. } if !early.is_empty());
        let slot = self.core.vacant();
        match self.register(stream, speaks, proxied) {
            Ok(socket) => {
                self.core.accept(socket, address, anonymous, entry);
                if has_early {
                    self.core.stir(slot, Readiness::ALL); // of these epoll knows nothing
                }
            }
            Err(error) => {
                let shared = self.core.shared();
                shared.node.telemetry.transport_failed(address, &error);
                shared.doors.leave(entry);
            }
        }
    }

    fn register(&self, mut stream: TcpStream, speaks: Speaks, proxied: bool) -> io::Result<Socket> {
        // Without it the acknowledgement of a lone message may wait for the peer's delayed TCP acknowledgement.
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(self.core.vacant()), interest)?;
        let tls = match speaks {
            Speaks::Nothing => None,
            Speaks::Tls(config) => Some(config),
            Speaks::WebSocket { tls, early } => {
                let carrier = match tls {
                    None => Carrier::Tcp(stream),
                    Some(tls) => Carrier::Tls(Box::new(TlsStream::established(stream, *tls))),
                };
                let message_bytes_max = self.core.shared().node.environment.limits.packet_bytes_max; // with its header
                let stream = WebSocketStream::new(carrier, early, message_bytes_max);
                return Ok(Socket::WebSocket(Box::new(stream)));
            }
        };
        if proxied { Ok(Socket::Proxied(Box::new(Proxied::new(stream, tls)))) } else { Socket::over(stream, tls) }
    }
}
