//! Serves routes on a bound socket: so many connections at once, each with a deadline for the head of a request.

use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::AddExtension;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::Layer;

use crate::Shutdown;

/// Bytes of a request's head, and of what is read at once of its body.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Wait after an accept that failed, for lack of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; more wait in the kernel's queue until one ends, or becomes one of another protocol.
    pub connections_max: usize,
    /// For the head of a request, counted from the end of the one before: an idle connection ends with it.
    pub head: Duration,
    /// For open requests to end after a stop was asked for; then they are cut.
    pub drain: Duration,
}

/// The two ends of the connection a request came by: an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub peer: SocketAddr,
    /// What its listener is bound to, which may be all addresses.
    pub listener: SocketAddr,
}

/// Serves until `shutdown`, then lets open requests end. Connections that were upgraded are no longer its own.
pub async fn serve(listener: TcpListener, routes: Router, bounds: Bounds, shutdown: Shutdown) -> io::Result<()> {
    serve_over(listener, |stream| ready(Ok(stream)), routes, bounds, shutdown).await
}

/// [`serve`] over what `open` makes of a connection, TLS for example; it has as long for that as for the head of a request.
pub async fn serve_over<S, O, F>(
    listener: TcpListener,
    open: O,
    routes: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    O: Fn(TcpStream) -> F,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let (connections, cut) = (TaskTracker::new(), Shutdown::new());
    let bound = listener.local_addr()?;
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = shutdown.run_until_cancelled(next).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let (shutdown, cut) = (shutdown.clone(), cut.clone());
                let routes = Extension(Ends { peer, listener: bound }).layer(routes.clone());
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY was refused");
                }
                let opening = open(stream);
                connections.spawn(async move {
                    cut.run_until_cancelled(connection(opening, routes, bounds.head, shutdown)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(bounds.drain, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn connection<S>(
    opening: impl Future<Output = io::Result<S>>,
    routes: AddExtension<Router, Ends>,
    head: Duration,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = match tokio::time::timeout(head, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "an HTTP connection was not opened"),
        Err(_) => return tracing::debug!("an HTTP connection was not opened in time"),
    };
    // Not the builder of hyper-util that tells versions apart: it waits without a deadline for the first bytes.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(BUFFER_BYTES_MAX);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut served = pin!(serving.with_upgrades());
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    async fn served(bounds: Bounds) -> (std::net::SocketAddr, Shutdown, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let (address, shutdown) = (listener.local_addr().expect("bound"), Shutdown::new());
        let routes = Router::new().route("/", get(async || "here")).route(
            "/hang",
            get(async || {
                std::future::pending::<()>().await;
                "never"
            }),
        );
        (address, shutdown.clone(), tokio::spawn(serve(listener, routes, bounds, shutdown)))
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 1024];
        let len = stream.read(&mut bytes).await.expect("an answer or an end");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    fn bounds(head: Duration) -> Bounds {
        Bounds { connections_max: 1, head, drain: Duration::from_millis(50) }
    }

    #[tokio::test]
    async fn a_connection_over_the_bound_waits_for_its_place() {
        let (address, shutdown, server) = served(bounds(Duration::from_secs(60))).await;
        let mut first = TcpStream::connect(address).await.expect("listening");
        first.write_all(REQUEST).await.expect("connected");
        assert!(answer(&mut first).await.ends_with("here"));
        let mut second = TcpStream::connect(address).await.expect("in the queue");
        second.write_all(REQUEST).await.expect("connected");
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(100), second.peek(&mut byte)).await;
        assert!(early.is_err(), "there was no place");
        drop(first);
        assert!(answer(&mut second).await.ends_with("here"));
        shutdown.cancel();
        server.await.expect("no panic").expect("ends well");
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_ends_the_connection() {
        let (address, shutdown, server) = served(bounds(Duration::from_millis(50))).await;
        let mut slow = TcpStream::connect(address).await.expect("listening");
        slow.write_all(b"GET / HT").await.expect("connected");
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.expect("closed by the server");
        shutdown.cancel();
        server.await.expect("no panic").expect("ends well");
    }

    #[tokio::test]
    async fn a_request_that_hangs_is_cut_when_the_time_to_drain_is_over() {
        let (address, shutdown, server) = served(bounds(Duration::from_secs(60))).await;
        let mut hanging = TcpStream::connect(address).await.expect("listening");
        hanging.write_all(b"GET /hang HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("connected");
        let early = tokio::time::timeout(Duration::from_millis(50), hanging.readable()).await;
        assert!(early.is_err(), "it hangs");
        shutdown.cancel();
        server.await.expect("no panic").expect("ends well");
    }
}
