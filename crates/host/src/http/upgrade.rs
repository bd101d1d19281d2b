//! A connection that leaves HTTP: whoever speaks another protocol on it from here on gets what it is served over: its socket,
//! or its TLS.
//!
//! Next to [`serve`](super::serve), which alone knows what connections are served over.

use std::io::{self, ErrorKind};

use axum::http::Extensions;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// The connection of one request, to be had once the request is answered with 101.
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// Takes the connection from the request with these extensions; `None`: the client has not asked to leave HTTP.
    pub fn take(request: &mut Extensions) -> Option<Self> {
        request.remove::<OnUpgrade>().map(Self)
    }

    /// What the connection is served over, and what the client has sent behind its request. Returns when the answer is
    /// written; an error says that it was another answer, that the client is gone, or that it is served over something else.
    pub async fn stream<S: AsyncRead + AsyncWrite + Unpin + 'static>(self) -> io::Result<(S, Bytes)> {
        let upgraded = self.0.await.map_err(io::Error::other)?;
        let parts = upgraded.downcast::<TokioIo<S>>();
        let parts = parts.map_err(|_| io::Error::new(ErrorKind::Unsupported, "it is served over another stream"))?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }

    /// As [`Upgrade::stream`], the socket of a connection that has nothing above it: it does not block, and belongs to no
    /// reactor any more.
    pub async fn socket(self) -> io::Result<(std::net::TcpStream, Bytes)> {
        let (stream, early) = self.stream::<TcpStream>().await?;
        Ok((stream.into_std()?, early))
    }
}
