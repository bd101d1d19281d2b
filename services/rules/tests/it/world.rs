//! A bus with the topics of the other services, and hands to publish, declare rules and read what came out.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, Stored, TopicConfig, TopicPartition};
use drover_host::{Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemClock, SystemRandom};
use drover_proto::registry::v1::{Change, Object, object};
use drover_proto::rules::v1::rules_client::RulesClient;
use drover_proto::rules::v1::{GetStatusRequest, RuleStatus};
use drover_proto::types::v1 as wire;
use drover_rules::{CHANGES_TOPIC, Rules, RulesConfig};
use drover_types::object::{FunctionSpec, RuleSpec};
use drover_types::{
    ClientId, Clock, DeviceId, Qos, RecordId, TELEMETRY_TOPIC, Telemetry, TenantId, TopicName, fingerprint,
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longest a test waits for a state; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When messages of the tests are received unless they say otherwise, milliseconds since the Unix epoch.
pub const RECEIVED_MS: u64 = 1_700_000_000_000;

pub struct World {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub network: Network,
    pub metrics: Metrics,
}

/// A running service.
pub struct Running {
    pub shutdown: Shutdown,
    pub health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl World {
    /// Over any bus; makes the topics of the other services.
    pub async fn on(bus: Arc<dyn Bus>) -> Self {
        for (topic, partitions, compact) in [(TELEMETRY_TOPIC, 4, false), (CHANGES_TOPIC, 2, true)] {
            let config =
                TopicConfig { topic: topic.into(), partitions, compact, retention_ms: None, retention_bytes: None };
            bus.create_topic(config).await.expect("topic");
        }
        Self { bus, clock: Arc::new(SystemClock), network: Network::default(), metrics: Metrics::default() }
    }

    /// Over an embedded log in a directory of its own.
    pub async fn embedded() -> (Self, TempDir) {
        let dir = tempfile::tempdir().expect("directory");
        (Self::on(open(&dir)).await, dir)
    }

    /// Starts a member.
    pub fn start(&self, member: &str) -> Running {
        let config = RulesConfig { member: member.to_owned(), partitions: 2, ..RulesConfig::default() };
        self.start_with(config)
    }

    /// Starts a member of this configuration.
    pub fn start_with(&self, config: RulesConfig) -> Running {
        let (shutdown, health) = (Shutdown::new(), Health::default());
        let ports = Ports {
            bus: self.bus.clone(),
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
            network: self.network.clone(),
            sockets: Sockets::default(),
            data: std::path::PathBuf::new(),
            metrics: self.metrics.clone(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: health.service("rules"),
        };
        let task = tokio::spawn(Rules::run(config, ports, shutdown.clone()));
        Running { shutdown, health, task }
    }

    /// Declares `home/NAME`, or deletes it.
    pub async fn rule(&self, name: &str, generation: u64, spec: Option<serde_json::Value>) {
        self.append(vec![rule_change(("home", name), generation, 1, spec)]).await;
    }

    /// Declares the function `home/NAME`, or deletes it.
    pub async fn function(&self, name: &str, source: Option<&str>) {
        let function = source.map(|source| {
            let spec = FunctionSpec { source: source.into(), routine: "main".into(), examples: Vec::new() };
            let meta = wire::Meta { tenant: "home".into(), name: name.into(), ..wire::Meta::default() };
            Object { object: Some(object::Object::Function(wire::Function::of(meta, spec))) }
        });
        let change = Change { before: None, after: function, time_ms: 1, ..Change::default() };
        let record = Record {
            key: Some(format!("function/home/{name}").into()),
            value: Some(change.encode_to_vec().into()),
            ..Record::default()
        };
        self.append(vec![Outgoing::keyed(CHANGES_TOPIC, record)]).await;
    }

    pub async fn append(&self, batch: Vec<Outgoing>) {
        // Lost acknowledgements are the simulation's: the record is there or is sent by the caller again.
        let receipt = self.bus.append(batch).await.expect("taken");
        receipt.await.expect("durable");
    }

    pub async fn publish(&self, messages: impl IntoIterator<Item = Telemetry>) {
        self.append(messages.into_iter().map(outgoing).collect()).await;
    }

    /// Everything in a topic, partition by partition; nothing if there is no such topic.
    pub async fn read(&self, topic: &str) -> Vec<Stored> {
        let topics = self.bus.topics().await.expect("topics");
        let partitions = topics.iter().find(|config| &*config.topic == topic).map_or(0, |config| config.partitions);
        let mut all = Vec::new();
        for partition in 0..partitions {
            let at = TopicPartition::new(topic, partition);
            let mut next = self.bus.bounds(&at).await.expect("bounds").earliest;
            loop {
                let records = self.bus.read(&at, next, 1 << 20, Duration::ZERO).await.expect("read");
                let Some(last) = records.last() else { break };
                next = last.position.offset + 1;
                all.extend(records);
            }
        }
        all
    }

    /// Keys and values that a compacted topic comes to, once nothing but the last record of each key is kept.
    pub async fn compacted(&self, topic: &str) -> BTreeMap<String, Vec<u8>> {
        let mut kept = BTreeMap::new();
        for Stored { record, .. } in self.read(topic).await {
            let key = String::from_utf8_lossy(&record.key.expect("a key")).into_owned();
            match record.value {
                Some(value) => drop(kept.insert(key, value.to_vec())),
                None => drop(kept.remove(&key)),
            }
        }
        kept
    }

    /// Values of a topic as text, sorted.
    pub async fn values(&self, topic: &str) -> Vec<String> {
        let mut values: Vec<String> = self.read(topic).await.iter().map(text).collect();
        values.sort_unstable();
        values
    }

    pub async fn status(&self, name: &str) -> Result<RuleStatus, tonic::Status> {
        self.status_of("home", name).await
    }

    pub async fn status_of(&self, tenant: &str, name: &str) -> Result<RuleStatus, tonic::Status> {
        let request = GetStatusRequest { tenant: tenant.into(), name: name.into() };
        let response = RulesClient::new(self.network.client("rules")).get_status(request).await?;
        Ok(response.into_inner().status.expect("a status"))
    }

    /// Waits until the engine has evaluated all there is.
    pub async fn drained(&self) {
        until("no lag", async || {
            let mut behind = 0;
            let committed = self.bus.committed(drover_rules::GROUP, TELEMETRY_TOPIC).await.expect("offsets");
            for partition in 0..4 {
                let end = self.bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, partition)).await.expect("bounds").end;
                behind += end - committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
            }
            behind == 0
        })
        .await;
    }
}

impl Running {
    /// Stops it as SIGTERM does.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("no error");
    }

    /// Waits until it ends by itself, and returns why.
    pub async fn failed(self) -> anyhow::Error {
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("it ends");
        ended.expect("no panic").expect_err("an error")
    }

    /// Stops it as SIGKILL does: wherever it waits, it ends there.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err());
    }
}

