//! The seam between a loop and what carries its bytes: sockets, TLS and WebSocket over them, balancers in front of them,
//! pipes within the process.
//!
//! Nothing here waits. A call that cannot go on says [`WouldBlock`](io::ErrorKind::WouldBlock), and the loop hears when it may try again.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;

use super::proxied::Proxied;
use super::tls::TlsStream;
use super::websocket::WebSocketStream;
use crate::domain::connection::{Close, CloseReason};
use crate::domain::identity::Certificate;

/// One connection's bytes.
pub trait Transport: Send {
    /// Whether a read that brought `bytes` of `room` has emptied it: the loop hears of the next bytes.
    fn is_emptied_by(&self, bytes: usize, room: usize) -> bool;
    /// Goes on with what a load balancer says before anything else, to be called before [`Transport::secure`]; who is
    /// behind it, told once and only if it is another than the peer.
    fn introduce(&mut self) -> io::Result<Option<SocketAddr>> {
        Ok(None)
    }
    /// Goes on with what comes before the first packet; what the client has shown.
    fn secure(&mut self) -> io::Result<Option<Box<Certificate>>>;
    /// Reads into `room`; 0: the peer has sent all it will. [`Interrupted`](io::ErrorKind::Interrupted): it may be called again at once.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;
    /// Writes some of `bytes`, which are not empty.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Writes what the transport itself still holds.
    fn flush(&mut self) -> io::Result<()>;
    /// The connection ends for this: told once, before it is closed. Whether the peer may still hear of it.
    fn closing(&mut self, close: &Close) -> bool;
    /// Says to the peer that nothing follows. What has to be read for that goes to `room`, and is lost;
    /// [`Interrupted`](io::ErrorKind::Interrupted): it is to be called again at once.
    fn close(&mut self, room: &mut [u8]) -> io::Result<()>;
}

/// A connection from outside the process.
#[expect(clippy::enum_variant_names, reason = "a WebSocket is called so")]
pub enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
    WebSocket(Box<WebSocketStream>),
    Proxied(Box<Proxied>),
}

impl Socket {
    /// A connection on which nothing was said yet; over TLS, if that is given.
    pub fn over(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Tcp(socket)) };
        let stream = TlsStream::new(socket, config).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(stream)))
    }
}

impl Transport for Socket {
    /// A socket that brings less than there is room for is empty (epoll(7), questions and answers).
    fn is_emptied_by(&self, bytes: usize, room: usize) -> bool {
        match self {
            Self::Tcp(_) => bytes < room,
            Self::Tls(_) | Self::WebSocket(_) | Self::Proxied(_) => false,
        }
    }

    fn introduce(&mut self) -> io::Result<Option<SocketAddr>> {
        let Self::Proxied(proxied) = self else { return Ok(None) };
        let (socket, source) = proxied.introduce()?;
        *self = socket;
        Ok(source)
    }

    fn secure(&mut self) -> io::Result<Option<Box<Certificate>>> {
        match self {
            Self::Tcp(_) => Ok(None),
            Self::Tls(stream) => stream.secure(),
            Self::WebSocket(stream) => stream.secure(),
            Self::Proxied(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
            Self::WebSocket(stream) => stream.read(room),
            Self::Proxied(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::WebSocket(stream) => stream.write(bytes),
            // Whoever has not been introduced is told nothing.
            Self::Proxied(_) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Proxied(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
            Self::WebSocket(stream) => stream.flush(),
        }
    }

    fn closing(&mut self, close: &Close) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) => close.reason != CloseReason::ConnectionLost,
            Self::Proxied(_) => false,
            Self::WebSocket(stream) => stream.closing(close),
        }
    }

    fn close(&mut self, room: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => stream.close(),
            Self::WebSocket(stream) => stream.close(room),
            Self::Proxied(proxied) => proxied.close(),
        }
    }
}
