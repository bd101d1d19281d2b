//! The registry: devices, credentials, policies, rules, API tokens and presence.
//!
//! Everything is one object row and one row of the outbox in one durable step; the outbox becomes the public change
//! feed. `server` decodes, `domain` decides, `adapters` keep.

mod adapters;
pub mod audit;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod domain;
pub mod master_keys;
pub mod object;
pub mod pki;
pub mod ports;
mod server;
mod telemetry;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use drover_bus::{AdminError, Bus, bounds};
use drover_host::{Ports, Service, Shutdown, grpc};
use drover_proto::registry::v1::api_tokens_server::ApiTokensServer;
use drover_proto::registry::v1::audit_server::AuditServer;
use drover_proto::registry::v1::certificate_authorities_server::CertificateAuthoritiesServer;
use drover_proto::registry::v1::device_groups_server::DeviceGroupsServer;
use drover_proto::registry::v1::device_types_server::DeviceTypesServer;
use drover_proto::registry::v1::functions_server::FunctionsServer;
use drover_proto::registry::v1::pre_shared_keys_server::PreSharedKeysServer;
use drover_proto::registry::v1::registry_server::RegistryServer;
use drover_proto::registry::v1::topics_server::TopicsServer;
use tokio::sync::{Mutex, Notify};

pub use adapters::embedded::Embedded;
#[cfg(any(test, feature = "conformance"))]
pub use adapters::memory::Memory;
pub use adapters::scylla::Scylla;
pub use config::{EmbeddedLimits, RegistryConfig, StoreConfig};
pub use domain::topics::{CHANGES_TOPIC, EVENTS_TOPIC, NODES_TOPIC, PRESENCE_TOPIC};

use adapters::ingress::GrpcNodes;
use adapters::jwt_keys;
use domain::changes::ChangeFeed;
use domain::jwt::Issuers;
use domain::lifecycle::Lifecycle;
use domain::nodes::Nodes;
use domain::output_topics::OutputTopics;
use domain::{Domain, Settings, topics};
use master_keys::MasterKeys;
use ports::{IngressNodes, RegistryStore};
use telemetry::Telemetry;

/// Pause before the bus is asked again for its topics.
const TOPICS_RETRY: Duration = Duration::from_millis(200);

/// The service.
pub struct Registry;

#[async_trait]
impl Service for Registry {
    const NAME: &'static str = "registry";
    type Config = RegistryConfig;

    async fn run(config: RegistryConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let telemetry = Arc::new(Telemetry::new(&ports.metrics, ports.ready.clone()));
        let directory = ports.data.join("store");
        refuse_lost_store(&config.store, &directory, &*ports.bus).await?;
        let opening = Box::pin(adapters::open_store(&config.store, &directory, &ports, &telemetry));
        let issuers = Arc::new(Issuers::new(jwt_keys::read(&config.jwt)?));
        let Some(store) = shutdown.run_until_cancelled(opening).await.transpose()? else { return Ok(()) };
        Box::pin(work(config, ports, shutdown, Opened { store, issuers, telemetry })).await
    }
}

/// [`Registry::run`] over a store that is open.
#[doc(hidden)]
pub async fn run_with(
    config: RegistryConfig,
    ports: Ports,
    shutdown: Shutdown,
    store: Arc<dyn RegistryStore>,
) -> anyhow::Result<()> {
    let telemetry = Arc::new(Telemetry::new(&ports.metrics, ports.ready.clone()));
    let issuers = Arc::new(Issuers::new(jwt_keys::read(&config.jwt)?));
    Box::pin(work(config, ports, shutdown, Opened { store, issuers, telemetry })).await
}

/// What is there before anybody is served.
struct Opened {
    store: Arc<dyn RegistryStore>,
    issuers: Arc<Issuers>,
    telemetry: Arc<Telemetry>,
}

