//! The platform in one process on virtual time: ingress and rules over a simulated bus, devices that number what they
//! send, a subscriber that comes and goes, and faults by seed.
//!
//! Everything runs on one thread under a paused clock, and nothing waits for a disk or for another thread, so a seed replays
//! exactly (ADR 38) and takes a fraction of a second. A service is killed by severing it from bus, store and clients: what it
//! still does reaches nobody, as after kill -9.

mod device;
mod outcome;
pub mod registry;
pub(crate) mod severed;
pub(crate) mod store;
mod subscriber;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, Outgoing, Record, Stored, TopicConfig, TopicPartition, repeats};
use drover_host::{Network, Ports, Service, Shutdown};
use drover_ingress::config::{HttpConfig, IngressConfig};
use drover_ingress::memory::{SharedRetained, SharedSessions};
use drover_ingress::{Backing, SoleOwner};
use drover_load::ledger::{Ledger, Verdict};
use drover_proto::registry::v1::{Change, Object, object};
use drover_proto::types::v1 as wire;
use drover_rules::{Rules, RulesConfig};
use drover_sim::{Broken, BusFaults, SeededRandom, SimBus, VirtualClock};
use drover_types::object::RuleSpec;
use drover_types::{Clock, TELEMETRY_TOPIC};
use prost::Message as _;
use tokio::task::LocalSet;

use device::Device;
pub use outcome::Outcome;
use severed::SeverableBus;
use store::SeverableSessions;
pub use store::StoreFlaws;
use subscriber::Subscriber;

use crate::switchboard::Switchboard;

/// Where the rule's outputs go.
const OUTPUT: &str = "out";
/// What the topics begin with to which it publishes its rows once more.
const AGAIN: &str = "again/";
/// Host of the ingress.
const INGRESS: &str = "ingress";
/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// When the simulated world begins, milliseconds since the Unix epoch.
const STARTED_MS: u64 = 1_700_000_000_000;
/// Virtual time after which a world that has not come to rest has stalled.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Devices that a stalled world names.
const WAITING_TOLD_MAX: usize = 10;
/// Between two looks at a state, in virtual time.
const LOOK: Duration = Duration::from_millis(50);
/// How long the subscriber has for what is missing when all else has come to rest, in virtual time.
const ARRIVAL: Duration = Duration::from_secs(60);
/// Longest time that a service drains before it is started anew.
const DRAIN: Duration = Duration::from_secs(10);

/// How much happens in one run.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub devices: usize,
    /// Of each device.
    pub messages: usize,
    /// Longest pause between two messages of a device, milliseconds.
    pub pause_ms_max: u64,
    /// Kills and cuts.
    pub faults: usize,
}

impl Default for Scale {
    fn default() -> Self {
        Self { devices: 8, messages: 30, pause_ms_max: 300, faults: 12 }
    }
}

/// What is broken in a world; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaws {
    /// Of the bus, as the services see it.
    pub bus: Broken,
    /// Of the store of sessions.
    pub store: StoreFlaws,
}

impl From<Broken> for Flaws {
    fn from(bus: Broken) -> Self {
        Self { bus, ..Self::default() }
    }
}

impl From<StoreFlaws> for Flaws {
    fn from(store: StoreFlaws) -> Self {
        Self { store, ..Self::default() }
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest.
pub fn run(seed: u64, scale: Scale, flaws: Flaws) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let mut world = World::new(seed, flaws).await?;
        let finished = tokio::time::timeout(PATIENCE, world.live(scale)).await;
        finished
            .map_err(|_| anyhow::anyhow!("seed {seed}: not at rest after {PATIENCE:?}: {}", world.progress()))??;
        world.outcome().await
    }))
}

