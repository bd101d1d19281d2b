//! What stands behind the ports. The only place that knows which store a configuration names.

pub mod embedded;

use std::path::Path;
use std::sync::Arc;

use crate::config::StoreConfig;
use crate::ports::SeriesStore;

/// Opens the configured store; an embedded one lives in `directory`.
pub fn open_store(config: &StoreConfig, directory: &Path) -> Result<Arc<dyn SeriesStore>, embedded::OpenError> {
    match config {
        StoreConfig::Embedded(limits) => Ok(Arc::new(embedded::Embedded::open(directory, *limits)?)),
    }
}
