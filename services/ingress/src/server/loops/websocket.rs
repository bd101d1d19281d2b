//! MQTT over a WebSocket (section 6 of MQTT 3.1.1 and 5) on a socket that does not wait, or on TLS over one.
//!
//! It keeps what TCP keeps, nothing: of a frame that comes only its head (`frames`), of what is sent the one frame that its
//! carrier has not taken as a whole.

use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};

use bytes::{Buf as _, Bytes};
use mio::net::TcpStream;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::frames::{self, Frames};
use super::tls::TlsStream;
use crate::domain::connection::{Close, CloseReason, Fault};
use crate::domain::identity::Certificate;

/// Payload bytes of a frame we send; what is longer is split.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// What frames go over.
pub enum Carrier {
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl Carrier {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write_vectored(parts),
            Self::Tls(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }

    /// Nothing follows.
    fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()), // the goodbye was said in a frame
            Self::Tls(stream) => stream.close(),
        }
    }
}

/// A connection over WebSocket, after its handshake.
pub struct WebSocketStream {
    carrier: Carrier,
    frames: Frames,
    /// What the client has sent behind its request, before it was answered.
    early: Bytes,
    /// Frames that the carrier has not taken: the rest of one, an answer to a ping, the goodbye.
    unsent: Vec<u8>,
    /// What the client is told at the end, with the code in front.
    goodbye: Vec<u8>,
    said: bool,
    /// The client has sent all it will.
    ended: bool,
}

impl WebSocketStream {
    /// A connection on which nothing was said yet but `early`. A message, and so a frame, of the client may have
    /// `message_bytes_max`.
    pub fn new(carrier: Carrier, early: Bytes, message_bytes_max: u32) -> Self {
        let frames = Frames::new(message_bytes_max.into());
        Self { carrier, frames, early, unsent: Vec::new(), goodbye: Vec::new(), said: false, ended: false }
    }

    /// What the client has shown when TLS was agreed on.
    pub fn secure(&mut self) -> io::Result<Option<Box<Certificate>>> {
        match &mut self.carrier {
            Carrier::Tcp(_) => Ok(None),
            Carrier::Tls(stream) => stream.secure(),
        }
    }

    /// Reads payload; [`ErrorKind::Interrupted`]: there was none in what was read.
    pub fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.frames.refusal().is_none() && self.frames.closed().is_none() {
            let bytes = self.receive(room)?;
            if bytes == 0 {
                return Ok(0);
            }
            let filled = self.frames.decode(&mut room[..bytes]);
            if filled > 0 {
                return Ok(filled); // what else there was is said by the next call
            }
        }
        match (self.frames.refusal(), self.frames.closed()) {
            (Some(refusal), _) => Err(io::Error::new(ErrorKind::InvalidData, refusal.to_string())),
            (None, Some(_)) => Ok(0),
            (None, None) => Err(ErrorKind::Interrupted.into()),
        }
    }

    /// Reads bytes as they come.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if !self.early.is_empty() {
            let bytes = self.early.len().min(room.len());
            self.early.copy_to_slice(&mut room[..bytes]);
            return Ok(bytes);
        }
        let bytes = self.carrier.read(room)?;
        self.ended |= bytes == 0;
        Ok(bytes)
    }

    /// Takes the bytes of one frame. What of it the carrier does not take is kept, so that frames that follow are whole.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let payload = &bytes[..bytes.len().min(FRAME_BYTES_MAX)];
        let (head, len) = frames::head(OpCode::Data(Data::Binary), payload.len());
        let head = &head[..len];
        let sent = self.carrier.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)])?;
        if sent == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.unsent.extend_from_slice(head.get(sent..).unwrap_or_default());
        self.unsent.extend_from_slice(&payload[sent.saturating_sub(len)..]);
        Ok(payload.len())
    }

    /// Writes what was kept, then the answer to a ping.
    pub fn flush(&mut self) -> io::Result<()> {
        loop {
            if self.unsent.is_empty() {
                // Nothing follows the goodbye (section 5.5.1).
                let Some(pong) = self.frames.take_pong().filter(|_| !self.said) else { break };
                frames::put(&mut self.unsent, OpCode::Control(Control::Pong), &pong);
            }
            match self.carrier.write_vectored(&[IoSlice::new(&self.unsent)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        self.carrier.flush()
    }

    /// The connection ends for this, or for a frame that was refused: that has the say. Whether the client may still
    /// hear of it.
    pub fn closing(&mut self, close: &Close) -> bool {
        let (code, reason) = match (self.frames.refusal(), self.frames.closed()) {
            (Some(refusal), _) => (refusal.code(), refusal.to_string()),
            (None, Some(code)) => (code, String::new()), // section 5.5.1
            (None, None) => (code(close), close.reason.name().to_owned()),
        };
        if code != CloseCode::Status {
            self.goodbye = [&u16::from(code).to_be_bytes()[..], reason.as_bytes()].concat();
        }
        if self.frames.refusal().is_some() {
            tracing::debug!(%code, reason, "a WebSocket is closed for what its client has sent");
        }
        !self.ended && (close.reason != CloseReason::ConnectionLost || self.frames.refusal().is_some())
    }

    /// Says goodbye, and waits for the client's (section 7.1.1); [`ErrorKind::Interrupted`]: not all that has come is read.
    pub fn close(&mut self, room: &mut [u8]) -> io::Result<()> {
        if !self.said {
            let goodbye = std::mem::take(&mut self.goodbye);
            frames::put(&mut self.unsent, OpCode::Control(Control::Close), &goodbye);
            self.said = true;
        }
        self.flush()?;
        if self.ended || self.frames.closed().is_some() {
            return self.carrier.close();
        }
        let bytes = self.receive(room)?;
        self.frames.decode(&mut room[..bytes]);
        Err(ErrorKind::Interrupted.into())
    }
}

/// The code of RFC 6455 (section 7.4.1) for the end of an MQTT connection.
fn code(close: &Close) -> CloseCode {
    if matches!(close.fault, Some(Fault::OverLimit | Fault::ConnectRate { .. })) {
        return CloseCode::Again;
    }
    match close.reason {
        CloseReason::Client | CloseReason::ConnectionLost => CloseCode::Normal,
        CloseReason::Drain | CloseReason::NodeLost => CloseCode::Away,
        CloseReason::KeepAlive | CloseReason::TakenOver | CloseReason::Revoked => CloseCode::Policy,
        CloseReason::ProtocolError => CloseCode::Protocol,
        CloseReason::NotStored | CloseReason::NotKept => CloseCode::Error,
    }
}
