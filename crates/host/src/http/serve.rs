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

use super::unread;
use crate::Shutdown;
use crate::proxy::{self, Balancers};

/// Bytes of a request's head, and of what is read at once of its body.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Wait after an accept that failed, for lack of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long a balancer may take to say who is behind it.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Bounds of a listener, and whose word it takes.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections at once; more wait in the kernel's queue until one ends, or becomes one of another protocol.
    pub connections_max: usize,
    /// For the head of a request, counted from the end of the one before: an idle connection ends with it.
    pub head: Duration,
    /// For open requests to end after a stop was asked for; then they are cut.
    pub drain: Duration,
    /// Who says by the PROXY protocol for whom it connects.
    pub balancers: Balancers,
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
    serve_over(listener, |stream| ready(Ok((stream, ()))), routes, bounds, shutdown).await
}

/// [`serve`] over what `open` makes of a connection, TLS for example, once a balancer has said who is behind it. `open` has as long
/// as the head of a request, counted from then; what it tells of the peer is an extension of each request.
pub async fn serve_over<S, E, O, F>(
    listener: TcpListener,
    open: O,
    routes: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Clone + Send + Sync + 'static,
    O: Fn(TcpStream) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<(S, E)>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(bounds.connections_max));
    let (connections, cut) = (TaskTracker::new(), Shutdown::new());
    let routes = routes.layer(axum::middleware::from_fn(unread::settle));
    let listens_at = listener.local_addr()?;
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = shutdown.run_until_cancelled(next).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                let (shutdown, cut, routes, open) = (shutdown.clone(), cut.clone(), routes.clone(), open.clone());
                let Bounds { head, balancers, .. } = bounds.clone();
                connections.spawn(async move {
                    let serving = async move {
                        let Some(peer) = behind(&stream, peer, &balancers).await else { return };
                        let routes = Extension(Ends { peer, listener: listens_at }).layer(routes);
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "TCP_NODELAY was refused");
                        }
                        let opening = open(stream);
                        connection(opening, routes, head, shutdown).await;
                    };
                    cut.run_until_cancelled(serving).await;
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

/// Who has connected: `peer`, or who is behind it if it is a balancer. `None`: it does not say so as it has to.
async fn behind(stream: &TcpStream, peer: SocketAddr, balancers: &Balancers) -> Option<SocketAddr> {
    if !balancers.contain(peer) {
        return Some(peer);
    }
    match tokio::time::timeout(INTRODUCTION, proxy::introduced(stream)).await {
        Ok(Ok(source)) => Some(source.unwrap_or(peer)),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "a balancer's connection is closed");
            None
        }
        Err(_) => {
            let limit = INTRODUCTION;
            tracing::info!(%peer, ?limit, "a balancer's connection is closed, it has not said in time who is behind it");
            None
        }
    }
}

async fn connection<S, E>(
    opening: impl Future<Output = io::Result<(S, E)>>,
    routes: AddExtension<Router, Ends>,
    head: Duration,
    shutdown: Shutdown,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Clone + Send + Sync + 'static,
{
    let (stream, told) = match tokio::time::timeout(head, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::debug!(%error, "an HTTP connection was not opened"),
        Err(_) => return tracing::debug!("an HTTP connection was not opened in time"),
    };
    // Not the builder of hyper-util that tells versions apart: it waits without a deadline for the first bytes.
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(BUFFER_BYTES_MAX);
    let service = TowerToHyperService::new(Extension(told).layer(routes));
    let serving = builder.serve_connection(TokioIo::new(stream), service);
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
    /// What a balancer says of a client at 192.0.2.7:4711.
    const INTRODUCED: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x12\x67\x1f\x90";

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
        Bounds { connections_max: 1, head, drain: Duration::from_millis(50), balancers: Balancers::default() }
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
    async fn a_balancer_says_who_is_behind_it_before_anything_else() {
        let balancers = Balancers::parse("k", &["127.0.0.0/8".to_owned()]).expect("valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let (address, shutdown) = (listener.local_addr().expect("bound"), Shutdown::new());
        let peer = async |Extension(ends): Extension<Ends>| ends.peer.to_string();
        let bounds = Bounds { balancers, ..bounds(Duration::from_secs(60)) };
        let server = tokio::spawn(serve(listener, Router::new().route("/", get(peer)), bounds, shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(&[INTRODUCED, REQUEST].concat()).await.expect("connected");
        assert!(answer(&mut stream).await.ends_with("192.0.2.7:4711"));
        drop(stream);
        let mut bare = TcpStream::connect(address).await.expect("listening");
        bare.write_all(REQUEST).await.expect("connected");
        // Closed with a request unread: an end, or a reset.
        assert_eq!(bare.read(&mut [0; 16]).await.unwrap_or(0), 0, "no answer");
        shutdown.cancel();
        server.await.expect("no panic").expect("ends well");
    }

    #[tokio::test]
    async fn a_connection_is_opened_behind_the_balancers_word_and_has_as_long_as_a_head() {
        let open = |mut stream: TcpStream| async move {
            let told = stream.read_u8().await?;
            io::Result::Ok((stream, told))
        };
        for (head, sent, answered) in [
            (Duration::from_secs(60), [INTRODUCED, b"o", REQUEST].concat(), true),
            (Duration::from_millis(50), INTRODUCED.to_vec(), false),
        ] {
            let balancers = Balancers::parse("k", &["127.0.0.0/8".to_owned()]).expect("valid");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
            let (address, shutdown) = (listener.local_addr().expect("bound"), Shutdown::new());
            let peer = async |Extension(ends): Extension<Ends>, Extension(told): Extension<u8>| {
                format!("{} of {}", char::from(told), ends.peer)
            };
            let (routes, bounds) = (Router::new().route("/", get(peer)), Bounds { balancers, ..bounds(head) });
            let server = tokio::spawn(serve_over(listener, open, routes, bounds, shutdown.clone()));
            let mut stream = TcpStream::connect(address).await.expect("listening");
            stream.write_all(&sent).await.expect("connected");
            let said = answer(&mut stream).await;
            assert_eq!(said.ends_with("o of 192.0.2.7:4711"), answered, "{said}");
            assert_eq!(said.is_empty(), !answered, "closed without a word");
            drop(stream);
            shutdown.cancel();
            server.await.expect("no panic").expect("ends well");
        }
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
