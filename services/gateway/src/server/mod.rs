//! HTTP: routes, and what every request passes on its way to them.
//!
//! Server layer: decode, call, encode; no decisions. Every answer that is no success has the one error shape.

mod api_tokens;
mod audit;
mod authorities;
mod backend;
mod body;
mod commands;
mod console;
mod credentials;
mod device_groups;
mod device_types;
mod devices;
mod functions;
mod guard;
mod health;
mod heard;
mod idempotency;
mod making;
mod objects;
mod path;
mod policies;
mod query;
mod replay;
pub mod routes;
mod rules;
mod shadow;
mod stream;
mod telemetry;
mod unanswered;
mod verify;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use drover_bus::Bus;
use drover_host::http::{self, Bounds, Failure, Hosts};
use drover_host::{AdminToken, Network, Ports, Shutdown, Tls, grpc};
use drover_proto::registry::v1::audit_client::AuditClient;
use drover_proto::registry::v1::certificate_authorities_client::CertificateAuthoritiesClient;
use drover_proto::registry::v1::device_groups_client::DeviceGroupsClient;
use drover_proto::registry::v1::device_types_client::DeviceTypesClient;
use drover_proto::registry::v1::functions_client::FunctionsClient;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::rules::v1::rules_client::RulesClient;
use drover_proto::shadow::v1::commands_client::CommandsClient;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::storage::v1::storage_client::StorageClient;
use drover_types::{ApiError, Clock, ErrorCode, Random, RecordId};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::GatewayConfig;
use crate::domain::sessions::Sessions;
use crate::telemetry::Telemetry;
use backend::Backend;
use heard::Silence;
use making::Making;
use rules::RuleStatuses;
use verify::Verifier;

/// How long open requests may take to end after a stop was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the head of a request may take, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(60);
/// How long a handshake of TLS may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the registry may take; a revocation waits for every ingress node in it.
const REGISTRY_DEADLINE: Duration = Duration::from_secs(15);
/// How long storage may take to read a span.
const STORAGE_DEADLINE: Duration = Duration::from_secs(10);
/// How long storage may take to answer a question in SQL: longer than it works on one, so that it says itself why.
const SQL_DEADLINE: Duration = Duration::from_secs(35);
/// How long a part of a replay may take: it evaluates for two seconds, and what it reads and writes waits for the log.
const REPLAY_DEADLINE: Duration = Duration::from_secs(30);
/// How long the shadow service may take; an update waits for its writer.
const SHADOW_DEADLINE: Duration = Duration::from_secs(10);

/// What handlers work with.
pub struct Api {
    config: GatewayConfig,
    verifier: Verifier,
    network: Network,
    registry: Backend<RegistryClient<grpc::Client>>,
    functions: Backend<FunctionsClient<grpc::Client>>,
    authorities: Backend<CertificateAuthoritiesClient<grpc::Client>>,
    types: Backend<DeviceTypesClient<grpc::Client>>,
    groups: Backend<DeviceGroupsClient<grpc::Client>>,
    audit: Backend<AuditClient<grpc::Client>>,
    storage: Backend<StorageClient<grpc::Client>>,
    /// Of storage, for questions in SQL, which take their time.
    sql: Backend<StorageClient<grpc::Client>>,
    /// Of storage, where it is asked when devices were last heard.
    silence: Silence,
    shadow: Backend<ShadowClient<grpc::Client>>,
    commands: Backend<CommandsClient<grpc::Client>>,
    rules: Backend<RulesClient<grpc::Client>>,
    statuses: RuleStatuses,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    streams: Arc<Semaphore>,
    sessions: Sessions,
    making: Making,
    telemetry: Telemetry,
    shutdown: Shutdown,
}

