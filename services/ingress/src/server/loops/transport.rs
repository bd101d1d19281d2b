//! The seam between a loop and what carries its bytes: sockets, TLS over sockets, pipes within the process.
//!
//! Nothing here waits. A call that cannot go on says [`ErrorKind::WouldBlock`], and the loop hears when it may try again.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use mio::net::TcpStream;

use super::tls::TlsStream;

/// SHA-256 of the DER form of a client's certificate.
pub type Fingerprint = Box<[u8; 32]>;

/// One connection's bytes.
pub trait Transport: Send {
    /// Whether a read that brought `bytes` of `room` has emptied it: the loop hears of the next bytes.
    fn is_emptied_by(&self, bytes: usize, room: usize) -> bool;
    /// Goes on with what comes before the first packet; the certificate that the client has shown.
    fn secure(&mut self) -> io::Result<Option<Fingerprint>>;
    /// Reads into `room`; 0: the peer has sent all it will.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize>;
    /// Writes some of `bytes`, which are not empty.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Writes what the transport itself still holds.
    fn flush(&mut self) -> io::Result<()>;
    /// Says to the peer that nothing follows.
    fn close(&mut self) -> io::Result<()>;
}

/// A connection from outside the process.
pub enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl Transport for Socket {
    /// A socket that brings less than there is room for is empty (epoll(7), questions and answers).
    fn is_emptied_by(&self, bytes: usize, room: usize) -> bool {
        match self {
            Self::Tcp(_) => bytes < room,
            Self::Tls(_) => false,
        }
    }

    fn secure(&mut self) -> io::Result<Option<Fingerprint>> {
        match self {
            Self::Tcp(_) => Ok(None),
            Self::Tls(stream) => stream.secure(),
        }
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => stream.close(),
        }
    }
}
