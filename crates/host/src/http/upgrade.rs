//! A connection that leaves HTTP: whoever speaks another protocol on it from here on gets its socket, not a stream.
//!
//! Next to [`serve`](super::serve), which alone knows what connections are served over.

use std::io::{self, ErrorKind};

use axum::http::Extensions;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The connection of one request, to be had once the request is answered with 101.
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Takes the connection from the request with these extensions; `None`: the client has not asked to leave HTTP.
    pub fn take(request: &mut Extensions) -> Option<Self> {
        request.remove::<OnUpgrade>().map(Self)
    }

    /// The socket, which does not block and belongs to no reactor any more, and what the client has sent behind its
    /// request. Returns when the answer is written; an error says that it was another answer, or the client is gone.
    pub async fn socket(self) -> io::Result<(std::net::TcpStream, Bytes)> {
        let upgraded = self.0.await.map_err(io::Error::other)?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>();
        let parts =
            parts.map_err(|_| io::Error::new(ErrorKind::Unsupported, "the connection has no socket of its own"))?;
        Ok((parts.io.into_inner().into_std()?, parts.read_buf))
    }
}
