//! A server that webhooks are sent to: it remembers what came, and answers, refuses or hangs as it is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Answers(u16),
    Hangs,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
    /// What was answered; nothing yet if it hangs.
    pub answered: Option<u16>,
}

#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Target {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let target = Self { address, manner: Arc::new(Mutex::new(manner)), seen: Arc::default() };
        let served = target.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = served.clone();
                let service = service_fn(move |request| {
                    let target = target.clone();
                    async move { target.answer(request).await }
                });
                // Connections end as the client likes.
                tokio::spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await)
                });
            }
        });
        target
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let manner = *self.manner.lock().expect("not poisoned");
        let answered = match manner {
            Manner::Answers(status) => Some(status),
            Manner::Hangs => None,
        };
        self.seen.lock().expect("not poisoned").push(Seen {
            path: head.uri.to_string(),
            headers: head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
            answered,
        });
        let Some(status) = answered else { return std::future::pending().await };
        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Ok(response)
    }

    pub fn becomes(&self, manner: Manner) {
        *self.manner.lock().expect("not poisoned") = manner;
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Bodies of the requests that it has accepted.
    pub fn accepted(&self) -> Vec<String> {
        self.seen().into_iter().filter(|seen| seen.answered == Some(200)).map(|seen| seen.body).collect()
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}