struct World {
    bus: SimBus,
    board: Switchboard,
    clock: Arc<VirtualClock>,
    random: Arc<SeededRandom>,
    /// What services draw from: how often they do changes nothing else.
    ids: Arc<SeededRandom>,
    /// What their store draws from, for the same reason.
    of_store: Arc<SeededRandom>,
    ledger: Rc<RefCell<Ledger>>,
    devices: Vec<Device>,
    subscriber: Subscriber,
    /// What outlives the ingress.
    sessions: SharedSessions,
    retained: SharedRetained,
    /// Starts of the ingress so far.
    boots: u32,
    ingress: Option<Incarnation>,
    rules: Option<Incarnation>,
    flaws: Flaws,
    /// As in [`Outcome`].
    faults: Vec<(u64, &'static str)>,
}

/// One life of a service.
struct Incarnation {
    bus: SeverableBus,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Incarnation {
    /// Ends it as SIGKILL does.
    fn kill(self) {
        self.bus.sever();
        self.task.abort();
    }

    /// Ends it as SIGTERM does: in good order, and by force where that takes too long.
    async fn stop(mut self) {
        self.shutdown.cancel();
        // How it ended is for the books to say.
        tokio::time::timeout(DRAIN * 2, &mut self.task).await.ok();
        self.kill();
    }
}

impl World {
    async fn new(seed: u64, flaws: Flaws) -> anyhow::Result<Self> {
        let bus = SimBus::new(seed, BusFaults::default());
        let topics = [(TELEMETRY_TOPIC, false), ("drover.presence", false), (drover_rules::CHANGES_TOPIC, true)];
        for (topic, compact) in topics {
            let partitions = PARTITIONS;
            let config =
                TopicConfig { topic: topic.into(), partitions, compact, retention_ms: None, retention_bytes: None };
            bus.create_topic(config).await?;
        }
        let board = Switchboard::default();
        let clock = Arc::new(VirtualClock::starting_at(STARTED_MS));
        let random = Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7)));
        let of_store = Arc::new(SeededRandom::new(random.next()));
        let subscriber = Subscriber::start(board.clone(), clock.clone(), SeededRandom::new(random.next()));
        let mut world = Self {
            bus,
            board,
            clock,
            random,
            ids: Arc::new(SeededRandom::new(seed)),
            of_store,
            faults: Vec::new(),
            ledger: Rc::default(),
            devices: Vec::new(),
            subscriber,
            sessions: SharedSessions::default(),
            retained: SharedRetained::new(IngressConfig::default().limits.retained_bounds()),
            boots: 0,
            ingress: None,
            rules: None,
            flaws,
        };
        world.declare_rule().await?;
        world.start_ingress();
        world.start_rules();
        while !world.subscriber.heard.borrow().subscribed {
            tokio::time::sleep(LOOK).await;
        }
        Ok(world)
    }

    /// Devices send while things break; then things are mended, and all comes to rest.
    async fn live(&mut self, scale: Scale) -> anyhow::Result<()> {
        for number in 0..scale.devices {
            let random = SeededRandom::new(self.random.next());
            let (board, ledger) = (self.board.clone(), self.ledger.clone());
            self.devices.push(Device::start(number, scale, board, ledger, self.clock.clone(), random));
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
            let at_ms = self.clock.now_ms() - STARTED_MS;
            let what = self.harm().await;
            self.faults.push((at_ms, what));
        }
        self.bus.set_faults(BusFaults::default());
        while self.devices.iter().any(|device| !device.is_done())
            || self.lag(drover_rules::GROUP, TELEMETRY_TOPIC).await? > 0
            || self.lag(drover_rules::OUTBOX_GROUP, drover_rules::OUTBOX_TOPIC).await? > 0
        {
            tokio::time::sleep(LOOK).await;
        }
        let late = tokio::time::Instant::now() + ARRIVAL;
        while self.deliveries().lost.count > 0 && tokio::time::Instant::now() < late {
            tokio::time::sleep(LOOK * 10).await;
        }
        Ok(())
    }

    /// One fault: a kill or an upgrade of a service, or a cut connection. Which.
    async fn harm(&mut self) -> &'static str {
        match self.random.below(12) {
            0..3 => {
                self.ingress.take().into_iter().for_each(Incarnation::kill);
                self.devices.iter().for_each(Device::cut);
                self.subscriber.cut();
                self.start_ingress();
                "ingress killed"
            }
            3..6 => {
                self.rules.take().into_iter().for_each(Incarnation::kill);
                self.start_rules();
                "rules killed"
            }
            6 => {
                if let Some(ingress) = self.ingress.take() {
                    ingress.stop().await;
                }
                self.start_ingress();
                "ingress upgraded"
            }
            7 | 8 => {
                self.subscriber.cut();
                "subscriber cut"
            }
            _ => {
                let victim = self.random.below(self.devices.len() as u64) as usize;
                self.devices[victim].cut();
                "device cut"
            }
        }
    }

    fn ports(&self, bus: &SeverableBus, network: Network, service: &'static str) -> Ports {
        bus.ports(self.flaws.bus, &self.clock, &self.ids, network, service)
    }

    fn start_ingress(&mut self) {
        self.boots += 1;
        let bus = SeverableBus::new(self.bus.clone());
        let sessions = SeverableSessions {
            inner: self.sessions.alone(),
            severed: bus.severed(),
            random: self.of_store.clone(),
            flaws: self.flaws.store,
        };
        let owners = Arc::new(SoleOwner::new(self.boots));
        let backing = Backing::of(self.boots, owners, Arc::new(self.retained.clone()), Arc::new(sessions));
        // Without HTTP no thread is started.
        let http = HttpConfig { listen: Vec::new(), ..HttpConfig::default() };
        let config = IngressConfig { http, ..IngressConfig::default() };
        let network = Network::default();
        registry::serve(&network);
        self.board.plug(INGRESS, network.clone(), "ingress", bus.severed());
        let (ports, shutdown) = (self.ports(&bus, network, "ingress"), Shutdown::new());
        let running = drover_ingress::run_with(config, ports, shutdown.clone(), backing);
        self.ingress = Some(Incarnation { bus, shutdown, task: tokio::spawn(running) });
    }

    fn start_rules(&mut self) {
        let bus = SeverableBus::new(self.bus.clone());
        let network = Network::default();
        self.board.carry(&network, "ingress", INGRESS);
        let (ports, shutdown) = (self.ports(&bus, network, "rules"), Shutdown::new());
        let config = RulesConfig { partitions: PARTITIONS, ..RulesConfig::default() };
        let running = Rules::run(config, ports, shutdown.clone());
        self.rules = Some(Incarnation { bus, shutdown, task: tokio::spawn(running) });
    }

    async fn declare_rule(&self) -> anyhow::Result<()> {
        let spec: RuleSpec = serde_json::from_value(serde_json::json!({
            "sql": "SELECT n FROM 'sensors/+'",
            "actions": [
                {"kafka": {"topic": OUTPUT, "createTopic": {"partitions": PARTITIONS}}},
                {"republish": {"topic": format!("{AGAIN}${{topic(2)}}"), "qos": 1}},
            ],
        }))?;
        let meta = wire::Meta { tenant: "default".into(), name: "all".into(), generation: 1, ..wire::Meta::default() };
        let rule = Object { object: Some(object::Object::Rule(wire::Rule::of(meta, spec))) };
        let change = Change { before: None, after: Some(rule), time_ms: self.clock.now_ms(), ..Change::default() };
        let key = Some("rule/default/all".into());
        let record = Record { key, value: Some(change.encode_to_vec().into()), ..Record::default() };
        self.bus.append(vec![Outgoing::keyed(drover_rules::CHANGES_TOPIC, record)]).await?.await?;
        Ok(())
    }

    /// Records of a topic that a group has not committed.
    async fn lag(&self, group: &str, topic: &str) -> anyhow::Result<u64> {
        let committed = self.bus.committed(group, topic).await?;
        let mut lag = 0;
        for partition in 0..PARTITIONS {
            let end = self.bus.bounds(&TopicPartition::new(topic, partition)).await?.end;
            lag += end - committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
        }
        Ok(lag)
    }

    fn progress(&self) -> String {
        let waiting: Vec<_> = self.devices.iter().filter(|d| !d.is_done()).map(Device::name).collect();
        let (count, first) = (waiting.len(), &waiting[..waiting.len().min(WAITING_TOLD_MAX)]);
        format!("waiting for {count} devices, first of all {first:?}, books {:?}", self.ledger.borrow().totals())
    }

    async fn records(&self, topic: &str) -> anyhow::Result<Vec<Stored>> {
        let mut all = Vec::new();
        for partition in 0..PARTITIONS {
            all.extend(self.bus.read(&TopicPartition::new(topic, partition), 0, usize::MAX, Duration::ZERO).await?);
        }
        Ok(all)
    }

    /// Books what came out, and compares.
    async fn outcome(&self) -> anyhow::Result<Outcome> {
        let (mut rule, mut rows) = (self.ledger.borrow().clone(), Vec::new());
        for stored in self.records(OUTPUT).await? {
            let device = String::from_utf8_lossy(stored.record.key.as_deref().unwrap_or_default()).into_owned();
            let number = number(stored.record.value.as_deref().unwrap_or_default())?;
            rule.received(&format!("{OUTPUT}/{device}"), &device, number);
            rows.push((stored.position.at.partition, device, number));
        }
        let mut republished = self.ledger.borrow().clone();
        for stored in self.records(TELEMETRY_TOPIC).await? {
            let message = repeats::telemetry(&stored)?;
            if let Some(device) = message.topic.as_str().strip_prefix(AGAIN) {
                republished.received(AGAIN, device, number(&message.payload)?);
            }
        }
        let forgotten = self.subscriber.heard.borrow().forgotten;
        let (rule, republished, subscriber) = (rule.check(), republished.check(), self.deliveries());
        Ok(Outcome { rule, republished, subscriber, forgotten, faults: self.faults.clone(), rows })
    }

    /// The books of the subscriber.
    fn deliveries(&self) -> Verdict {
        let mut ledger = self.ledger.borrow().clone();
        for (device, number) in &self.subscriber.heard.borrow().messages {
            ledger.received("subscriber", device, *number);
        }
        ledger.check()
    }
}

/// The number of a message, or of a row made of it.
fn number(json: &[u8]) -> anyhow::Result<u64> {
    let row: serde_json::Value = serde_json::from_slice(json)?;
    row["n"].as_u64().ok_or_else(|| anyhow::anyhow!("{row} has no n"))
}
