//! Two shadow services over a simulated bus on virtual time: devices that send their requests again, an application
//! that asks by gRPC, and kills, lost writes, rebalances and lost stores by seed.
//!
//! Every update sets a field of its own, so that the books can tell which of them were carried out, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use drover_bus::{Bus, Outgoing, Record, Stored, TopicPartition};
use drover_host::{Network, Shutdown};
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{Delivery, UpdateShadowRequest};
use drover_shadow::conformance::MemoryStore;
use drover_shadow::{CHANGES_TOPIC, DOCUMENTS_TOPIC, GROUP, REPLIES_TOPIC, ShadowConfig, run_with};
use drover_sim::{Broken, BusFaults, SeededRandom, SimBus, VirtualClock};
use drover_types::shadow::SHADOW_REQUESTS_TOPIC;
use drover_types::{ClientId, Clock, DeviceId, Qos, Random, RecordId, Telemetry, TenantId, TopicName, fingerprint};
use prost::Message as _;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::world::severed::SeverableBus;

/// Partitions of each topic.
const PARTITIONS: u32 = 3;
/// Devices, each with the classic shadow.
const DEVICES: usize = 5;
/// Updates by each device, and by the application to each device.
const UPDATES: usize = 12;
/// Kills.
const KILLS: usize = 10;
/// Longest time between two kills, and between two updates of one sender, milliseconds.
const PAUSE_MS_MAX: u64 = 800;
/// When the simulated world begins, milliseconds since the Unix epoch.
const STARTED_MS: u64 = 1_700_000_000_000;
/// Virtual time after which a world that has not come to rest has stalled.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two looks at a state, in virtual time.
const LOOK: Duration = Duration::from_millis(50);

/// What the books say of one world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Updates that were sent and accepted, each counted once.
    pub updates: usize,
    /// Answers in the log.
    pub answers: usize,
    /// Documents whose version is not the one after that of the document before.
    pub gaps: usize,
    /// Updates carried out more than once.
    pub doubled: usize,
    /// Updates carried out never, or whose field is not in the last document.
    pub lost: usize,
    /// Requests that were answered differently when they came again, or never.
    pub answered_otherwise: usize,
}

impl Verdict {
    /// Whether the promise is kept.
    pub fn is_clean(&self) -> bool {
        (self.gaps, self.doubled, self.lost, self.answered_otherwise) == (0, 0, 0, 0)
    }
}

/// Runs one world, whose services see the bus as `broken` says, to its end and checks its books. The error says what did
/// not come to rest.
pub fn run(seed: u64, broken: Broken) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let mut world = World::new(seed, broken).await?;
        tokio::time::timeout(PATIENCE, world.live()).await.context("not at rest")??;
        world.verdict().await
    })
}

struct World {
    bus: SimBus,
    store: Arc<MemoryStore>,
    clock: Arc<VirtualClock>,
    random: Arc<SeededRandom>,
    /// Of the first replica; the second one is reached by nobody.
    network: Network,
    replicas: [Option<Replica>; 2],
    broken: Broken,
}