/// The registry's change that declares the rule `TENANT/NAME`, made at `created_ms`, or deletes it.
pub fn rule_change(
    (tenant, name): (&str, &str),
    generation: u64,
    created_ms: u64,
    spec: Option<serde_json::Value>,
) -> Outgoing {
    let rule = spec.map(|spec| {
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        let meta = wire::Meta { tenant, name, generation, created_ms, ..wire::Meta::default() };
        Object { object: Some(object::Object::Rule(wire::Rule::of(meta, spec))) }
    });
    let change = Change { before: None, after: rule, time_ms: 1, ..Change::default() };
    let record = Record {
        key: Some(format!("rule/{tenant}/{name}").into()),
        value: Some(change.encode_to_vec().into()),
        ..Record::default()
    };
    Outgoing::keyed(CHANGES_TOPIC, record)
}

/// Opens the log in a directory, as soon as who had it before has let go.
pub fn open(dir: &TempDir) -> Arc<dyn Bus> {
    Arc::new(EmbeddedBus::open(dir.path(), EmbeddedOptions::default()).expect("open").0)
}

/// A QoS 1 publish of a device of tenant `home` to `sensors/DEVICE`, its number as packet id and in its id.
pub fn message(device: &str, number: u16, payload: &str) -> Telemetry {
    let topic = format!("sensors/{device}");
    let mut id = [0; 10];
    id[..2].copy_from_slice(&number.to_be_bytes());
    id[2..10.min(2 + device.len())].copy_from_slice(&device.as_bytes()[..device.len().min(8)]);
    Telemetry {
        id: RecordId::at(RECEIVED_MS, id),
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new(device).expect("valid"),
        client: ClientId::new(device).expect("valid"),
        fingerprint: fingerprint(device, number, Qos::AtLeastOnce, &topic, payload.as_bytes()),
        topic: TopicName::new(topic).expect("valid"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(number),
        epoch: 1,
        time_ms: RECEIVED_MS,
        content_type: None,
        properties: vec![],
        mqtt5: None,
        traceparent: None,
        hops: 0,
    }
}

/// The same message under a new id and session, as its device sends it after a reconnect.
pub fn redelivered(message: &Telemetry) -> Telemetry {
    let mut id = message.id;
    id.0[15] ^= 0xff;
    Telemetry { id, epoch: message.epoch + 1, ..message.clone() }
}

pub fn outgoing(message: Telemetry) -> Outgoing {
    let headers = message.headers();
    let record = Record {
        key: Some(message.key().to_string().into()),
        value: Some(message.payload.clone()),
        headers,
        timestamp_ms: message.time_ms as i64,
    };
    Outgoing::keyed(TELEMETRY_TOPIC, record)
}

/// A record as large as the embedded log takes, which is neither a message nor an entry of the outbox.
pub fn largest(key: &str) -> Record {
    let value = vec![0; EmbeddedOptions::default().record_bytes_max - key.len()];
    Record { key: Some(key.to_owned().into()), value: Some(value.into()), ..Record::default() }
}

pub fn text(stored: &Stored) -> String {
    String::from_utf8_lossy(stored.record.value.as_deref().unwrap_or_default()).into_owned()
}

pub fn header(stored: &Stored, name: &str) -> String {
    String::from_utf8_lossy(stored.record.header(name).unwrap_or_default()).into_owned()
}

/// Waits for a state.
pub async fn until<F: Future<Output = bool>>(state: &str, mut reached: impl FnMut() -> F) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not reached: {state}"));
}
