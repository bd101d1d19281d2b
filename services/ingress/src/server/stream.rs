//! What an MQTT connection moves its bytes over.
//!
//! Server layer.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::domain::connection::Close;

/// A stream of bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {
    /// The connection ends for this: told once, before the stream is shut down. Most streams have no word for it.
    fn closing(&mut self, _close: &Close) {}
}

impl ByteStream for TcpStream {}
impl ByteStream for TlsStream<TcpStream> {}
impl ByteStream for DuplexStream {}
