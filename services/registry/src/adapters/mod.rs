//! What stands behind the ports. The only place that knows which store a configuration names.

mod claims;
pub mod embedded;
pub mod ingress;
pub mod jwt_keys;
#[cfg(any(test, feature = "conformance"))]
pub mod memory;
pub mod scylla;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use drover_host::Ports;

use crate::config::StoreConfig;
use crate::ports::RegistryStore;
use crate::telemetry::Telemetry;

/// Opens the configured store: an embedded one in `directory`; one in a database when that is there, telling meanwhile
/// what it waits for.
pub async fn open_store(
    config: &StoreConfig,
    directory: &Path,
    ports: &Ports,
    telemetry: &Telemetry,
) -> anyhow::Result<Arc<dyn RegistryStore>> {
    match config {
        StoreConfig::Embedded(limits) => {
            let (directory, limits) = (directory.to_owned(), *limits);
            let opening = tokio::task::spawn_blocking(move || embedded::Embedded::open(&directory, limits));
            Ok(Arc::new(opening.await??))
        }
        StoreConfig::Cassandra => {
            let waiting = |why: &drover_scylla_kit::OpenError| telemetry.obstacle("store", why);
            let store = scylla::Scylla::open(&ports.cassandra, ports.clock.clone(), &*ports.random, waiting).await;
            telemetry.working("store");
            Ok(Arc::new(store.context("registry.store.kind = cassandra")?))
        }
    }
}
