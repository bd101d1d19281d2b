//! HTTP for devices: `POST /v1/topics/{topic}`, `POST /v1/batch`, `POST /v1/functions/{name}`, the ThingSpeak update and InfluxDB's
//! line protocol. No session: each request says who it is and
//! goes the way of an MQTT message — policy, limits, log, subscribers. And `/mqtt`, where MQTT over WebSocket begins.
//!
//! Server layer. Of it only `/mqtt` is a matter of presence: other requests neither connect nor disconnect a device.

mod batch;
mod functions;
mod publish;
mod telemetry;
mod topics;
mod turns;
mod update;
mod websocket;
mod who;
mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use drover_host::http::{self, Bounds, Failure, Hosts};
use drover_host::proxy::Balancers;
use drover_host::{Ports, Shutdown, Tls};
use drover_types::{ApiError, ErrorCode};
use futures::future::try_join_all;
use tokio::net::TcpListener;

use crate::config::{AnonymousAccess, HTTP, HTTPS, HttpConfig, IngressConfig};
use crate::domain::node::Node;
use crate::ports::Functions;
use crate::server::loops::Entrance;
use telemetry::Telemetry;
use turns::Turns;

/// How long the head of a request may take, and a connection may be idle: devices post every minute or less.
const HEAD: Duration = Duration::from_secs(75);

/// What handlers work with.
struct DeviceSide {
    node: Arc<Node>,
    /// Of MQTT.
    entrance: Arc<Entrance>,
    functions: Arc<dyn Functions>,
    anonymous: AnonymousAccess,
    /// For a body to come, and for a message to become durable.
    patience: Duration,
    /// Of batches and of bodies of lines.
    turns: Turns,
    batch_rows_max: usize,
    batch_bytes_max: usize,
    telemetry: Telemetry,
}

/// The device side of HTTP, ready to be served.
pub struct DeviceHttp {
    node: Arc<Node>,
    functions: Arc<dyn Functions>,
    telemetry: Telemetry,
    anonymous: AnonymousAccess,
    config: HttpConfig,
    handshake: Duration,
    drain: Duration,
    balancers: Balancers,
    own: Vec<TcpListener>,
    /// Those that speak TLS.
    secure: Vec<(TcpListener, Arc<Tls>)>,
    /// Whether there is to be HTTPS, here or on the listener of another service.
    https: bool,
    ports: Ports,
}

impl DeviceHttp {
    /// Takes the sockets; those of HTTPS where there is a certificate.
    pub fn new(
        node: Arc<Node>,
        functions: Arc<dyn Functions>,
        config: &IngressConfig,
        balancers: Balancers,
        tls: Option<&Arc<Tls>>,
        ports: &Ports,
    ) -> std::io::Result<Self> {
        let secure = ports.sockets.take_tcp(HTTPS)?;
        Ok(Self {
            node,
            functions,
            telemetry: Telemetry::new(&ports.metrics),
            anonymous: config.anonymous,
            config: config.http.clone(),
            handshake: config.timeouts.connect.as_std(),
            drain: config.timeouts.drain.as_std(),
            balancers,
            own: ports.sockets.take_tcp(HTTP)?,
            secure: tls.map(|tls| secure.into_iter().map(|own| (own, tls.clone())).collect()).unwrap_or_default(),
            https: tls.is_some() && !config.https.listen.is_empty(),
            ports: ports.clone(),
        })
    }

    /// Whether anybody is to serve it.
    pub fn is_wanted(&self) -> bool {
        self.https || !self.own.is_empty() || !self.config.listen.is_empty()
    }

    /// Serves until `shutdown`: on sockets of its own, or on the listeners of whoever has its addresses. WebSockets are handed
    /// to the `entrance`.
    pub async fn serve(mut self, entrance: Arc<Entrance>, shutdown: Shutdown) {
        let (routes, lent) = (self.routes(entrance), self.lent());
        let (own, secure) = (std::mem::take(&mut self.own), std::mem::take(&mut self.secure));
        let bounds = self.bounds();
        let plain = try_join_all(own.into_iter().map(|listener| {
            let routes = self.guarded(&routes, &listener);
            http::serve(listener, routes, bounds.clone(), shutdown.clone())
        }));
        let over_tls = try_join_all(secure.into_iter().map(|(listener, tls)| {
            let routes = self.guarded(&routes, &listener);
            http::serve_tls(listener, tls, self.handshake, routes, bounds.clone(), shutdown.clone())
        }));
        let network = self.ports.network;
        let served = async move {
            if let Err(error) = tokio::try_join!(plain, over_tls) {
                tracing::error!(%error, "HTTP for devices ended");
            }
        };
        let lending = async move {
            for &listener in &lent {
                network.http().contribute(listener, routes.clone());
            }
            shutdown.cancelled().await;
            for &listener in &lent {
                network.http().withdraw(listener);
            }
        };
        tokio::join!(served, lending);
    }

    /// The listeners whose addresses another service of the process has.
    fn lent(&self) -> Vec<&'static str> {
        let plain = self.own.is_empty() && !self.config.listen.is_empty();
        let over_tls = self.secure.is_empty() && self.https;
        [(HTTP, plain), (HTTPS, over_tls)].into_iter().filter_map(|(name, is_lent)| is_lent.then_some(name)).collect()
    }

    fn bounds(&self) -> Bounds {
        let (connections_max, drain, balancers) = (self.config.connections, self.drain, self.balancers.clone());
        Bounds { connections_max, head: HEAD, drain, balancers }
    }

    /// The routes as `listener` serves them: one on loopback refuses the pages of other sites.
    fn guarded(&self, routes: &Router, listener: &TcpListener) -> Router {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let hosts = Hosts::new("ingress.http.allowed_hosts", &self.config.allowed_hosts);
        let guard = axum::middleware::from_fn_with_state(hosts, http::refuse_foreign);
        if loopback { routes.clone().layer(guard) } else { routes.clone() }
    }

    fn routes(&self, entrance: Arc<Entrance>) -> Router {
        let side = Arc::new(DeviceSide {
            node: self.node.clone(),
            entrance,
            functions: self.functions.clone(),
            anonymous: self.anonymous,
            patience: self.config.request.as_std(),
            turns: Turns::default(),
            batch_rows_max: self.config.batch_rows,
            batch_bytes_max: self.config.batch_bytes.as_len(),
            telemetry: self.telemetry.clone(),
        });
        Router::new()
            .route("/v1/topics/{*topic}", post(topics::post))
            .route("/v1/batch", post(batch::post))
            .route("/v1/functions/{name}", post(functions::post))
            .route("/update", get(update::update).post(update::update))
            .route("/api/v2/write", post(write::post))
            .route(websocket::PATH, get(websocket::upgrade))
            .fallback(async |request: Request| Failure::nothing_at(request.uri()))
            .method_not_allowed_fallback(wrong_method)
            .layer(axum::middleware::from_fn_with_state(side.clone(), telemetry::measure))
            .with_state(side)
    }
}

async fn wrong_method(request: Request) -> Failure {
    let message = format!("{} is not implemented for {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::Unimplemented, message).into()
}