/// One life of a replica.
struct Replica {
    bus: SeverableBus,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl World {
    async fn new(seed: u64, broken: Broken) -> anyhow::Result<Self> {
        let bus = SimBus::new(seed, BusFaults::default());
        let mut world = Self {
            bus: if broken.unfenced { bus.unfenced() } else { bus },
            store: Arc::default(),
            clock: Arc::new(VirtualClock::starting_at(STARTED_MS)),
            random: Arc::new(SeededRandom::new(seed.wrapping_mul(31).wrapping_add(7))),
            network: Network::default(),
            replicas: [None, None],
            broken,
        };
        (0..2).for_each(|number| world.start(number));
        while world.bus.topics().await?.len() < 4 {
            tokio::time::sleep(LOOK).await;
        }
        Ok(world)
    }

    fn start(&mut self, number: usize) {
        let bus = SeverableBus::new(self.bus.clone());
        let network = if number == 0 { self.network.clone() } else { Network::default() };
        let ports = bus.ports(self.broken, &self.clock, &self.random, network, "shadow");
        let (member, ingress_nodes) = (format!("shadow-{number}"), Vec::new());
        let config = ShadowConfig { partitions: PARTITIONS, member, ingress_nodes, ..ShadowConfig::default() };
        let running = run_with(config, ports, Shutdown::new(), self.store.clone());
        self.replicas[number] = Some(Replica { bus, task: tokio::spawn(running) });
    }

    /// Ends a replica as SIGKILL does, and starts it again; now and then the store is lost as well.
    fn kill(&mut self, number: usize) {
        if let Some(replica) = self.replicas[number].take() {
            replica.bus.sever();
            replica.task.abort();
        }
        if self.random.chance(300) {
            self.store.lose();
        }
        self.start(number);
    }

    /// Everybody asks while things break; then things are mended, and all comes to rest.
    async fn live(&mut self) -> anyhow::Result<()> {
        self.bus.set_faults(BusFaults {
            lost_acknowledgement: 40,
            lost_write: 40,
            hang: 10,
            hang_ms_max: 5_000,
            delay_ms_max: 20,
            rebalance: 10,
        });
        let mut senders = JoinSet::new();
        for number in 0..DEVICES {
            let random = SeededRandom::new(self.random.next());
            senders.spawn(device(number, self.bus.clone(), self.clock.clone(), random));
            let random = SeededRandom::new(self.random.next());
            senders.spawn(application(number, self.network.clone(), random));
        }
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_millis(self.random.below(PAUSE_MS_MAX))).await;
            let victim = self.random.below(2) as usize;
            self.kill(victim);
        }
        while senders.join_next().await.transpose()?.is_some() {}
        self.bus.set_faults(BusFaults::default());
        while self.lag().await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Requests the service has not committed.
    async fn lag(&self) -> anyhow::Result<u64> {
        let committed = self.bus.committed(GROUP, SHADOW_REQUESTS_TOPIC).await?;
        let mut lag = 0;
        for partition in 0..PARTITIONS {
            let end = self.bus.bounds(&TopicPartition::new(SHADOW_REQUESTS_TOPIC, partition)).await?.end;
            lag += end - committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
        }
        Ok(lag)
    }

    async fn records(&self, topic: &str) -> anyhow::Result<Vec<Stored>> {
        let mut all = Vec::new();
        for partition in 0..PARTITIONS {
            all.extend(self.bus.read(&TopicPartition::new(topic, partition), 0, usize::MAX, Duration::ZERO).await?);
        }
        Ok(all)
    }

    async fn verdict(&self) -> anyhow::Result<Verdict> {
        let mut verdict = Verdict { updates: DEVICES * UPDATES * 2, ..Verdict::default() };
        let mut last: BTreeMap<String, Value> = BTreeMap::new();
        for stored in self.records(DOCUMENTS_TOPIC).await? {
            let (key, document) = read(&stored)?;
            let before = last.get(&key).map_or(0, |before| before["version"].as_u64().unwrap_or_default());
            verdict.gaps += usize::from(document["version"] != before + 1);
            last.insert(key, document);
        }
        let mut carried_out: BTreeMap<(String, String), usize> = BTreeMap::new();
        for stored in self.records(CHANGES_TOPIC).await? {
            let (key, change) = read(&stored)?;
            for field in fields(&change) {
                *carried_out.entry((key.clone(), field)).or_default() += 1;
            }
        }
        for number in 0..DEVICES {
            let key = format!("home/{}", name(number));
            let there: BTreeSet<String> = last.get(&key).map(fields).unwrap_or_default().into_iter().collect();
            for field in (0..UPDATES).flat_map(|update| ["d", "a"].map(|sender| format!("{sender}{update}"))) {
                let times = carried_out.get(&(key.clone(), field.clone())).copied().unwrap_or_default();
                verdict.doubled += usize::from(times > 1);
                verdict.lost += usize::from(times == 0 || !there.contains(&field));
            }
        }
        self.check_answers(&mut verdict).await?;
        Ok(verdict)
    }

