//! A connection's bytes over TCP, TLS, WebSocket or UDP, without blocking. An idle one over TCP is its descriptor and no more.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::handshake::MidHandshake;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, HandshakeError, Message, WebSocket};

use super::coap::{DATAGRAM_BYTES_MAX, LENGTH_BYTES, datagram};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Buffer of a WebSocket for reading, in bytes; tungstenite's own is 128 KiB a connection.
const WEB_SOCKET_BYTES: usize = 4 * 1024;

/// What a TLS connection begins with.
#[derive(Clone)]
pub struct Secured {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// A socket, perhaps under TLS.
pub enum Wire {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(bytes),
            Self::Tls(tls) => tls.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

type Upgrade = MidHandshake<ClientHandshake<Wire>>;

/// One connection's transport.
#[derive(Default)]
pub enum Link {
    #[default]
    Gone,
    Stream(Wire),
    /// The WebSocket's handshake is under way.
    Upgrading(Box<Upgrade>),
    Frames(Box<WebSocket<Wire>>),
    /// Each datagram behind its length (`coap`).
    Datagrams(UdpSocket),
}

impl Link {
    /// A link over a socket that is connected, or will be. The handshake of TLS goes on as bytes move.
    pub fn new(tcp: TcpStream, secured: Option<&Secured>) -> io::Result<Self> {
        Ok(Self::Stream(match secured {
            None => Wire::Tcp(tcp),
            Some(Secured { config, name }) => {
                let tls = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                Wire::Tls(Box::new(StreamOwned::new(tls, tcp)))
            }
        }))
    }

    /// Why the socket could not connect, once it is writable; `NotConnected` while it is not known.
    pub fn connected(&self) -> io::Result<()> {
        let Self::Stream(wire) = self else { return Ok(()) };
        let tcp = match wire {
            Wire::Tcp(tcp) => tcp,
            Wire::Tls(tls) => &tls.sock,
        };
        match tcp.take_error()? {
            Some(error) => Err(error),
            None => tcp.peer_addr().map(|_| ()),
        }
    }

    /// Begins the WebSocket's handshake with `url`.
    pub fn upgrade(&mut self, url: &str) -> io::Result<()> {
        let Self::Stream(wire) = mem::take(self) else { return Err(ErrorKind::NotConnected.into()) };
        let mut request = url.into_client_request().map_err(io::Error::other)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        let config = WebSocketConfig::default().read_buffer_size(WEB_SOCKET_BYTES).write_buffer_size(0);
        self.settle(client_with_config(request, wire, Some(config)).map(|(socket, _)| socket))
    }

    fn settle(&mut self, shaken: Result<WebSocket<Wire>, HandshakeError<ClientHandshake<Wire>>>) -> io::Result<()> {
        *self = match shaken {
            Ok(socket) => Self::Frames(Box::new(socket)),
            Err(HandshakeError::Interrupted(upgrade)) => Self::Upgrading(Box::new(upgrade)),
            Err(HandshakeError::Failure(error)) => return Err(plain(error)),
        };
        Ok(())
    }

    /// Goes on with the WebSocket's handshake, if one is under way; whether the link carries bytes.
    pub fn is_open(&mut self) -> io::Result<bool> {
        if let Self::Upgrading(_) = self
            && let Self::Upgrading(upgrade) = mem::take(self)
        {
            self.settle(upgrade.handshake().map(|(socket, _)| socket))?;
        }
        Ok(matches!(self, Self::Stream(_) | Self::Frames(_) | Self::Datagrams(_)))
    }

    /// Appends bytes that have come. `WouldBlock`: there are none; `UnexpectedEof`: there will be none.
    pub fn read(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Gone | Self::Upgrading(_) => Err(ErrorKind::WouldBlock.into()),
            Self::Stream(wire) => {
                let before = into.len();
                into.resize(before + READ_BYTES, 0);
                let read = wire.read(&mut into[before..]);
                into.truncate(before + *read.as_ref().unwrap_or(&0));
                if read? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            }
            Self::Frames(socket) => match socket.read().map_err(plain)? {
                Message::Binary(bytes) => {
                    into.extend_from_slice(&bytes);
                    Ok(())
                }
                Message::Close(_) => Err(ErrorKind::UnexpectedEof.into()),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            },
            Self::Datagrams(socket) => {
                let (before, body) = (into.len(), into.len() + LENGTH_BYTES);
                into.resize(body + DATAGRAM_BYTES_MAX, 0);
                let read = socket.recv(&mut into[body..]);
                into.truncate(read.as_ref().map_or(before, |bytes| body + bytes));
                let length = read? as u16;
                into[before..body].copy_from_slice(&length.to_be_bytes());
                Ok(())
            }
        }
    }

    /// Writes some of `bytes`; how many. `WouldBlock`: none now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Gone | Self::Upgrading(_) => Err(ErrorKind::WouldBlock.into()),
            Self::Stream(wire) => match wire.write(bytes)? {
                0 => Err(ErrorKind::WouldBlock.into()),
                written => Ok(written),
            },
            Self::Frames(socket) => match socket.write(Message::Binary(Bytes::copy_from_slice(bytes))).map_err(plain) {
                // What the socket does not take stays in the WebSocket's own buffer.
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                Ok(()) | Err(_) => Ok(bytes.len()),
            },
            Self::Datagrams(socket) => {
                let datagram = datagram(bytes).ok_or(ErrorKind::InvalidData)?;
                socket.send(datagram)?;
                Ok(LENGTH_BYTES + datagram.len())
            }
        }
    }

    /// Writes what TLS and WebSocket keep in buffers of their own, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = match self {
            Self::Gone | Self::Upgrading(_) | Self::Datagrams(_) => Ok(()),
            Self::Stream(wire) => wire.flush(),
            Self::Frames(socket) => socket.flush().map_err(plain),
        };
        match flushed {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// An error of the WebSocket as one of I/O.
fn plain(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => ErrorKind::UnexpectedEof.into(),
        other => io::Error::other(other),
    }
}
