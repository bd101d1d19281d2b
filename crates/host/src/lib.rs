//! The process shell: what every service is given when it starts, and how it is stopped.
//!
//! Knows no service. Opens what configuration names, binds sockets before any work, and hands both in as [`Ports`].

pub mod actor;
pub mod admin;
mod admin_token;
mod backoff;
pub mod bus;
mod bus_metrics;
mod clock;
mod collector;
pub mod config;
pub mod dependency;
mod entry;
pub mod grpc;
pub mod http;
mod in_order;
mod metrics;
mod network;
mod network_tls;
mod peers;
pub mod process;
pub mod proxy;
mod ready;
mod remote;
mod routes;
mod signals;
mod skew;
mod sockets;
mod supervise;
pub mod telemetry;
mod tls;
pub mod trace;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::Bus;
use drover_functions::Pool;
use drover_types::{Clock, Random};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use admin_token::AdminToken;
pub use backoff::Backoff;
pub use clock::{SystemClock, SystemRandom};
pub use drover_scylla_kit::Cassandra;
pub use drover_types::{ByteSize, Duration, InvalidQuantity};
pub use entry::{Entry, Prepared};
pub use in_order::{CarryOut, InOrder};
pub use metrics::{Counted, Metrics};
pub use network::{Incoming, Network, NetworkParts};
pub use network_tls::{NetworkTls, NetworkTlsConfig, NetworkTlsError};
pub use peers::Peers;
pub use ready::{Health, Ready};
pub use remote::{Calling, Wires};
pub use signals::shutdown_on_signal;
pub use sockets::{Bound, Conflict, ListenSpec, Sockets, Transport};
pub use supervise::{RunError, Task, run_all, told};
pub use tls::{Tls, TlsConfig, TlsError};
/// Cancelled when the process is asked to stop; a service then finishes its work in hand and returns.
pub use tokio_util::sync::CancellationToken as Shutdown;

/// What a service works with. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub network: Network,
    /// Sockets bound for this service, by [`ListenSpec::name`].
    pub sockets: Sockets,
    /// The service's own directory for embedded stores and key files.
    pub data: PathBuf,
    pub metrics: Metrics,
    /// The database of section `[cassandra]`; nothing is dialled before a store of that kind is opened.
    pub cassandra: Cassandra,
    /// Where functions are called; no process is started for them before one is.
    pub functions: Pool,
    /// Whether this service can do its work; told to `/readyz`.
    pub ready: Ready,
}

/// One service: a name, a configuration section of that name, and a body.
#[async_trait]
pub trait Service: 'static {
    /// Name of its subcommand, configuration section and gRPC endpoint.
    const NAME: &'static str;
    /// Its section of the configuration; unknown keys are refused, every key has a default.
    type Config: ServiceConfig;

    /// Services without which it cannot do its work, where they are in other processes.
    const NEEDS: &'static [&'static str] = &[];

    /// What the embedded log keeps beyond its retention until the service, where it runs, has consumed it.
    const RETAINS: &'static [Retained] = &[];

    /// Works until `shutdown`, then drains and returns. An error ends the process.
    async fn run(config: Self::Config, ports: Ports, shutdown: Shutdown) -> anyhow::Result<()>;
}

/// Records that stay in the embedded log until they are consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    pub topic: &'static str,
    /// The consumer group that must have committed past them.
    pub group: &'static str,
}

/// A service's configuration section.
pub trait ServiceConfig: Serialize + DeserializeOwned + Default + Send + 'static {
    /// The sockets to bind before [`Service::run`].
    fn listeners(&self) -> Vec<ListenSpec>;

    /// Rules across fields; the error names the key, the limit and the value.
    fn check(&self) -> Result<(), drover_types::ApiError> {
        Ok(())
    }
}
