//! The validating webhook: the API server asks whether a Rule compiles before it keeps it.
//!
//! Every process of the operator answers, whoever leads. The API server goes on without an answer (`failurePolicy: Ignore`), and
//! what was let in so is refused in its status: nothing depends on this.

mod certificate;
mod keeper;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use drover_host::http::{Bounds, serve_over};
use drover_host::proxy::Balancers;
use drover_host::{Ready, Shutdown};
use drover_types::Clock;
use futures::future;
use kube::Client;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::WebhookConfig;
use crate::domain::admission::{self, Review};
use crate::telemetry::Telemetry;
use keeper::Keeper;

/// Where Rules are reviewed; the chart's ValidatingWebhookConfiguration names it.
const PATH: &str = "/rules";
/// Longest review, in bytes: an object of the API server has at most 1.5 MiB, and an update brings two.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Only the API server has a reason to connect, from a few processes.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for TLS, and as long for the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// Longest wait for reviews under way after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// What the webhook works with.
pub struct Parts {
    pub config: WebhookConfig,
    /// Of the Secret.
    pub namespace: String,
    pub client: Client,
    pub clock: Arc<dyn Clock>,
    pub ready: Ready,
    pub telemetry: Telemetry,
}

/// Answers on `listeners`, and keeps the certificate, until `shutdown`. Without listeners there is no webhook.
pub async fn run(parts: Parts, listeners: Vec<TcpListener>, shutdown: Shutdown) -> io::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let (show, shown) = watch::channel(None::<TlsAcceptor>);
    let routes = Router::new()
        .route(PATH, post(review))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(parts.telemetry.clone());
    let serving = listeners.into_iter().map(|listener| {
        let shown = shown.clone();
        let open = move |stream: TcpStream| {
            let acceptor: Option<TlsAcceptor> = shown.borrow().clone();
            async move {
                let acceptor = acceptor.ok_or_else(|| io::Error::other("there is no certificate yet"))?;
                io::Result::Ok((acceptor.accept(stream).await?, ()))
            }
        };
        let (connections_max, balancers) = (CONNECTIONS_MAX, Balancers::default());
        let bounds = Bounds { connections_max, head: HEAD, drain: DRAIN, balancers };
        serve_over(listener, open, routes.clone(), bounds, shutdown.clone())
    });
    let keeping = async {
        shutdown.run_until_cancelled(Box::pin(Keeper::new(parts, show).keep())).await;
        io::Result::Ok(())
    };
    tokio::try_join!(future::try_join_all(serving), keeping)?;
    Ok(())
}

async fn review(State(telemetry): State<Telemetry>, Json(review): Json<Review>) -> Json<Value> {
    let refusal = admission::refusal(&review.request);
    telemetry.reviewed(refusal.is_none());
    Json(admission::answer(&review.request.uid, refusal.as_ref()))
}
