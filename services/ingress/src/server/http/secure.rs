//! HTTP over TLS: the same routes, by the certificate that MQTT shows. A WebSocket that begins here goes to the loops with its
//! TLS, of which they know who the client has shown to be.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use drover_host::Shutdown;
use drover_host::http::{self, Bounds};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::domain::identity::Certificate;
use crate::server::tls::{Tls, shown};

/// What requests over TLS come by.
pub type Secure = TlsStream<TcpStream>;

/// An extension of each request that came over TLS.
#[derive(Clone, Debug)]
pub struct OverTls {
    /// What its client has shown in the handshake.
    pub certificate: Option<Arc<Certificate>>,
}

/// Serves until `shutdown`. A handshake that takes longer than `handshake` ends its connection.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<Tls>,
    handshake: Duration,
    routes: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) -> io::Result<()> {
    let open = move |stream: TcpStream| accept(TlsAcceptor::from(tls.http()), stream, handshake);
    http::serve_over(listener, open, routes, bounds, shutdown).await
}

async fn accept(acceptor: TlsAcceptor, stream: TcpStream, patience: Duration) -> io::Result<(Secure, OverTls)> {
    let stream = tokio::time::timeout(patience, acceptor.accept(stream)).await??;
    let certificate = shown(stream.get_ref().1.peer_certificates().unwrap_or_default());
    Ok((stream, OverTls { certificate: certificate.map(Arc::new) }))
}
