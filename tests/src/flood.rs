//! A device that sends more than it may while the log hangs, to a subscriber that is away for longer than its inbox has room:
//! whatever is not delivered was refused, or is counted (P7).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, TopicConfig, TopicPartition};
use drover_host::{Metrics, Network, Shutdown};
use drover_ingress::config::{HttpConfig, IngressConfig, QuotasConfig};
use drover_ingress::memory::{SharedRetained, SharedSessions};
use drover_ingress::{Backing, SoleOwner};
use drover_mqtt::client::ClientOptions;
use drover_mqtt::{Publish, ReasonCode, Version};
use drover_sim::{Broken, BusFaults, SeededRandom, SimBus, VirtualClock};
use drover_types::limits::INBOX_MESSAGES_MAX;
use drover_types::{Clock, Qos, TELEMETRY_TOPIC};
use tokio::time::Instant;

use crate::peer::Peer;
use crate::switchboard::Switchboard;
use crate::virtual_time;
use crate::world::severed::SeverableBus;
use crate::world::store::SeverableSessions;
use crate::world::{StoreFlaws, registry};

/// Messages that have to be accepted: more than an inbox takes.
const ACCEPTED: usize = INBOX_MESSAGES_MAX + 200;
/// Messages a second that the device may send.
const QUOTA: u32 = 100;
/// Messages it sends at once, and the wait when one was refused.
const BURST: usize = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// Partitions of each topic.
const PARTITIONS: u32 = 4;
/// When the simulated world begins, milliseconds since the Unix epoch.
const STARTED_MS: u64 = 1_700_000_000_000;
/// Host of the ingress.
const INGRESS: &str = "ingress";

/// What is broken; the default breaks nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flaws {
    /// Of the bus, as the ingress sees it.
    pub bus: Broken,
    pub store: StoreFlaws,
    /// Nobody has a quota.
    pub unlimited: bool,
}

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that were accepted, and that were refused.
    pub accepted: usize,
    pub refused: usize,
    /// Messages that the subscriber has got, each counted once; and those that are counted as dropped.
    pub received: usize,
    pub dropped: usize,
    /// Messages that were acknowledged and neither received nor counted.
    pub silent: usize,
    /// How often more was acknowledged than was in the log.
    pub early: usize,
    /// How often more was accepted than the quota allows.
    pub over_quota: usize,
    /// Messages in the log that were not accepted.
    pub unasked: usize,
}

impl Verdict {
    /// Whether the promise is kept, and the inbox within its bound.
    pub fn is_clean(&self) -> bool {
        (self.silent, self.early, self.over_quota, self.unasked) == (0, 0, 0, 0) && self.received <= INBOX_MESSAGES_MAX
    }
}

/// Runs one world to its end and checks its books. The error says what did not come to rest.
pub fn run(seed: u64, flaws: Flaws) -> anyhow::Result<Verdict> {
    virtual_time::run(async move {
        let mut world = World::new(seed, flaws).await?;
        let mut life = world.start();
        world.subscribe().await?;
        let mut verdict = world.flood().await?;
        verdict.dropped = life.dropped();
        // What waits for the subscriber has to outlive its node.
        drop(life);
        life = world.start();
        verdict.received = world.collect().await?;
        verdict.dropped += life.dropped();
        verdict.silent = verdict.accepted.saturating_sub(verdict.received + verdict.dropped);
        Ok(verdict)
    })
}

struct World {
    bus: SimBus,
    board: Switchboard,
    clock: Arc<VirtualClock>,
    random: Arc<SeededRandom>,
    sessions: SharedSessions,
    /// Starts of the ingress so far.
    boots: u32,
    flaws: Flaws,
}

/// One life of the ingress.
struct Life {
    bus: SeverableBus,
    metrics: Metrics,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Life {
    /// Messages that are counted as not delivered, for whatever reason.
    fn dropped(&self) -> usize {
        let text = self.metrics.encode();
        let counts = text.lines().filter(|line| line.starts_with("drover_ingress_messages_dropped_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }
}

impl Drop for Life {
    /// It ends as SIGKILL ends it.
    fn drop(&mut self) {
        self.bus.sever();
        self.task.abort();
    }
}

impl World {
    async fn new(seed: u64, flaws: Flaws) -> anyhow::Result<Self> {
        let bus = SimBus::new(seed, BusFaults::default());
        for topic in [TELEMETRY_TOPIC, "drover.presence"] {
            let (topic, partitions) = (topic.into(), PARTITIONS);
            let config = TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None };
            bus.create_topic(config).await?;
        }
        Ok(Self {
            bus,
            board: Switchboard::default(),
            clock: Arc::new(VirtualClock::starting_at(STARTED_MS)),
            random: Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7))),
            sessions: SharedSessions::default(),
            boots: 0,
            flaws,
        })
    }

