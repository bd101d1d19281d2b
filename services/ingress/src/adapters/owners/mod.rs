//! Whose a session is: known to this node alone, to the clocks of all nodes, or to the database they share. The only
//! place that knows which of them a configuration names.

mod clock;
mod embedded;
mod epochs;
#[cfg(any(test, feature = "conformance"))]
mod memory;
mod scylla;

use std::sync::Arc;

use anyhow::Context as _;
use drover_host::{Cassandra, Ports, Ready};

pub use clock::Clocks;
pub use embedded::Embedded;
#[cfg(any(test, feature = "conformance"))]
pub use memory::{NodeOwners, SharedOwners};
pub use scylla::{LateScylla, Scylla};

use crate::config::OwnersConfig;
use crate::ports::Owners;

/// The owners, and the work that makes them able to answer.
pub struct Opened {
    pub owners: Arc<dyn Owners>,
    late: Option<(Arc<LateScylla>, Cassandra)>,
}

impl Opened {
    /// What `config` names, for the node of this name and boot.
    pub fn new(config: &OwnersConfig, node: &str, boot: u32, ports: &Ports) -> Self {
        match config {
            OwnersConfig::Embedded => Self { owners: Arc::new(Embedded::new(boot)), late: None },
            OwnersConfig::Clock => Self { owners: Arc::new(Clocks::new(ports.clock.clone(), boot)), late: None },
            OwnersConfig::Cassandra => {
                let owners = Arc::new(LateScylla::new(node, ports.clock.clone(), boot));
                Self { owners: owners.clone(), late: Some((owners, ports.cassandra.clone())) }
            }
        }
    }

    /// Owners that can answer already.
    pub fn already(owners: Arc<dyn Owners>) -> Self {
        Self { owners, late: None }
    }

    /// Returns when the owners can answer; `ready` hears what is waited for.
    pub async fn open(self, ready: &Ready) -> anyhow::Result<()> {
        let Some((owners, cassandra)) = self.late else { return Ok(()) };
        let waiting = |why: &drover_scylla_kit::OpenError| ready.waiting(why.to_string());
        owners.open(&cassandra, waiting).await.context("ingress.owners.kind = cassandra")
    }
}
