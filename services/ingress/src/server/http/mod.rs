//! HTTP for devices: `POST /v1/topics/{topic}`, `POST /v1/functions/{name}` and the ThingSpeak update. No session: each request says who it is and
//! goes the way of an MQTT message — policy, limits, log, subscribers. And `/mqtt`, where MQTT over WebSocket begins.
//!
//! Server layer. Of it only `/mqtt` is a matter of presence: other requests neither connect nor disconnect a device.

mod functions;
mod publish;
mod telemetry;
mod topics;
mod update;
mod websocket;
mod who;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use drover_host::http::{self, Bounds, Failure, Hosts};
use drover_host::{Metrics, Ports, Shutdown};
use drover_types::{ApiError, ErrorCode};
use tokio::net::TcpListener;

use crate::config::{AnonymousAccess, HTTP, HttpConfig, IngressConfig};
use crate::domain::node::Node;
use crate::ports::Functions;
use crate::server::listener::Listeners;
use telemetry::Telemetry;

/// How long the head of a request may take, and a connection may be idle: devices post every minute or less.
const HEAD: Duration = Duration::from_secs(75);
/// Name under which the routes are handed over to a listener of another service.
const SERVICE: &str = "ingress";

/// What handlers work with.
struct DeviceSide {
    node: Arc<Node>,
    /// Of MQTT.
    listeners: Arc<Listeners>,
    functions: Arc<dyn Functions>,
    anonymous: AnonymousAccess,
    /// For a body to come, and for a message to become durable.
    patience: Duration,
    telemetry: Telemetry,
}

/// The device side of HTTP, ready to be served.
pub struct DeviceHttp {
    routes: Router,
    config: HttpConfig,
    drain: Duration,
    own: Vec<TcpListener>,
    ports: Ports,
}

impl DeviceHttp {
    /// Takes the sockets; what comes by WebSocket is handed to `listeners`.
    pub fn new(
        listeners: Arc<Listeners>,
        functions: Arc<dyn Functions>,
        config: &IngressConfig,
        ports: &Ports,
    ) -> std::io::Result<Self> {
        Ok(Self {
            routes: routes(listeners, functions, config, &ports.metrics),
            config: config.http.clone(),
            drain: config.timeouts.drain.as_std(),
            own: ports.sockets.take_tcp(HTTP)?,
            ports: ports.clone(),
        })
    }

    /// Serves until `shutdown`: on sockets of its own, or on the listener of whoever has its addresses.
    pub async fn serve(self, shutdown: Shutdown) {
        if self.own.is_empty() {
            if !self.config.listen.is_empty() {
                self.ports.network.http().contribute(SERVICE, self.routes);
                shutdown.cancelled().await;
                self.ports.network.http().withdraw(SERVICE);
            }
            return;
        }
        let bounds = Bounds { connections_max: self.config.connections, head: HEAD, drain: self.drain };
        let hosts = Hosts::new("ingress.http.allowed_hosts", &self.config.allowed_hosts);
        let servers = self.own.into_iter().map(|listener| {
            let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let guard = axum::middleware::from_fn_with_state(hosts.clone(), http::refuse_foreign);
            let routes = if loopback { self.routes.clone().layer(guard) } else { self.routes.clone() };
            http::serve(listener, routes, bounds, shutdown.clone())
        });
        if let Err(error) = futures::future::try_join_all(servers).await {
            tracing::error!(%error, "HTTP for devices ended");
        }
    }
}

fn routes(
    listeners: Arc<Listeners>,
    functions: Arc<dyn Functions>,
    config: &IngressConfig,
    metrics: &Metrics,
) -> Router {
    let side = Arc::new(DeviceSide {
        node: listeners.node.clone(),
        listeners,
        functions,
        anonymous: config.anonymous,
        patience: config.http.request.as_std(),
        telemetry: Telemetry::new(metrics),
    });
    Router::new()
        .route("/v1/topics/{*topic}", post(topics::post))
        .route("/v1/functions/{name}", post(functions::post))
        .route("/update", get(update::update).post(update::update))
        .route(websocket::PATH, get(websocket::upgrade))
        .fallback(async |request: Request| Failure::nothing_at(request.uri()))
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(side.clone(), telemetry::measure))
        .with_state(side)
}

async fn wrong_method(request: Request) -> Failure {
    let message = format!("{} is not implemented for {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::Unimplemented, message).into()
}