    fn start(&mut self) -> Life {
        self.boots += 1;
        let bus = SeverableBus::new(self.bus.clone());
        let network = Network::default();
        registry::serve(&network);
        self.board.plug(INGRESS, network.clone(), "ingress", bus.severed());
        let ports = bus.ports(self.flaws.bus, &self.clock, &self.random, network, "ingress");
        let metrics = ports.metrics.clone();
        // Without HTTP no thread is started.
        let http = HttpConfig { listen: Vec::new(), ..HttpConfig::default() };
        let device_messages = if self.flaws.unlimited { 0 } else { QUOTA };
        let quotas = QuotasConfig { device_messages, ..QuotasConfig::default() };
        let config = IngressConfig { http, quotas, ..IngressConfig::default() };
        let retained = SharedRetained::new(config.limits.retained_bounds());
        let sessions = SeverableSessions {
            inner: self.sessions.alone(),
            severed: bus.severed(),
            random: self.random.clone(),
            flaws: self.flaws.store,
        };
        let owners = Arc::new(SoleOwner::new(self.boots));
        let backing = Backing::of(self.boots, owners, Arc::new(retained), Arc::new(sessions));
        let running = drover_ingress::run_with(config, ports, Shutdown::new(), backing);
        Life { bus, metrics, task: tokio::spawn(running) }
    }

    /// A subscriber comes, says what it wants, and leaves.
    async fn subscribe(&self) -> anyhow::Result<()> {
        let mut subscriber = self.come(&subscriber()).await;
        subscriber.subscribe("flood/+").await?;
        subscriber.leave().await?;
        // Whoever sends from now on finds it away.
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn come(&self, options: &ClientOptions) -> Peer {
        Peer::come(&self.board, INGRESS, &self.clock, options).await
    }

    /// The device sends, as much as it can, until enough was accepted.
    async fn flood(&self) -> anyhow::Result<Verdict> {
        let mut device = self.come(&ClientOptions::new(Version::V5, "device")).await;
        self.bus.set_faults(BusFaults { hang: 20, hang_ms_max: 3_000, delay_ms_max: 20, ..BusFaults::default() });
        let (began, mut verdict, mut number) = (Instant::now(), Verdict::default(), 0_u64);
        while verdict.accepted < ACCEPTED || device.client.in_flight() > 0 {
            let mut out = Vec::new();
            let wanted = if verdict.accepted < ACCEPTED { BURST.min(device.client.capacity()) } else { 0 };
            for _ in 0..wanted {
                let payload = number.to_string();
                let message = Publish { qos: Qos::AtLeastOnce, ..Publish::new("flood/device", payload.as_bytes()) };
                device.client.publish(&message, self.clock.now_ms(), &mut out)?;
                number += 1;
            }
            device.send(&out).await?;
            let reasons = device.hear().await?.acknowledged;
            let refused = reasons.iter().filter(|reason| **reason == ReasonCode::QuotaExceeded).count();
            verdict.refused += refused;
            verdict.accepted += reasons.len() - refused;
            verdict.early += usize::from(verdict.accepted > self.logged().await?);
            verdict.over_quota += usize::from(verdict.accepted > allowed(began.elapsed()));
            if refused > 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.bus.set_faults(BusFaults::default());
        verdict.unasked = self.logged().await?.saturating_sub(verdict.accepted);
        Ok(verdict)
    }

    /// Messages in the log.
    async fn logged(&self) -> anyhow::Result<usize> {
        let mut logged = 0;
        for partition in 0..PARTITIONS {
            logged += self.bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, partition)).await?.end as usize;
        }
        Ok(logged)
    }

    /// How many messages the subscriber gets when it comes back, each counted once.
    async fn collect(&self) -> anyhow::Result<usize> {
        let payloads = self.come(&subscriber()).await.collect().await?;
        Ok(payloads.into_iter().collect::<BTreeSet<String>>().len())
    }
}

fn subscriber() -> ClientOptions {
    ClientOptions { clean_start: false, session_expiry_s: 3_600, ..ClientOptions::new(Version::V5, "subscriber") }
}

/// How many messages the device may have sent in this time: what comes in one second may come at once.
fn allowed(elapsed: Duration) -> usize {
    (elapsed.as_secs_f64() * f64::from(QUOTA)).ceil() as usize + QUOTA as usize + 1
}
