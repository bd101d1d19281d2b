//! Two ingress nodes and a registry in one process on virtual time, each as if in a process of its own: over a simulated bus
//! and shared stores in memory, talking by gRPC over wires that are cut when either end dies.
//!
//! Unlike `world`, a seed does not fix everything: nodes keep what they tell each other in hash maps. It fixes what clients do
//! and which faults come, and a seed that fails nearly always fails again.

mod events;
mod owners;
pub mod presence;
pub mod revoked;
mod roamer;
pub mod tenants;
pub mod upgrades;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, TopicConfig};
use drover_host::{Calling, Network, NetworkParts, Ports, Shutdown};
use drover_ingress::config::{HttpConfig, IngressConfig, QuotasConfig};
use drover_ingress::memory::{SharedRetained, SharedSessions};
use drover_ingress::ports::Owners;
use drover_ingress::{Backing, SharedOwners, SoleOwner};
use drover_mqtt::client::ClientOptions;
use drover_registry::{EVENTS_TOPIC, Memory, RegistryConfig};
use drover_sim::{Broken, BusFaults, SeededRandom, SimBus, VirtualClock};
use drover_types::TELEMETRY_TOPIC;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::switchboard::Switchboard;
use crate::world::StoreFlaws;
use crate::world::severed::SeverableBus;
use crate::world::store::SeverableSessions;
pub use owners::OwnersFlaws;
use owners::SeverableOwners;
use roamer::Roamer;

/// Hosts of the ingress nodes, which are their names.
pub const NODES: [&str; 2] = ["ingress-a", "ingress-b"];
/// Host of the registry.
const REGISTRY: &str = "registry";
/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// Connections that a node closes a second when it stops.
const CLOSES: u32 = 5;
/// When the simulated world begins, milliseconds since the Unix epoch.
const STARTED_MS: u64 = 1_700_000_000_000;
/// Between two looks at a state, in virtual time.
const LOOK: Duration = Duration::from_millis(50);

/// What is broken in a cluster; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaws {
    /// Of the bus, as the registry sees it.
    pub registry: Broken,
    /// Of the bus, as ingress nodes see it.
    pub ingress: Broken,
    pub owners: OwnersFlaws,
    /// Of the store of sessions.
    pub store: StoreFlaws,
    /// Nobody calls ingress nodes about a revocation: they learn of it from the feed.
    pub revoked_by_feed_alone: bool,
    /// A node that stops closes all connections at once.
    pub unpaced: bool,
}

/// The platform, and what outlives its processes.
struct Cluster {
    bus: SimBus,
    board: Switchboard,
    clock: Arc<VirtualClock>,
    random: Arc<SeededRandom>,
    owners: SharedOwners,
    sessions: SharedSessions,
    retained: SharedRetained,
    objects: Memory,
    /// The authority of the registry: the one thing here that is on a disk.
    pki: TempDir,
    nodes: [Option<Life>; 2],
    /// Starts of each node so far.
    boots: [u32; 2],
    registry: Option<Life>,
    flaws: Flaws,
}

