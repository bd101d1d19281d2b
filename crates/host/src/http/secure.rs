//! HTTP over TLS: the same routes, and what the handshake has said of the client. Who asks for a WebSocket gets the connection
//! with its TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Extensions;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Bounds, serve_over};
use crate::{Shutdown, Tls};

/// What requests over TLS come by.
pub type Secure = TlsStream<TcpStream>;

/// An extension of each request that came over TLS.
#[derive(Clone, Debug)]
pub struct OverTls {
    /// What its client has shown in the handshake, its own certificate first; none: nothing.
    pub chain: Arc<[CertificateDer<'static>]>,
}

impl OverTls {
    /// Whether the request with these extensions came over TLS.
    pub fn is_in(request: &Extensions) -> bool {
        request.get::<Self>().is_some()
    }
}

/// [`serve`](super::serve) over TLS. A handshake that takes longer than `handshake` ends its connection, and so does whatever is
/// no handshake: HTTP in plain text, for example.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<Tls>,
    handshake: Duration,
    routes: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) -> io::Result<()> {
    let open = move |stream: TcpStream| accept(TlsAcceptor::from(tls.http()), stream, handshake);
    serve_over(listener, open, routes, bounds, shutdown).await
}

async fn accept(acceptor: TlsAcceptor, stream: TcpStream, patience: Duration) -> io::Result<(Secure, OverTls)> {
    let stream = tokio::time::timeout(patience, acceptor.accept(stream)).await??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().into();
    Ok((stream, OverTls { chain }))
}