impl Api {
    /// Handlers' view of the configuration and the ports.
    pub fn new(config: GatewayConfig, ports: &Ports, token: AdminToken, shutdown: Shutdown) -> Self {
        let network = ports.network.clone();
        let registry = RegistryClient::new(network.client("registry"));
        let functions = FunctionsClient::new(network.client("registry"));
        let authorities = CertificateAuthoritiesClient::new(network.client("registry"));
        let types = DeviceTypesClient::new(network.client("registry"));
        let groups = DeviceGroupsClient::new(network.client("registry"));
        let audit = AuditClient::new(network.client("registry"));
        let storage = StorageClient::new(network.client("storage"));
        let shadow = ShadowClient::new(network.client("shadow"));
        let commands = CommandsClient::new(network.client("shadow"));
        Self {
            registry: Backend::new("registry", registry, REGISTRY_DEADLINE),
            functions: Backend::new("registry", functions, REGISTRY_DEADLINE),
            authorities: Backend::new("registry", authorities, REGISTRY_DEADLINE),
            types: Backend::new("registry", types, REGISTRY_DEADLINE),
            groups: Backend::new("registry", groups, REGISTRY_DEADLINE),
            audit: Backend::new("registry", audit, REGISTRY_DEADLINE),
            sql: Backend::new("storage service", storage.clone(), SQL_DEADLINE),
            storage: Backend::new("storage service", storage, STORAGE_DEADLINE),
            silence: Silence::default(),
            shadow: Backend::new("shadow service", shadow, SHADOW_DEADLINE),
            commands: Backend::new("shadow service", commands, SHADOW_DEADLINE),
            rules: Backend::new("rules service", RulesClient::new(network.client("rules")), REPLAY_DEADLINE),
            statuses: RuleStatuses::new(&network),
            bus: ports.bus.clone(),
            clock: ports.clock.clone(),
            random: ports.random.clone(),
            streams: Arc::new(Semaphore::new(config.streams_max)),
            telemetry: Telemetry::new(&ports.metrics),
            sessions: Sessions::new(ports.random.clone()),
            making: Making::default(),
            verifier: Verifier::new(&network, token, REGISTRY_DEADLINE),
            network,
            config,
            shutdown,
        }
    }

    /// The id of a new request, by which it is recognised if it has to be made again.
    fn new_id(&self) -> RecordId {
        RecordId::new(self.clock.now_ms(), &*self.random)
    }
}

/// Serves one listener until `shutdown`, over TLS if there is `tls`; then lets open requests end, at most for [`DRAIN`].
pub async fn serve(listener: TcpListener, tls: Option<Arc<Tls>>, api: Arc<Api>, shutdown: Shutdown) -> io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let balancers = api.config.balancers().map_err(io::Error::other)?;
    let bounds = Bounds { connections_max: api.config.connections_max, head: HEAD, drain: DRAIN, balancers };
    let routes = router(api, loopback);
    match tls {
        Some(tls) => http::serve_tls(listener, tls, HANDSHAKE, routes, bounds, shutdown).await,
        None => http::serve(listener, routes, bounds, shutdown).await,
    }
}

/// All routes of a listener; a `loopback` one is guarded against foreign web pages.
fn router(api: Arc<Api>, loopback: bool) -> Router {
    let hosts = Hosts::new("gateway.allowed_hosts", &api.config.allowed_hosts);
    let mut router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route(routes::OPENAPI, get(routes::openapi))
        .merge(console::routes())
        .nest(routes::SHORT, routes::of_tenant())
        .nest(routes::LONG, routes::of_tenant())
        .fallback(async |request: Request| Failure::nothing_at(request.uri()))
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::identify))
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::measure))
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::device_side));
    if loopback {
        router = router.layer(axum::middleware::from_fn_with_state(hosts, http::refuse_foreign));
    }
    router.with_state(api)
}

async fn wrong_method(request: Request) -> Failure {
    let message = format!("{} is not implemented for {}", request.method(), request.uri().path());
    ApiError::new(ErrorCode::Unimplemented, message).into()
}