async fn work(config: RegistryConfig, ports: Ports, shutdown: Shutdown, opened: Opened) -> anyhow::Result<()> {
    let Opened { store, issuers, telemetry } = opened;
    let pki_dir = config.pki.clone().unwrap_or(ports.data.join("pki"));
    let authority = pki::Authority::ensure(&pki_dir, &*ports.clock).context("certificate authority")?;
    let vault = MasterKeys::read(config.master_keys.as_deref()).context("registry.master_keys")?;
    let written = Arc::new(Notify::new());
    let ingress = GrpcNodes::new(&ports.network, &config.ingress_nodes, config.revoke_timeout.as_std());
    let ingress: Arc<dyn IngressNodes> = Arc::new(ingress);
    let elsewhere = ports.network.remote_services().iter().any(|name| config.ingress_nodes.contains(name));
    let now = tokio::time::Instant::now();
    let nodes = elsewhere.then(|| Arc::new(Nodes::new(ports.bus.clone(), ingress.clone(), now)));
    let domain = Arc::new(Domain {
        store: Arc::clone(&store),
        nodes: ingress,
        authority: Arc::new(authority),
        vault: Arc::new(vault),
        clock: Arc::clone(&ports.clock),
        random: Arc::clone(&ports.random),
        telemetry: Arc::clone(&telemetry),
        written: Arc::clone(&written),
        functions: ports.functions.clone(),
        writing_rule: Mutex::default(),
        writing_function: Mutex::default(),
        writing_policy: Mutex::default(),
        writing_authority: Mutex::default(),
        writing_device_type: Mutex::default(),
        writing_device_group: Mutex::default(),
        making_api_token: Mutex::default(),
        issuers: Arc::clone(&issuers),
        settings: Settings {
            anonymous: config.anonymous,
            rules_per_tenant_max: config.rules_per_tenant_max,
            policies_per_tenant_max: config.policies_per_tenant_max,
            output_topics: OutputTopics { own_only: config.own_topics_only, listed: config.kafka_topics.clone() },
            partitions: config.partitions,
        },
    });
    let bus = Arc::clone(&ports.bus);
    let feed = ChangeFeed { bus: Arc::clone(&bus), store: Arc::clone(&store), telemetry: telemetry.clone(), written };
    let lifecycle = Lifecycle {
        bus: Arc::clone(&bus),
        store,
        clock: ports.clock,
        random: ports.random,
        telemetry: Arc::clone(&telemetry),
        member: config.member.clone(),
        keep_ms: config.events_retention.as_millis(),
        nodes: nodes.clone(),
    };
    let api_tokens = ApiTokensServer::new(server::Server { domain: domain.clone() });
    let functions = FunctionsServer::new(server::Server { domain: domain.clone() });
    let keys = PreSharedKeysServer::new(server::Server { domain: domain.clone() });
    let authorities = CertificateAuthoritiesServer::new(server::Server { domain: domain.clone() });
    let owners = TopicsServer::new(server::Server { domain: domain.clone() });
    let types = DeviceTypesServer::new(server::Server { domain: domain.clone() });
    let groups = DeviceGroupsServer::new(server::Server { domain: domain.clone() });
    let audit = AuditServer::new(server::Server { domain: domain.clone() });
    let routes = grpc::Routes::new(RegistryServer::new(server::Server { domain }));
    let routes = routes.add_service(api_tokens).add_service(functions).add_service(keys).add_service(authorities);
    let routes = routes.add_service(owners).add_service(types).add_service(groups).add_service(audit);
    let serving = async {
        grpc::serve(routes, Registry::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
        anyhow::Ok(())
    };
    let logging = async {
        create_topics(&*bus, &config, &telemetry, &shutdown).await?;
        telemetry.started();
        let keys = jwt_keys::follow(&issuers, config.jwt.clone(), shutdown.clone());
        let listening = async {
            if let Some(nodes) = nodes {
                nodes.run(shutdown.clone()).await;
            }
        };
        tokio::join!(feed.run(shutdown.clone()), lifecycle.run(shutdown.clone()), keys, listening);
        anyhow::Ok(())
    };
    tokio::try_join!(serving, logging)?;
    Ok(())
}

/// A store that is not there although the feed tells of what it held was lost, not forgotten: beginning with an empty one
/// would let in devices without the credentials they have, and leave rules in force that nobody can delete.
async fn refuse_lost_store(config: &StoreConfig, store: &Path, bus: &dyn Bus) -> anyhow::Result<()> {
    let StoreConfig::Embedded(_) = config else { return Ok(()) };
    if store.exists() {
        return Ok(());
    }
    let told = bounds(bus, CHANGES_TOPIC).await?.into_iter().flatten().any(|(_, bounds)| bounds.end > 0);
    anyhow::ensure!(
        !told,
        "the registry's store {} is gone, and the log tells of objects it held; restore it from a backup, \
         start elsewhere (--data DIR), or make it, empty, to go on without them",
        store.display()
    );
    Ok(())
}

/// Makes the topics; waits for a bus that is away.
async fn create_topics(
    bus: &dyn Bus,
    config: &RegistryConfig,
    telemetry: &Telemetry,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    loop {
        match topics::create(bus, config.partitions, config.events_retention.as_millis()).await {
            Ok(()) => {
                telemetry.working("topics");
                return Ok(());
            }
            Err(error @ AdminError::Unavailable { .. }) => telemetry.obstacle("topics", &error),
            Err(
                error @ (AdminError::Name { .. }
                | AdminError::PartitionCount { .. }
                | AdminError::Partitions { .. }
                | AdminError::Setting { .. }
                | AdminError::Unknown { .. }
                | AdminError::Refused { .. }),
            ) => return Err(error).context("the registry's topics cannot be made"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(TOPICS_RETRY)).await.is_none() {
            return Ok(());
        }
    }
}