/// One life of a process.
struct Life {
    bus: SeverableBus,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Drop for Life {
    /// It ends as SIGKILL ends it.
    fn drop(&mut self) {
        self.bus.sever();
        self.task.abort();
    }
}

impl Cluster {
    /// All processes are there.
    async fn new(seed: u64, flaws: Flaws) -> anyhow::Result<Self> {
        let mut cluster = Self {
            bus: SimBus::new(seed, BusFaults::default()),
            board: Switchboard::default(),
            clock: Arc::new(VirtualClock::starting_at(STARTED_MS)),
            random: Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7))),
            owners: SharedOwners::default(),
            sessions: SharedSessions::default(),
            retained: SharedRetained::new(IngressConfig::default().limits.retained_bounds()),
            objects: Memory::default(),
            pki: tempfile::tempdir()?,
            nodes: [None, None],
            boots: [0, 0],
            registry: None,
            flaws,
        };
        let (topic, partitions) = (TELEMETRY_TOPIC.into(), PARTITIONS);
        let telemetry = TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None };
        cluster.bus.create_topic(telemetry).await?;
        cluster.start_registry()?;
        while !cluster.bus.topics().await?.iter().any(|config| &*config.topic == EVENTS_TOPIC) {
            tokio::time::sleep(LOOK).await;
        }
        for number in 0..NODES.len() {
            cluster.start_node(number)?;
        }
        Ok(cluster)
    }

    /// Things break, by seed.
    fn worsen(&self, faults: BusFaults) {
        self.bus.set_faults(faults);
    }

    /// Nothing breaks any more, and everybody is there.
    fn mend(&mut self) -> anyhow::Result<()> {
        self.bus.set_faults(BusFaults::default());
        for number in 0..NODES.len() {
            if self.nodes[number].is_none() {
                self.start_node(number)?;
            }
        }
        Ok(())
    }

    /// One fault: a node dies, or comes back, or the registry is killed and started again, or nothing.
    fn harm(&mut self) -> anyhow::Result<()> {
        match self.random.below(6) {
            number @ 0..2 => {
                let number = number as usize;
                match self.nodes[number].take() {
                    Some(killed) => drop(killed),
                    None => self.start_node(number)?,
                }
            }
            2 => {
                drop(self.registry.take());
                if self.random.chance(300) {
                    self.objects.lose_presence();
                }
                self.start_registry()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Stops a node in good order; returns when it has ended.
    async fn stop_node(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(mut life) = self.nodes[number].take() else { return Ok(()) };
        life.shutdown.cancel();
        (&mut life.task).await?
    }

    fn start_registry(&mut self) -> anyhow::Result<()> {
        let bus = SeverableBus::new(self.bus.clone());
        let ports = self.ports(REGISTRY, REGISTRY, &bus, self.flaws.registry)?;
        let nodes = if self.flaws.revoked_by_feed_alone { Vec::new() } else { vec!["ingress".to_owned()] };
        let config = RegistryConfig {
            partitions: PARTITIONS,
            pki: Some(self.pki.path().to_owned()),
            ingress_nodes: nodes,
            ..RegistryConfig::default()
        };
        let (shutdown, objects) = (Shutdown::new(), Arc::new(self.objects.clone()));
        let running = drover_registry::run_with(config, ports, shutdown.clone(), objects);
        self.registry = Some(Life { bus, shutdown, task: tokio::spawn(running) });
        Ok(())
    }

    fn start_node(&mut self, number: usize) -> anyhow::Result<()> {
        self.boots[number] += 1;
        let (name, boot) = (NODES[number], self.boots[number]);
        let bus = SeverableBus::new(self.bus.clone());
        let ports = self.ports(name, "ingress", &bus, self.flaws.ingress)?;
        let sessions = SeverableSessions {
            inner: self.sessions.of(name),
            severed: bus.severed(),
            random: self.random.clone(),
            flaws: self.flaws.store,
        };
        let owners: Arc<dyn Owners> = if self.flaws.owners.unshared {
            Arc::new(SoleOwner::new(boot))
        } else {
            Arc::new(SeverableOwners {
                inner: self.owners.of(name, self.clock.clone(), boot),
                severed: bus.severed(),
                random: self.random.clone(),
                flaws: self.flaws.owners,
            })
        };
        let backing = Backing::of(boot, owners, Arc::new(self.retained.clone()), Arc::new(sessions));
        // Without HTTP no thread is started.
        let http = HttpConfig { listen: Vec::new(), ..HttpConfig::default() };
        let quotas = QuotasConfig { closes: if self.flaws.unpaced { 0 } else { CLOSES }, ..QuotasConfig::default() };
        let config = IngressConfig { node: name.to_owned(), http, quotas, ..IngressConfig::default() };
        let shutdown = Shutdown::new();
        let running = drover_ingress::run_with(config, ports, shutdown.clone(), backing);
        self.nodes[number] = Some(Life { bus, shutdown, task: tokio::spawn(running) });
        Ok(())
    }

    /// What the process at `host` is given, which answers as `service` from now on.
    fn ports(&self, host: &str, service: &'static str, bus: &SeverableBus, broken: Broken) -> anyhow::Result<Ports> {
        let network = self.network(bus.severed())?;
        self.board.plug(host, network.clone(), service, bus.severed());
        Ok(bus.ports(broken, &self.clock, &self.random, network, service))
    }

    /// The way to all services, of a process whose life ends with `severed`.
    fn network(&self, severed: CancellationToken) -> anyhow::Result<Network> {
        let uri = |host: &str| format!("http://{host}:7070").parse().expect("a host is a URI's");
        let services = HashMap::from([
            ("ingress".to_owned(), NODES.map(uri).to_vec()),
            (REGISTRY.to_owned(), vec![uri(REGISTRY)]),
        ]);
        let calling = Calling { is_idempotent: drover_proto::is_idempotent, ..Calling::default() };
        let parts = NetworkParts { services, calling, ..NetworkParts::default() };
        Ok(Network::over(parts, &self.board.wires(severed))?)
    }

    /// A client that is away.
    fn client(&self, options: ClientOptions) -> Roamer {
        let random = SeededRandom::new(self.random.next());
        Roamer::start(options, self.board.clone(), self.clock.clone(), random)
    }
}

/// Looks again until `is_so`, at most for `patience`; whether it came to that.
async fn within(patience: Duration, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        if is_so().await? {
            return Ok(true);
        }
        if tokio::time::Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}
