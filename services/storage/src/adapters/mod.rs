//! What stands behind the ports. The only place that knows which store a configuration names.

pub mod embedded;
pub mod registry;
mod rows;
pub mod scylla;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use drover_host::Ports;

use crate::config::StoreConfig;
use crate::ports::SeriesStore;

/// Opens the configured store: an embedded one in `directory`; one in a database when that is there, telling meanwhile
/// what it waits for.
pub async fn open_store(
    config: &StoreConfig,
    retention_ms: Option<u64>,
    directory: &Path,
    ports: &Ports,
) -> anyhow::Result<Arc<dyn SeriesStore>> {
    match config {
        StoreConfig::Embedded(limits) => {
            let (directory, limits) = (directory.to_owned(), *limits);
            let opening = tokio::task::spawn_blocking(move || embedded::Embedded::open(&directory, limits));
            Ok(Arc::new(opening.await?.context("storage.store.kind = embedded")?))
        }
        StoreConfig::Cassandra => {
            let waiting = |why: &drover_scylla_kit::OpenError| ports.ready.waiting(why.to_string());
            let store = scylla::Scylla::open(&ports.cassandra, retention_ms, waiting).await;
            Ok(Arc::new(store.context("storage.store.kind = cassandra")?))
        }
    }
}
