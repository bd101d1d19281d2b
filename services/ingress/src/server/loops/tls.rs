//! TLS over a socket that does not wait.
//!
//! Plain bytes are taken only when no sealed ones wait for the socket, so a reader that stops costs one record's worth
//! of memory here, and the loop's bounds hold.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

use crate::domain::identity::Certificate;
use crate::server::tls::shown;

/// Looks at the socket in one read; records may have nothing in them, and other connections wait.
const RECEIVES_MAX: usize = 64;

/// A connection over TLS.
pub struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
}

impl TlsStream {
    /// A connection whose handshake has not begun.
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { socket, tls: ServerConnection::new(config)? })
    }

    /// A connection whose handshake is done: what came behind it may be in `tls`.
    pub fn established(socket: TcpStream, tls: ServerConnection) -> Self {
        Self { socket, tls }
    }

    /// Goes on with the handshake.
    pub fn secure(&mut self) -> io::Result<Option<Box<Certificate>>> {
        while self.tls.is_handshaking() {
            self.flush()?;
            if self.tls.is_handshaking() && self.receive()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(shown(self.tls.peer_certificates().unwrap_or_default()).map(Box::new))
    }

    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        for _ in 0..RECEIVES_MAX {
            match self.tls.reader().read(&mut room[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.receive() {
                    Ok(0) => return Ok(filled), // without a goodbye; the next read says so again
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock && filled > 0 => return Ok(filled),
                    Err(error) => return Err(error),
                },
                // The socket has ended without a goodbye: as without TLS, the peer is gone.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                Err(error) => return Err(error),
            }
        }
        if filled > 0 { Ok(filled) } else { Err(ErrorKind::Interrupted.into()) }
    }

    /// Reads sealed bytes and opens them; how many there were.
    fn receive(&mut self) -> io::Result<usize> {
        let bytes = self.tls.read_tls(&mut self.socket)?;
        if let Err(error) = self.tls.process_new_packets() {
            // The peer shall know why; whether it hears it is of no consequence.
            self.flush().ok();
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(bytes)
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    /// As [`TlsStream::write`], of parts that follow each other.
    pub fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush()?;
        let taken = self.tls.writer().write_vectored(parts)?;
        match self.flush() {
            Ok(()) => Ok(taken),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(taken),
            Err(error) => Err(error),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub fn close(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }
}
