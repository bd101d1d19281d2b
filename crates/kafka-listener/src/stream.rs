//! Frames over a socket, as it is or within TLS.
//!
//! Adapter layer. Waits for ever for a frame to begin, but neither for its rest nor for an answer to be taken.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::server::TlsStream;

use crate::wire::{Malformed, frame};

/// Least room for one read, bytes; the buffer grows with what has arrived, never with what a frame claims.
const READ_BYTES: usize = 16 * 1024;
/// Longest that a farewell of TLS may take; it is said once.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a conversation broke.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a request stood half sent for {0:?}")]
    HalfSent(Duration),
    #[error("an answer was not taken for {0:?}")]
    NotTaken(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The frames that a client sends.
pub struct Frames {
    source: Source,
    buffer: BytesMut,
}

enum Source {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<TlsStream<TcpStream>>),
}

/// Where its answers go.
pub enum Answers {
    Plain(OwnedWriteHalf),
    Tls(WriteHalf<TlsStream<TcpStream>>),
}

/// Both directions of a socket.
pub fn plain(stream: TcpStream) -> (Frames, Answers) {
    let (reader, writer) = stream.into_split();
    (Frames { source: Source::Plain(reader), buffer: BytesMut::new() }, Answers::Plain(writer))
}

/// Both directions of a socket with TLS.
pub fn secure(stream: TlsStream<TcpStream>) -> (Frames, Answers) {
    let (reader, writer) = tokio::io::split(stream);
    (Frames { source: Source::Tls(reader), buffer: BytesMut::new() }, Answers::Tls(writer))
}

impl Frames {
    /// The next frame; `None` when the client closes. One that claims more than `bytes_max` is refused at once.
    pub async fn next(&mut self, bytes_max: usize, stall: Duration) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(frame) = frame::cut(&mut self.buffer, bytes_max)? {
                return Ok(Some(frame));
            }
            let arrived = if self.buffer.is_empty() {
                // An idle connection owns no buffer.
                self.buffer = BytesMut::new();
                self.source.read(&mut self.buffer).await?
            } else {
                let read = self.source.read(&mut self.buffer);
                tokio::time::timeout(stall, read).await.map_err(|_| Broken::HalfSent(stall))??
            };
            if arrived == 0 {
                return Ok(None);
            }
        }
    }
}

impl Source {
    /// How many bytes have come; 0: the client has closed.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(half) => loop {
                half.readable().await?;
                buffer.reserve(READ_BYTES);
                match half.try_read_buf(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return read,
                }
            },
            // TLS does not tell that bytes have come without handing them out; a length is small enough to wait with.
            Self::Tls(half) if buffer.is_empty() => {
                let mut first = [0; frame::PREFIX_BYTES];
                let read = half.read(&mut first).await?;
                buffer.extend_from_slice(&first[..read]);
                Ok(read)
            }
            Self::Tls(half) => {
                buffer.reserve(READ_BYTES);
                half.read_buf(buffer).await
            }
        }
    }
}

impl Answers {
    /// Writes a frame; the client may be slow, but must take something within every `stall`.
    pub async fn write(&mut self, mut frame: Bytes, stall: Duration) -> Result<(), Broken> {
        let late = |_| Broken::NotTaken(stall);
        while !frame.is_empty() {
            if tokio::time::timeout(stall, self.write_some(&mut frame)).await.map_err(late)?? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(tokio::time::timeout(stall, self.flush()).await.map_err(late)??)
    }

    async fn write_some(&mut self, frame: &mut Bytes) -> io::Result<usize> {
        match self {
            Self::Plain(half) => half.write_buf(frame).await,
            Self::Tls(half) => half.write_buf(frame).await,
        }
    }

    /// A socket has nothing to flush; TLS has what it has sealed, a buffer's worth.
    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(half) => half.flush().await,
        }
    }

    /// Says over TLS that nothing more comes, which clients take for a proper end.
    pub async fn farewell(&mut self) {
        if let Self::Tls(half) = self {
            // A client that is gone, or does not listen, needs no farewell.
            drop(tokio::time::timeout(FAREWELL, half.shutdown()).await);
        }
    }
}
