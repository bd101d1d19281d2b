//! The registry: devices, credentials, policies, rules and presence.
//!
//! Everything is one object row and one row of the outbox in one durable step; the outbox becomes the public change
//! feed. `server` decodes, `domain` decides, `adapters` keep.

mod adapters;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod domain;
pub mod object;
pub mod pki;
pub mod ports;
mod server;
mod telemetry;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use drover_bus::{AdminError, Bus};
use drover_host::{Ports, Service, Shutdown, grpc};
use drover_proto::registry::v1::registry_server::RegistryServer;
use tokio::sync::{Mutex, Notify};
use tonic::service::Routes;

pub use adapters::embedded::{Embedded, OpenError};
pub use adapters::scylla::Scylla;
pub use config::{EmbeddedLimits, RegistryConfig, StoreConfig};
pub use domain::topics::{CHANGES_TOPIC, EVENTS_TOPIC, NODES_TOPIC, PRESENCE_TOPIC};

use adapters::ingress::GrpcNodes;
use domain::changes::ChangeFeed;
use domain::lifecycle::Lifecycle;
use domain::nodes::Nodes;
use domain::{Domain, Settings, topics};
use ports::IngressNodes;
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
        let (store_dir, pki_dir) = (ports.data.join("store"), config.pki.clone().unwrap_or(ports.data.join("pki")));
        let opening = Box::pin(adapters::open_store(&config.store, &store_dir, &ports, &telemetry));
        let Some(store) = shutdown.run_until_cancelled(opening).await.transpose()? else { return Ok(()) };
        let authority = pki::Authority::ensure(&pki_dir, &*ports.clock).context("certificate authority")?;
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
            clock: Arc::clone(&ports.clock),
            random: Arc::clone(&ports.random),
            telemetry: Arc::clone(&telemetry),
            written: Arc::clone(&written),
            writing_rule: Mutex::new(()),
            settings: Settings {
                anonymous: config.anonymous,
                rules_per_tenant_max: config.rules_per_tenant_max,
                partitions: config.partitions,
            },
        });
        let bus = Arc::clone(&ports.bus);
        let feed =
            ChangeFeed { bus: Arc::clone(&bus), store: Arc::clone(&store), telemetry: telemetry.clone(), written };
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
        let routes = Routes::new(RegistryServer::new(server::Server { domain }));
        let serving = async {
            grpc::serve(routes, Self::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
            anyhow::Ok(())
        };
        let logging = async {
            create_topics(&*bus, &config, &telemetry, &shutdown).await?;
            telemetry.started();
            let listening = async {
                if let Some(nodes) = nodes {
                    nodes.run(shutdown.clone()).await;
                }
            };
            tokio::join!(feed.run(shutdown.clone()), lifecycle.run(shutdown.clone()), listening);
            anyhow::Ok(())
        };
        tokio::try_join!(serving, logging)?;
        Ok(())
    }
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
                | AdminError::Unknown { .. }
                | AdminError::Refused { .. }),
            ) => return Err(error).context("the registry's topics cannot be made"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(TOPICS_RETRY)).await.is_none() {
            return Ok(());
        }
    }
}
