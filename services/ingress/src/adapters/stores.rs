//! Where retained messages and sessions are kept. The only place that knows which store a configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use drover_host::{Cassandra, Ports, Ready};

use super::{embedded, scylla};
use crate::config::{IngressConfig, StoreConfig};
use crate::ports::sessions::SessionStore;
use crate::ports::{RetainedBounds, RetainedStore};

/// The stores, and the work that makes them able to answer.
pub struct Stores {
    pub retained: Arc<dyn RetainedStore>,
    pub sessions: Arc<dyn SessionStore>,
    late: Option<LateStores>,
}

struct LateStores {
    retained: Arc<scylla::Late<scylla::Retained>>,
    sessions: Arc<scylla::Late<scylla::Sessions>>,
    cassandra: Cassandra,
    node: String,
    bounds: RetainedBounds,
}

impl Stores {
    /// What `config` names.
    pub fn new(config: &IngressConfig, ports: &Ports) -> anyhow::Result<Self> {
        let bounds = config.limits.retained_bounds();
        match config.store {
            StoreConfig::Embedded => {
                let opened = embedded::open(&ports.data.join("store"), bounds);
                let (retained, sessions) = opened.context("ingress.store.kind = embedded")?;
                Ok(Self { retained: Arc::new(retained), sessions: Arc::new(sessions), late: None })
            }
            StoreConfig::Cassandra => {
                let late = LateStores {
                    retained: Arc::default(),
                    sessions: Arc::default(),
                    cassandra: ports.cassandra.clone(),
                    node: config.node.clone(),
                    bounds,
                };
                Ok(Self { retained: late.retained.clone(), sessions: late.sessions.clone(), late: Some(late) })
            }
        }
    }

    /// Stores that can answer already.
    pub fn already(retained: Arc<dyn RetainedStore>, sessions: Arc<dyn SessionStore>) -> Self {
        Self { retained, sessions, late: None }
    }

    /// Returns when the stores can answer; `ready` hears what is waited for.
    pub async fn open(self, ready: &Ready) -> anyhow::Result<()> {
        let Some(late) = self.late else { return Ok(()) };
        let waiting = |why: &drover_scylla_kit::OpenError| ready.waiting(why.to_string());
        let named = "ingress.store.kind = cassandra";
        let retained = scylla::Retained::open(&late.cassandra, late.bounds, waiting).await.context(named)?;
        late.retained.set(retained);
        let sessions = scylla::Sessions::open(&late.cassandra, &late.node, waiting).await.context(named)?;
        late.sessions.set(sessions);
        Ok(())
    }
}
