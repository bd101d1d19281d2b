//! Shadows: the last and the wanted state of each device, with AWS IoT's semantics.
//!
//! Four loops over the Bus port: the engine (requests in; documents, replies and offsets out in one transaction), the
//! deliveries (replies to connected clients, at least once), the deletions (requests for each device that the registry
//! has deleted, at least once) and commands (folded into the store, and handed to the ingress at least once). What a request makes of a shadow is decided in `domain`,
//! synchronously. Beside them a sweep forgets commands that are long over. The documents in the log are the truth; the store is a view of them.

mod adapters;
mod commands;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod deletions;
mod delivery;
mod domain;
mod engine;
mod lag;
mod looks;
pub mod ports;
mod requests;
mod restore;
mod server;
mod telemetry;
mod topics;

use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use drover_bus::AdminError;
use drover_host::{Backoff, Ports, Service, Shutdown, grpc};
use drover_proto::shadow::v1::commands_server::CommandsServer;
use drover_proto::shadow::v1::shadow_server::ShadowServer;

pub use adapters::embedded::Embedded;
pub use adapters::scylla::Scylla;
pub use commands::GROUP as COMMANDS_GROUP;
pub use config::{EmbeddedLimits, ShadowConfig, StoreConfig};
pub use delivery::DELIVERY_GROUP;
pub use domain::{Shadow as Document, ShadowKey};
pub use engine::GROUP;
pub use topics::{CHANGES_TOPIC, DOCUMENTS_TOPIC, REPLIES_TOPIC};

use crate::adapters::ingress::GrpcNodes;
use crate::adapters::publisher::Publisher;
use crate::commands::{CommandEngine, CommandServer, Sends, Sweep};
use crate::deletions::Deletions;
use crate::delivery::Deliveries;
use crate::engine::Engine;
use crate::ports::Store;
use crate::requests::Requests;
use crate::server::Server;
use crate::telemetry::Telemetry;

/// The shadow service.
pub struct Shadow;

#[async_trait]
impl Service for Shadow {
    const NAME: &'static str = "shadow";
    type Config = ShadowConfig;

    async fn run(config: ShadowConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let directory = ports.data.join("store");
        let opening = adapters::open_store(&config.store, &directory, &ports);
        let Some(store) = shutdown.run_until_cancelled(opening).await.transpose()? else { return Ok(()) };
        run_with(config, ports, shutdown, store).await
    }
}

/// [`Shadow::run`] over a store that is open.
#[doc(hidden)]
pub async fn run_with(
    config: ShadowConfig,
    ports: Ports,
    shutdown: Shutdown,
    store: Arc<dyn Store>,
) -> anyhow::Result<()> {
    let telemetry = ports.metrics.register(Telemetry::register);
    let (clock, bus, partitions) = (ports.clock.clone(), ports.bus.clone(), config.partitions);
    let deadline = config.answer_timeout.as_std();
    let requests = Requests::new(bus.clone(), store.clone(), clock.clone(), telemetry.clone(), partitions, deadline);
    let sends = Sends::new(bus.clone(), store.clone(), deadline);
    let commands = CommandServer { store: store.clone(), sends, clock: clock.clone() };
    let server = Server { store: store.clone(), requests, clock, bus, partitions };
    let routes = grpc::Routes::new(ShadowServer::new(server)).add_service(CommandsServer::new(commands));
    let serving = async {
        grpc::serve(routes, Shadow::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
        anyhow::Ok(())
    };
    let working = async {
        if create_topics(&config, &ports, &shutdown).await?.is_none() {
            return Ok(());
        }
        let nodes = GrpcNodes::new(&ports.network, &config.ingress_nodes, telemetry.clone());
        let deliveries = Deliveries {
            bus: ports.bus.clone(),
            nodes: Arc::new(nodes),
            member: config.member.clone(),
            telemetry: telemetry.clone(),
        };
        let deletions = Deletions { bus: ports.bus.clone(), clock: ports.clock.clone(), telemetry: telemetry.clone() };
        let commands = CommandEngine {
            bus: ports.bus.clone(),
            store: store.clone(),
            sender: Arc::new(Publisher::new(&ports.network)),
            clock: ports.clock.clone(),
            telemetry: telemetry.clone(),
            member: config.member.clone(),
        };
        let sweep = Sweep { store: store.clone(), clock: ports.clock.clone() };
        let engine = Engine {
            bus: ports.bus.clone(),
            store,
            telemetry,
            ready: ports.ready.clone(),
            member: config.member.clone(),
        };
        let beside = async {
            let deletions = deletions.run(config.member.clone(), shutdown.clone());
            let (commands, sweep) = (commands.run(shutdown.clone()), sweep.run(shutdown.clone()));
            tokio::join!(deliveries.run(shutdown.clone()), deletions, commands, sweep);
            Ok(())
        };
        tokio::try_join!(engine.run(shutdown.clone()), beside)?;
        Ok(())
    };
    tokio::try_join!(serving, working)?;
    Ok(())
}

/// Makes the topics; waits for a bus that is away. `None`: stopping.
async fn create_topics(config: &ShadowConfig, ports: &Ports, shutdown: &Shutdown) -> anyhow::Result<Option<()>> {
    let mut backoff = Backoff::default();
    loop {
        match topics::create(&*ports.bus, config.partitions, config.changes_retention.as_millis()).await {
            Ok(()) => return Ok(Some(())),
            Err(error @ AdminError::Unavailable { .. }) => ports.ready.waiting(error.to_string()),
            Err(
                error @ (AdminError::Name { .. }
                | AdminError::PartitionCount { .. }
                | AdminError::Partitions { .. }
                | AdminError::Setting { .. }
                | AdminError::Refused { .. }
                | AdminError::Unknown { .. }),
            ) => {
                return Err(error).context(
                    "the topics of the shadow service cannot be made; does shadow.partitions fit those that exist?",
                );
            }
        }
        if !backoff.wait(shutdown).await {
            return Ok(None);
        }
    }
}
