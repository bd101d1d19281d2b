//! A WebSocket as a stream of bytes: section 6 of MQTT 3.1.1 and 5.
//!
//! Server layer. Where packets begin and end is not looked at: they may share frames, or be split over them. A frame is
//! in memory as a whole before its bytes are read, so each connection may hold as much as the largest packet has.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};

use super::stream::ByteStream;
use crate::domain::connection::{Close, CloseReason, Fault};

/// Bytes read from the socket at once; every connection has a buffer of this size.
const READ_BYTES: usize = 4 * 1024;
/// Bytes of a frame we send; what is longer is split.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Bytes of frames and of answers to pings that the peer has not taken; over it the connection ends.
const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Time to read why a frame was refused. What is left of that frame is not read, so that the socket is reset when it is
/// closed, and what the peer has not read by then is lost.
const LAST_WORD: Duration = Duration::from_millis(250);
/// Told to whoever sends text.
const TEXT: &str = "MQTT is sent in binary frames, this one is text";

/// `upgrade` within our bounds: a message, and so a frame, has at most `message_bytes_max` bytes.
pub fn bounded(upgrade: WebSocketUpgrade, message_bytes_max: usize) -> WebSocketUpgrade {
    upgrade
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max)
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(UNSENT_BYTES_MAX)
}

/// The bytes of the binary frames of a WebSocket.
pub struct BinaryFrames {
    socket: WebSocket,
    /// What is not read yet of the last frame.
    input: Bytes,
    /// The peer has sent all it will.
    ended: bool,
    /// What the peer is told at the end; what was refused has the say.
    goodbye: Option<CloseFrame>,
    /// The goodbye is on its way.
    said: bool,
    /// A frame was refused before all of it was read.
    unread: bool,
    /// Runs from the goodbye on, if there is something unread.
    last_word: Option<Pin<Box<Sleep>>>,
}

impl BinaryFrames {
    /// Both ends have agreed on the subprotocol.
    pub fn new(socket: WebSocket) -> Self {
        let input = Bytes::new();
        Self { socket, input, ended: false, goodbye: None, said: false, unread: false, last_word: None }
    }

    /// The next frame's bytes become the input, or the end is noticed.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let error = match ready!(self.socket.poll_next_unpin(cx)) {
            Some(Ok(Message::Binary(bytes))) => {
                self.input = bytes;
                return Poll::Ready(Ok(()));
            }
            Some(Ok(Message::Text(_))) => return Poll::Ready(Err(self.refuse(text()))), // [MQTT-6.0.0-1]
            // Pings and the peer's goodbye are answered by the next call.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => return Poll::Ready(Ok(())),
            Some(Err(error)) => error.into_inner(),
            None => {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
        };
        let cause = error.downcast_ref::<SocketError>();
        if matches!(cause, Some(SocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake))) {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if let Some(frame) = cause.and_then(refusal) {
            self.unread = true;
            return Poll::Ready(Err(self.refuse(frame)));
        }
        Poll::Ready(Err(io::Error::other(error)))
    }

    /// The connection ends, and the peer is told `frame`.
    fn refuse(&mut self, frame: CloseFrame) -> io::Error {
        let (code, reason) = (frame.code, frame.reason.to_string());
        tracing::debug!(code, %reason, "a WebSocket is closed for what its client has sent");
        self.goodbye = Some(frame);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

fn text() -> CloseFrame {
    CloseFrame { code: close_code::UNSUPPORTED, reason: Utf8Bytes::from_static(TEXT) }
}

/// What a peer is told whose frame cannot be taken; nothing if there is nobody any more.
fn refusal(error: &SocketError) -> Option<CloseFrame> {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let reason = format!("message has {size} bytes, limit is {max_size}");
            Some(CloseFrame { code: close_code::SIZE, reason: reason.into() })
        }
        SocketError::Protocol(_) => {
            let reason = Utf8Bytes::from_static("not a frame of RFC 6455 that may come here");
            Some(CloseFrame { code: close_code::PROTOCOL, reason })
        }
        SocketError::Utf8(_) => Some(text()),
        _ => None, // the connection itself, or what only clients meet
    }
}

/// The code of RFC 6455 (section 7.4.1) for the end of an MQTT connection.
fn code(close: &Close) -> u16 {
    if close.fault == Some(Fault::OverLimit) {
        return close_code::AGAIN;
    }
    match close.reason {
        CloseReason::Client | CloseReason::ConnectionLost => close_code::NORMAL,
        CloseReason::Drain | CloseReason::NodeLost => close_code::AWAY,
        CloseReason::KeepAlive | CloseReason::TakenOver | CloseReason::Revoked => close_code::POLICY,
        CloseReason::ProtocolError => close_code::PROTOCOL,
        CloseReason::NotStored => close_code::ERROR,
    }
}

impl ByteStream for BinaryFrames {
    fn closing(&mut self, close: &Close) {
        if self.goodbye.is_none() {
            let reason = Utf8Bytes::from_static(close.reason.name());
            self.goodbye = Some(CloseFrame { code: code(close), reason });
        }
    }
}

impl AsyncRead for BinaryFrames {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.input.is_empty() && !this.ended {
            ready!(this.poll_frame(cx))?;
        }
        let len = this.input.len().min(buffer.remaining());
        buffer.put_slice(&this.input.split_to(len));
        if this.input.is_empty() {
            this.input = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BinaryFrames {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.socket.poll_ready_unpin(cx)).map_err(io::Error::other)?;
        let len = bytes.len().min(FRAME_BYTES_MAX);
        let frame = Message::Binary(Bytes::copy_from_slice(&bytes[..len]));
        this.socket.start_send_unpin(frame).map_err(io::Error::other)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    /// Says goodbye, and waits for the peer's.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        if !this.said {
            ready!(this.socket.poll_ready_unpin(cx)).map_err(io::Error::other)?;
            let goodbye = Message::Close(this.goodbye.take());
            this.socket.start_send_unpin(goodbye).map_err(io::Error::other)?;
            this.said = true;
        }
        ready!(this.socket.poll_flush_unpin(cx)).map_err(io::Error::other)?;
        while let Some(Ok(_)) = ready!(this.socket.poll_next_unpin(cx)) {}
        if this.unread {
            let last_word = this.last_word.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORD)));
            ready!(last_word.as_mut().poll(cx));
        }
        this.ended = true;
        Poll::Ready(Ok(()))
    }
}
