//! What a handler leaves of a request's body, because it refuses the request for example.
//!
//! The next request stands behind it on the connection: a little is read and thrown away, otherwise the answer says that
//! the connection ends with it (RFC 9112, section 9.6). A client that is not told sends its next request into a closed one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, EXPECT};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot::{self, Sender};

/// Bytes that are thrown away, and how long they may take to come, so that a connection is kept.
const BYTES_MAX: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_millis(500);

/// Has the request answered, and sees to what is left of its body before the answer leaves.
pub async fn settle(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // To read a body is to ask for it: who waits for that is not asked for what is thrown away.
    let waits = request.headers().contains_key(EXPECT);
    let (left, mut rest) = oneshot::channel();
    let request = request.map(|body| Body::new(Watched { body: Some(body), left: Some(left) }));
    let mut response = next.run(request).await;
    // An error: it was read to its end, or the handler goes on reading it.
    if let Ok(body) = rest.try_recv()
        && (waits || !ended(body).await)
    {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a body ends within the bounds.
async fn ended(body: Body) -> bool {
    let mut data = body.into_data_stream();
    let mut bytes = 0;
    let all = async {
        while bytes <= BYTES_MAX {
            match data.next().await {
                Some(Ok(piece)) => bytes += piece.len(),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or(false)
}

/// A body that is handed back by who drops it before its end.
struct Watched {
    /// `None`: it has ended.
    body: Option<Body>,
    left: Option<Sender<Body>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(body), Some(left)) = (self.body.take(), self.left.take()) {
            // An error: the request was given up, nobody answers it.
            drop(left.send(body));
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::Shutdown;
    use crate::http::{Bounds, serve};
    use crate::proxy::Balancers;

    /// A client of a server that refuses everything unread at `/refuse`, and reads everything at `/read`.
    async fn client() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
        let address = listener.local_addr().expect("bound");
        let routes = Router::new()
            .route("/refuse", post(async || "refused"))
            .route("/read", post(async |body: Bytes| format!("{} read", body.len())));
        let minute = Duration::from_secs(60);
        let bounds = Bounds { connections_max: 1, head: minute, drain: minute, balancers: Balancers::default() };
        tokio::spawn(serve(listener, routes, bounds, Shutdown::new()));
        TcpStream::connect(address).await.expect("listening")
    }

    /// The head of a request with a body that is yet to come, of `framing`.
    async fn head(stream: &mut TcpStream, path: &str, framing: &str) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("connected");
    }

    /// An answer up to its end, which is known.
    async fn answer(stream: &mut TcpStream, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let mut bytes = [0; 4096];
            let len = stream.read(&mut bytes).await.expect("an answer");
            assert_ne!(len, 0, "closed after {text:?}");
            text.push_str(std::str::from_utf8(&bytes[..len]).expect("text"));
        }
        text
    }

    #[tokio::test]
    async fn a_refused_body_that_comes_late_is_passed_over_and_the_next_request_answered() {
        let mut stream = client().await;
        for (framing, body) in [
            ("content-length: 3", "abc".to_owned()),
            ("content-length: 200000", "x".repeat(200_000)),
            ("transfer-encoding: chunked", "3\r\nabc\r\n0\r\n\r\n".to_owned()),
        ] {
            head(&mut stream, "/refuse", framing).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(body.as_bytes()).await.expect("connected");
            let refused = answer(&mut stream, "refused").await;
            assert!(!refused.contains("connection: close"), "{framing}: {refused}");
            head(&mut stream, "/read", framing).await;
            stream.write_all(body.as_bytes()).await.expect("connected");
            let read = answer(&mut stream, " read").await;
            assert!(read.starts_with("HTTP/1.1 200") && !read.contains("connection: close"), "{framing}: {read}");
        }
    }

    #[tokio::test]
    async fn a_refused_body_that_does_not_end_in_time_or_within_the_bound_ends_the_connection_as_told() {
        for (framing, body) in [
            ("content-length: 3", ""),
            ("content-length: 3\r\nexpect: 100-continue", ""),
            ("content-length: 1000000000", &"x".repeat(BYTES_MAX + 1)),
        ] {
            let mut stream = client().await;
            head(&mut stream, "/refuse", framing).await;
            stream.write_all(body.as_bytes()).await.expect("connected");
            let refused = answer(&mut stream, "refused").await;
            assert!(
                refused.starts_with("HTTP/1.1 200") && refused.contains("connection: close"),
                "{framing}: {refused}"
            );
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "{framing}: closed");
        }
    }
}
