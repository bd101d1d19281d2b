//! A gateway that runs, and a client of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use drover_gateway::{Gateway, GatewayConfig};
use drover_host::{
    AdminToken, Health, Metrics, Network, Ports, Service, ServiceConfig, Shutdown, Sockets, SystemClock, SystemRandom,
    grpc,
};
use drover_proto::registry::v1::api_tokens_server::ApiTokensServer;
use drover_proto::registry::v1::audit_server::AuditServer;
use drover_proto::registry::v1::certificate_authorities_server::CertificateAuthoritiesServer;
use drover_proto::registry::v1::device_groups_server::DeviceGroupsServer;
use drover_proto::registry::v1::device_types_server::DeviceTypesServer;
use drover_proto::registry::v1::functions_server::FunctionsServer;
use drover_proto::registry::v1::registry_server::RegistryServer;
use drover_proto::rules::v1::rules_server::RulesServer;
use drover_proto::shadow::v1::commands_server::CommandsServer;
use drover_proto::shadow::v1::shadow_server::ShadowServer;
use drover_proto::storage::v1::storage_server::StorageServer;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use ureq::http::HeaderMap;

use crate::fake_audit::FakeAudit;
use crate::fake_authorities::FakeAuthorities;
use crate::fake_bus::FakeBus;
use crate::fake_commands::FakeCommands;
use crate::fake_functions::FakeFunctions;
use crate::fake_kinds::{FakeGroups, FakeTypes};
use crate::fake_series::{FakeShadow, FakeStorage};
use crate::fake_tokens::FakeApiTokens;
use crate::fakes::{FakeRegistry, FakeRules};

pub const TOKEN: &str = "the-admin-token";
/// Every service behind the gateway.
pub const ALL: [&str; 4] = ["registry", "rules", "storage", "shadow"];

/// Runs until dropped or stopped.
pub struct Running {
    pub address: SocketAddr,
    pub bus: Arc<FakeBus>,
    pub metrics: Metrics,
    pub tokens: FakeApiTokens,
    agent: ureq::Agent,
    shutdown: Shutdown,
    gateway: JoinHandle<anyhow::Result<()>>,
    runtime: Runtime,
}

impl Running {
    pub fn start() -> Self {
        Self::with(GatewayConfig::default(), &ALL)
    }

    /// Starts with `services` behind the gateway; others are not there.
    pub fn with(config: GatewayConfig, services: &[&'static str]) -> Self {
        let config = GatewayConfig { listen: vec!["127.0.0.1:0".parse().unwrap()], ..config };
        let runtime = Runtime::new().expect("a runtime");
        let _entered = runtime.enter();
        // A service of another process that nobody serves: port 9 (discard) of this machine.
        let gone = |name: &&str| (name.to_string(), "http://127.0.0.1:9".parse().unwrap());
        let absent: HashMap<_, _> = ALL.iter().filter(|s| !services.contains(s)).map(gone).collect();
        let network = Network::with_admin_token(absent, AdminToken::new(TOKEN));
        let (shutdown, tokens) = (Shutdown::new(), FakeApiTokens::default());
        for &service in services {
            let routes = match service {
                "registry" => grpc::Routes::new(RegistryServer::new(FakeRegistry::default()))
                    .add_service(ApiTokensServer::new(tokens.clone()))
                    .add_service(DeviceTypesServer::new(FakeTypes::default()))
                    .add_service(DeviceGroupsServer::new(FakeGroups::default()))
                    .add_service(FunctionsServer::new(FakeFunctions::default()))
                    .add_service(CertificateAuthoritiesServer::new(FakeAuthorities::default()))
                    .add_service(AuditServer::new(FakeAudit)),
                "storage" => grpc::Routes::new(StorageServer::new(FakeStorage)),
                "shadow" => grpc::Routes::new(ShadowServer::new(FakeShadow::default()))
                    .add_service(CommandsServer::new(FakeCommands::default())),
                _ => grpc::Routes::new(RulesServer::new(FakeRules)),
            };
            let (network, shutdown) = (network.clone(), shutdown.clone());
            tokio::spawn(async move {
                grpc::serve(routes, service, &Sockets::default(), &network, shutdown).await.expect("serves");
            });
        }
        let bus = Arc::new(FakeBus::with_topics(&["drover.telemetry", "home.hot", "away.hot"]));
        let sockets = Sockets::bind(&config.listeners()).expect("port 0 is free");
        let address = sockets.addresses("gateway.http")[0];
        let ports = Ports {
            bus: bus.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            network,
            sockets,
            data: std::env::temp_dir(),
            metrics: Metrics::default(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: Health::default().service("gateway"),
        };
        let metrics = ports.metrics.clone();
        let gateway = tokio::spawn(Gateway::run(config, ports, shutdown.clone()));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        drop(_entered);
        Self { address, bus, metrics, tokens, agent, shutdown, gateway, runtime }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the token; the answer's status and body (`null` if it has none).
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let text = body.map_or(String::new(), |body| body.to_string());
        self.send(method, path, &[("authorization", &format!("Bearer {TOKEN}"))], &text)
    }

    /// A request as given.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body.to_owned()).expect("a request")).expect("an answer");
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A request as given; status, headers and text of the answer. Redirects are not followed.
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, HeaderMap, String) {
        let mut request = ureq::http::Request::builder().method(method).uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body.to_owned()).expect("a request")).expect("an answer");
        let text = response.body_mut().read_to_string().expect("text");
        (response.status().as_u16(), response.headers().clone(), text)
    }

    /// Stops the gateway and waits for its end.
    pub fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.runtime.block_on(self.gateway)?
    }
}
