//! The platform in one process on virtual time: ingress and rules over a simulated bus, devices that number what they
//! send, and faults by seed.
//!
//! Everything runs on one thread under a paused clock, so a seed replays exactly. A service is killed by severing it
//! from the bus and its devices: what it still does reaches nobody, as after kill -9.

mod device;
pub mod registry;
pub(crate) mod severed;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, Outgoing, Record, TopicConfig, TopicPartition};
use drover_host::{Health, Metrics, Network, Ports, Service, Shutdown, Sockets};
use drover_ingress::Ingress;
use drover_ingress::config::IngressConfig;
use drover_load::ledger::{Ledger, Verdict};
use drover_proto::registry::v1::{Change, Object, object};
use drover_proto::types::v1 as wire;
use drover_rules::{Rules, RulesConfig};
use drover_sim::{Broken, BrokenBus, BusFaults, SeededRandom, SimBus, VirtualClock, disk};
use drover_types::object::RuleSpec;
use drover_types::{Clock, TELEMETRY_TOPIC};
use prost::Message as _;
use tokio::task::LocalSet;

use device::Device;
use severed::SeverableBus;

/// Where the rule's outputs go.
const OUTPUT: &str = "out";
/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// When the simulated world begins, milliseconds since the Unix epoch.
const STARTED_MS: u64 = 1_700_000_000_000;
/// Virtual time after which a world that has not come to rest has stalled.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two looks at a state, in virtual time.
const LOOK: Duration = Duration::from_millis(50);

/// How much happens in one run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub devices: usize,
    /// Of each device.
    pub messages: usize,
    /// Kills and cuts.
    pub faults: usize,
}

impl Default for Scale {
    fn default() -> Self {
        Self { devices: 8, messages: 30, faults: 12 }
    }
}

/// Runs one world, whose services see the bus as `broken` says, to its end and checks its books. The error says what did
/// not come to rest.
pub fn run(seed: u64, scale: Scale, broken: Broken) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut world = World::new(seed, broken).await?;
        let finished = tokio::time::timeout(PATIENCE, world.live(scale)).await;
        finished
            .map_err(|_| anyhow::anyhow!("seed {seed}: not at rest after {PATIENCE:?}: {}", world.progress()))??;
        world.verdict().await
    }))
}

struct World {
    bus: SimBus,
    network: Network,
    clock: Arc<VirtualClock>,
    random: Arc<SeededRandom>,
    ledger: Rc<RefCell<Ledger>>,
    devices: Vec<Device>,
    data: tempfile::TempDir,
    /// Kills of the ingress so far: each life has what the one before had written until then, in a directory of its own.
    deaths: u32,
    ingress: Option<Incarnation>,
    rules: Option<Incarnation>,
    broken: Broken,
}

