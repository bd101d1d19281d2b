//! Storage: the time series of devices.
//!
//! Reads `drover.telemetry` in a group of its own and keeps each message, and each scalar of its payload as a point;
//! answers over gRPC what a field was last, what it was in a span of time, what a device has sent, and questions in SQL.
//! `server` decodes, `domain` decides, `sql` reads the store as tables, `adapters` keep, `ingest` moves records from the log
//! into the store.

mod adapters;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod domain;
mod expiry;
mod ingest;
pub mod ports;
mod rows;
pub mod series;
mod server;
mod sql;
mod telemetry;

use std::sync::Arc;

use async_trait::async_trait;
use drover_host::{Backoff, Ports, Retained, Service, Shutdown, grpc};
use drover_proto::storage::v1::storage_server::StorageServer;
use drover_types::TELEMETRY_TOPIC;

pub use adapters::embedded::Embedded;
pub use adapters::scylla::Scylla;
pub use config::{EmbeddedLimits, StorageConfig, StoreConfig};
pub use ingest::GROUP;

use adapters::registry::Registry;
use domain::Queries;
use expiry::Expiry;
use ingest::Ingest;
use rows::Rows;
use sql::{Bounds, Sql};
use telemetry::Telemetry;

/// The storage service.
pub struct Storage;

#[async_trait]
impl Service for Storage {
    const NAME: &'static str = "storage";
    type Config = StorageConfig;
    const RETAINS: &'static [Retained] = &[Retained { topic: TELEMETRY_TOPIC, group: GROUP }];

    async fn run(config: StorageConfig, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()> {
        let telemetry = ports.metrics.register(Telemetry::register);
        let retention_ms = config.retention.map(drover_host::Duration::as_millis);
        let directory = ports.data.join("store");
        let opening = adapters::open_store(&config.store, retention_ms, &directory, &ports);
        let Some(store) = shutdown.run_until_cancelled(opening).await.transpose()? else { return Ok(()) };
        let queries = Arc::new(Queries { store: Arc::clone(&store), clock: Arc::clone(&ports.clock), retention_ms });
        let rows = Rows::new(Arc::clone(&store), Arc::clone(&ports.clock), config.fields_per_device_max);
        let sql =
            Arc::new(Sql::new(Arc::clone(&queries), Arc::new(Registry::over(&ports.network)), Bounds::default())?);
        let server = server::Server { queries, rows, sql, telemetry: telemetry.clone() };
        let routes = grpc::Routes::new(StorageServer::new(server));
        let serving = async {
            grpc::serve(routes, Self::NAME, &ports.sockets, &ports.network, shutdown.clone()).await?;
            anyhow::Ok(())
        };
        let ingest = Ingest {
            bus: Arc::clone(&ports.bus),
            store: Arc::clone(&store),
            telemetry: telemetry.clone(),
            ready: ports.ready.clone(),
            clock: Arc::clone(&ports.clock),
            member: config.member,
            fields_per_device_max: config.fields_per_device_max,
        };
        let ingesting = async {
            if topic_exists(&ports, &shutdown).await {
                ingest.run(shutdown.clone()).await;
            }
        };
        let expiring = async {
            if let Some(retention_ms) = retention_ms {
                Expiry { store, clock: Arc::clone(&ports.clock), retention_ms, telemetry }.run(shutdown.clone()).await;
            }
        };
        let keeping = async {
            tokio::join!(ingesting, expiring);
            anyhow::Ok(())
        };
        tokio::try_join!(serving, keeping)?;
        Ok(())
    }
}

/// Waits until the ingress' topic is there. False: the process is stopping.
async fn topic_exists(ports: &Ports, shutdown: &Shutdown) -> bool {
    let mut backoff = Backoff::default();
    loop {
        let obstacle = match ports.bus.topics().await {
            Ok(topics) if topics.iter().any(|known| &*known.topic == TELEMETRY_TOPIC) => return true,
            Ok(_) => format!("topic {TELEMETRY_TOPIC} does not exist yet"),
            Err(error) => error.to_string(),
        };
        ports.ready.waiting(obstacle);
        if !backoff.wait(shutdown).await {
            return false;
        }
    }
}
