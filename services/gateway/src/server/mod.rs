//! HTTP: routes, and what every request passes on its way to them.
//!
//! Server layer: decode, call, encode; no decisions. Every answer that is no success has the one error shape.

mod body;
mod credentials;
mod devices;
mod error;
mod guard;
mod health;
mod listener;
mod objects;
mod path;
mod policies;
mod registry;
mod rules;
mod stream;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Html;
use axum::routing::get;
use drover_bus::Bus;
use drover_host::{Ports, Shutdown};
use drover_types::{ApiError, ErrorCode};
use tokio::sync::Semaphore;

use crate::GatewayConfig;
use crate::telemetry::Telemetry;
use error::Failure;
use registry::Registry;
use rules::RuleStatuses;

/// How long open requests may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);

/// What handlers work with.
pub struct Api {
    config: GatewayConfig,
    token: String,
    registry: Registry,
    statuses: RuleStatuses,
    bus: Arc<dyn Bus>,
    streams: Arc<Semaphore>,
    telemetry: Telemetry,
    shutdown: Shutdown,
}

impl Api {
    /// Handlers' view of the configuration and the ports.
    pub fn new(config: GatewayConfig, ports: &Ports, token: String, shutdown: Shutdown) -> Self {
        Self {
            registry: Registry::new(&ports.network),
            statuses: RuleStatuses::new(&ports.network),
            bus: ports.bus.clone(),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            telemetry: Telemetry::new(&ports.metrics),
            config,
            token,
            shutdown,
        }
    }
}

/// Serves one listener until `shutdown`, then lets open requests end, at most for [`DRAIN`].
pub fn serve(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    shutdown: Shutdown,
) -> impl Future<Output = io::Result<()>> {
    async move {
        let loopback = listener.local_addr()?.ip().is_loopback();
        let listener = listener::Bounded::new(listener, api.config.connections_max);
        let server = axum::serve(listener, router(api, loopback)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let deadline = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = server.into_future() => served,
            () = deadline => Ok(()),
        }
    }
}

/// All routes of a listener; a `loopback` one is guarded against foreign web pages.
fn router(api: Arc<Api>, loopback: bool) -> Router {
    let mut router = Router::new()
        .route("/", get(async || Html(include_str!("root.html"))))
        .route("/healthz", get(async || "ok\n"))
        .nest("/api/v1", tenant_routes())
        .nest("/api/v1/tenants/{tenant}", tenant_routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::token));
    if loopback {
        router = router.layer(axum::middleware::from_fn_with_state(api.clone(), guard::foreign));
    }
    router.layer(axum::middleware::from_fn_with_state(api.clone(), guard::measure)).with_state(api)
}

/// The routes of one tenant.
fn tenant_routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/health", get(health::get))
        .route("/devices", get(devices::list).post(devices::create))
        .route("/devices/{device}", get(devices::get).put(devices::put).delete(devices::delete))
        .route("/devices/{device}/credentials", get(credentials::list).post(credentials::issue))
        .route("/devices/{device}/credentials/{credential}", axum::routing::delete(credentials::revoke))
        .route("/policies", get(policies::list))
        .route("/policies/{policy}", get(policies::get).put(policies::put).delete(policies::delete))
        .route("/rules", get(rules::list))
        .route("/rules/{rule}", get(rules::get).put(rules::put).delete(rules::delete))
        .route("/stream", get(stream::open))
}

async fn unknown_path(request: Request) -> Failure {
    ApiError::new(ErrorCode::NotFound, format!("there is nothing at {}", request.uri().path())).into()
}

async fn wrong_method(request: Request) -> Failure {
    let message = format!("{} is not implemented for {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::Unimplemented, message).into()
}