/// One life of a service.
struct Incarnation {
    bus: SeverableBus,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Incarnation {
    /// Ends it as SIGKILL does.
    fn kill(self) {
        self.bus.sever();
        self.task.abort();
    }
}

impl World {
    async fn new(seed: u64, broken: Broken) -> anyhow::Result<Self> {
        let bus = SimBus::new(seed, BusFaults::default());
        let topics = [(TELEMETRY_TOPIC, false), ("drover.presence", false), (drover_rules::CHANGES_TOPIC, true)];
        for (topic, compact) in topics {
            let partitions = PARTITIONS;
            let config =
                TopicConfig { topic: topic.into(), partitions, compact, retention_ms: None, retention_bytes: None };
            bus.create_topic(config).await?;
        }
        let mut world = Self {
            bus,
            network: Network::default(),
            clock: Arc::new(VirtualClock::starting_at(STARTED_MS)),
            random: Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7))),
            ledger: Rc::default(),
            devices: Vec::new(),
            data: tempfile::tempdir()?,
            deaths: 0,
            ingress: None,
            rules: None,
            broken,
        };
        registry::serve(&world.network);
        world.declare_rule().await?;
        world.start_ingress()?;
        world.start_rules();
        Ok(world)
    }

    /// Devices send while things break; then things are mended, and all comes to rest.
    async fn live(&mut self, scale: Scale) -> anyhow::Result<()> {
        for number in 0..scale.devices {
            let random = SeededRandom::new(self.random.next());
            let (network, ledger) = (self.network.clone(), self.ledger.clone());
            self.devices.push(Device::start(number, scale.messages, network, ledger, self.clock.clone(), random));
        }
        self.bus.set_faults(BusFaults {
            lost_acknowledgement: 30,
            lost_write: 30,
            hang: 10,
            hang_ms_max: 5_000,
            delay_ms_max: 20,
            rebalance: 10,
        });
        for _ in 0..scale.faults {
            tokio::time::sleep(Duration::from_millis(self.random.below(1_500))).await;
            self.harm()?;
        }
        self.bus.set_faults(BusFaults::default());
        while self.devices.iter().any(|device| !device.is_done()) || self.lag().await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// One fault: a kill of a service, or a cut connection.
    fn harm(&mut self) -> anyhow::Result<()> {
        match self.random.below(4) {
            0 => {
                self.ingress.take().into_iter().for_each(Incarnation::kill);
                self.devices.iter().for_each(Device::cut);
                let before = self.data_of_ingress();
                self.deaths += 1;
                disk::copy(&before, &self.data_of_ingress())?;
                self.start_ingress()?;
            }
            1 => {
                self.rules.take().into_iter().for_each(Incarnation::kill);
                self.start_rules();
            }
            _ => {
                let victim = self.random.below(self.devices.len() as u64) as usize;
                self.devices[victim].cut();
            }
        }
        Ok(())
    }

    fn data_of_ingress(&self) -> PathBuf {
        self.data.path().join(format!("ingress-{}", self.deaths))
    }

    fn ports(&self, name: &'static str, bus: &SeverableBus) -> Ports {
        Ports {
            bus: Arc::new(BrokenBus::new(Arc::new(bus.clone()), self.broken)),
            clock: self.clock.clone(),
            random: self.random.clone(),
            network: self.network.clone(),
            sockets: Sockets::default(),
            data: self.data.path().join(name),
            metrics: Metrics::default(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: Health::default().service(name),
        }
    }

    fn start_ingress(&mut self) -> anyhow::Result<()> {
        let bus = SeverableBus::new(self.bus.clone());
        let ports = Ports { data: self.data_of_ingress(), ..self.ports("ingress", &bus) };
        std::fs::create_dir_all(&ports.data)?;
        let running = Ingress::run(IngressConfig::default(), ports, Shutdown::new());
        self.ingress = Some(Incarnation { bus, task: tokio::spawn(running) });
        Ok(())
    }

    fn start_rules(&mut self) {
        let bus = SeverableBus::new(self.bus.clone());
        let ports = self.ports("rules", &bus);
        let config = RulesConfig { partitions: PARTITIONS, ..RulesConfig::default() };
        let running = Rules::run(config, ports, Shutdown::new());
        self.rules = Some(Incarnation { bus, task: tokio::spawn(running) });
    }

    async fn declare_rule(&self) -> anyhow::Result<()> {
        let spec: RuleSpec = serde_json::from_value(serde_json::json!({
            "sql": "SELECT n FROM 'sensors/+'",
            "actions": [{"kafka": {"topic": OUTPUT, "createTopic": {"partitions": PARTITIONS}}}],
        }))?;
        let meta = wire::Meta { tenant: "default".into(), name: "all".into(), generation: 1, ..wire::Meta::default() };
        let rule = Object { object: Some(object::Object::Rule(wire::Rule::of(meta, spec))) };
        let change = Change { before: None, after: Some(rule), time_ms: self.clock.now_ms() };
        let key = Some("rule/default/all".into());
        let record = Record { key, value: Some(change.encode_to_vec().into()), ..Record::default() };
        self.bus.append(vec![Outgoing::keyed(drover_rules::CHANGES_TOPIC, record)]).await?.await?;
        Ok(())
    }

    /// Telemetry the rules have not committed.
    async fn lag(&self) -> anyhow::Result<u64> {
        let committed = self.bus.committed(drover_rules::GROUP, TELEMETRY_TOPIC).await?;
        let mut lag = 0;
        for partition in 0..PARTITIONS {
            let end = self.bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, partition)).await?.end;
            lag += end - committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
        }
        Ok(lag)
    }

    fn progress(&self) -> String {
        let waiting: Vec<_> = self.devices.iter().filter(|d| !d.is_done()).map(Device::name).collect();
        format!("waiting for {waiting:?}, books {:?}", self.ledger.borrow().totals())
    }

    /// Books what came out, and compares.
    async fn verdict(&self) -> anyhow::Result<Verdict> {
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(OUTPUT, partition);
            for stored in self.bus.read(&at, 0, usize::MAX, Duration::ZERO).await? {
                let device = String::from_utf8_lossy(stored.record.key.as_deref().unwrap_or_default()).into_owned();
                let row: serde_json::Value =
                    serde_json::from_slice(stored.record.value.as_deref().unwrap_or_default())?;
                let number = row["n"].as_u64().ok_or_else(|| anyhow::anyhow!("{row} has no n"))?;
                self.ledger.borrow_mut().received(&format!("{OUTPUT}/{device}"), &device, number);
            }
        }
        Ok(self.ledger.borrow().check())
    }
}
