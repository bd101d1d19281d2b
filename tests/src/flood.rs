//! A device that sends more than it may while the log hangs, to a subscriber that is away for longer than its inbox has room:
//! whatever is not delivered was refused, or is counted (P7).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, TopicConfig, TopicPartition};
use drover_host::{Health, Metrics, Network, Ports, Shutdown, Sockets};
use drover_ingress::config::{HttpConfig, IngressConfig, QuotasConfig};
use drover_ingress::memory::{SharedRetained, SharedSessions};
use drover_ingress::{Backing, SoleOwner};
use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_mqtt::{Publish, ReasonCode, Subscription, SubscriptionList, SubscriptionOptions, Version};
use drover_sim::{Broken, BrokenBus, BusFaults, SeededRandom, SimBus, VirtualClock};
use drover_types::limits::INBOX_MESSAGES_MAX;
use drover_types::{Clock, Qos, TELEMETRY_TOPIC};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

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
/// A server that says nothing for this long has nothing to say.
const QUIET: Duration = Duration::from_secs(20);
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(200);

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
    network: Network,
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
        let network = Network::default();
        registry::serve(&network);
        Ok(Self {
            bus,
            network,
            clock: Arc::new(VirtualClock::starting_at(STARTED_MS)),
            random: Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7))),
            sessions: SharedSessions::default(),
            boots: 0,
            flaws,
        })
    }

    fn start(&mut self) -> Life {
        self.boots += 1;
        let (bus, metrics) = (SeverableBus::new(self.bus.clone()), Metrics::default());
        let ports = Ports {
            bus: Arc::new(BrokenBus::new(Arc::new(bus.clone()), self.flaws.bus)),
            clock: self.clock.clone(),
            random: self.random.clone(),
            network: self.network.clone(),
            sockets: Sockets::default(),
            data: PathBuf::new(),
            metrics: metrics.clone(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: Health::default().service("ingress"),
        };
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
        let mut subscriber = self.subscriber().await;
        let mut list = SubscriptionList::default();
        list.push(Subscription { filter: "flood/+", options: SubscriptionOptions::new(Qos::AtLeastOnce) })?;
        let mut out = Vec::new();
        subscriber.client.subscribe(list.as_subscriptions(), self.clock.now_ms(), &mut out)?;
        subscriber.stream.write_all(&out).await?;
        while !subscriber.hear().await?.subscribed {}
        out.clear();
        subscriber.client.disconnect(self.clock.now_ms(), &mut out)?;
        Ok(subscriber.stream.write_all(&out).await?)
    }

    async fn subscriber(&self) -> Peer {
        let options = ClientOptions {
            clean_start: false,
            session_expiry_s: 3_600,
            ..ClientOptions::new(Version::V5, "subscriber")
        };
        Peer::come(&self.network, &self.clock, &options).await
    }

    /// The device sends, as much as it can, until enough was accepted.
    async fn flood(&self) -> anyhow::Result<Verdict> {
        let mut device = Peer::come(&self.network, &self.clock, &ClientOptions::new(Version::V5, "device")).await;
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
            device.stream.write_all(&out).await?;
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

    /// How many messages the subscriber gets when it comes back.
    async fn collect(&self) -> anyhow::Result<usize> {
        let mut subscriber = self.subscriber().await;
        let mut numbers = BTreeSet::new();
        loop {
            let heard = subscriber.hear().await?;
            if heard.is_quiet {
                return Ok(numbers.len());
            }
            numbers.extend(heard.numbers);
        }
    }
}

/// How many messages the device may have sent in this time: what comes in one second may come at once.
fn allowed(elapsed: Duration) -> usize {
    (elapsed.as_secs_f64() * f64::from(QUOTA)).ceil() as usize + QUOTA as usize + 1
}

/// One connection of a client.
struct Peer {
    client: Client,
    stream: DuplexStream,
    input: Vec<u8>,
    clock: Arc<VirtualClock>,
}

/// What has come at once.
#[derive(Default)]
struct Heard {
    is_quiet: bool,
    connected: bool,
    subscribed: bool,
    acknowledged: Vec<ReasonCode>,
    /// Of messages.
    numbers: Vec<u64>,
}

impl Peer {
    /// Connects, as often as that takes.
    async fn come(network: &Network, clock: &Arc<VirtualClock>, options: &ClientOptions) -> Self {
        loop {
            if let Ok(peer) = Self::connect(network, clock.clone(), options.clone()).await {
                return peer;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(network: &Network, clock: Arc<VirtualClock>, options: ClientOptions) -> anyhow::Result<Self> {
        let (mut client, mut out) = (Client::new(options), Vec::new());
        client.open(clock.now_ms(), &mut out)?;
        let mut stream = network.open("mqtt").await?;
        stream.write_all(&out).await?;
        let mut peer = Self { client, stream, input: Vec::new(), clock };
        let heard = peer.hear().await?;
        anyhow::ensure!(heard.connected, "no answer to a CONNECT");
        Ok(peer)
    }

    /// What the next bytes bring; quiet, if none come.
    async fn hear(&mut self) -> anyhow::Result<Heard> {
        let mut heard = Heard::default();
        let Ok(read) = tokio::time::timeout(QUIET, self.stream.read_buf(&mut self.input)).await else {
            return Ok(Heard { is_quiet: true, ..heard });
        };
        anyhow::ensure!(read? > 0, "the connection was closed");
        let on_event = |event: Event<'_>| match event {
            Event::Connected { .. } => heard.connected = true,
            Event::Subscribed { .. } => heard.subscribed = true,
            Event::Acknowledged { reason, .. } => heard.acknowledged.push(reason),
            Event::Message(message) => {
                let number = std::str::from_utf8(message.payload).ok().and_then(|text| text.parse().ok());
                heard.numbers.push(number.expect("what the device has sent"));
            }
            Event::Unsubscribed { .. } | Event::Pong | Event::Disconnected { .. } => {}
        };
        let mut out = Vec::new();
        let taken = self.client.receive(&self.input, self.clock.now_ms(), &mut out, on_event)?;
        self.input.drain(..taken);
        self.stream.write_all(&out).await?;
        Ok(heard)
    }
}