    async fn check_answers(&self, verdict: &mut Verdict) -> anyhow::Result<()> {
        let mut answers: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for stored in self.records(REPLIES_TOPIC).await? {
            let delivery = Delivery::decode(stored.record.value.unwrap_or_default())?;
            let Some(answer) = delivery.answer else { continue };
            verdict.answers += 1;
            answers.entry(answer.identity).or_default().insert(delivery.payload);
        }
        let several = answers.values().filter(|payloads| payloads.len() > 1).count();
        verdict.answered_otherwise = several + verdict.updates.saturating_sub(answers.len());
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("lamp-{number}")
}

/// Key and JSON of a record.
fn read(stored: &Stored) -> anyhow::Result<(String, Value)> {
    let record = &stored.record;
    let key = String::from_utf8(record.key.as_deref().unwrap_or_default().to_vec())?;
    Ok((key, serde_json::from_slice(record.value.as_deref().unwrap_or_default())?))
}

/// Names of all fields of a state.
fn fields(document: &Value) -> Vec<String> {
    let sections = ["desired", "reported"].into_iter().filter_map(|name| document["state"][name].as_object());
    sections.flat_map(|section| section.keys().cloned()).collect()
}

/// Sends its updates one after the other, each again, by a new session, until it is durable; and now and then once more.
async fn device(number: usize, bus: SimBus, clock: Arc<VirtualClock>, random: SeededRandom) {
    let mut epoch = 1;
    for update in 0..UPDATES {
        tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MS_MAX))).await;
        loop {
            let stored = match bus.append(vec![request(number, update, epoch, &clock, &random)]).await {
                Ok(receipt) => receipt.await.is_ok(),
                Err(_) => false,
            };
            if stored && !random.chance(200) {
                break;
            }
            epoch += 1;
        }
    }
}

/// An update as the ingress logs it.
fn request(number: usize, update: usize, epoch: u64, clock: &VirtualClock, random: &SeededRandom) -> Outgoing {
    let (device, packet_id) = (name(number), update as u16 + 1);
    let topic = format!("$aws/things/{device}/shadow/update");
    let payload = format!(r#"{{"state": {{"reported": {{"d{update}": {update}}}}}, "clientToken": "{update}"}}"#);
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let message = Telemetry {
        id: RecordId::at(clock.now_ms(), bytes),
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new(&device).expect("valid"),
        client: ClientId::new(&device).expect("valid"),
        fingerprint: fingerprint(&device, packet_id, Qos::AtLeastOnce, &topic, payload.as_bytes()),
        topic: TopicName::new(topic).expect("valid"),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: epoch > 1,
        packet_id: Some(packet_id),
        epoch,
        time_ms: clock.now_ms(),
        content_type: None,
        properties: Vec::new(),
        mqtt5: None,
        traceparent: None,
        hops: 0,
    };
    let headers = message.headers();
    let record = Record {
        key: Some(message.key().to_string().into()),
        value: Some(message.payload.clone()),
        headers,
        timestamp_ms: i64::try_from(message.time_ms).unwrap_or(i64::MAX),
    };
    Outgoing::keyed(SHADOW_REQUESTS_TOPIC, record)
}

/// Asks by gRPC, and again under the same id until it is answered.
async fn application(number: usize, network: Network, random: SeededRandom) {
    for update in 0..UPDATES {
        tokio::time::sleep(Duration::from_millis(random.below(PAUSE_MS_MAX))).await;
        let mut id = [0; 16];
        random.fill(&mut id);
        let document = format!(r#"{{"state": {{"desired": {{"a{update}": {update}}}}}}}"#).into_bytes();
        loop {
            let request = UpdateShadowRequest {
                tenant: "home".to_owned(),
                device: name(number),
                name: String::new(),
                document: document.clone(),
                id: id.to_vec(),
            };
            let mut client = ShadowClient::new(network.client("shadow"));
            let asked = tokio::time::timeout(Duration::from_secs(20), client.update_shadow(request)).await;
            if matches!(asked, Ok(Ok(_))) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
