//! One storage service to test: started, stopped and started again over the same directory and log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
use drover_bus::{Bus, Outgoing, Record, TopicConfig, TopicPartition};
use drover_host::{Cassandra, Health, Metrics, Network, Ports, Service, Shutdown, Sockets, SystemRandom, grpc};
use drover_proto::storage::v1::storage_client::StorageClient;
use drover_proto::storage::v1::{
    GetLatestRequest, GetMessagesRequest, GetMessagesResponse, GetRangeRequest, GetRangeResponse, Point, point,
};
use drover_storage::{GROUP, Storage, StorageConfig};
use drover_types::{
    ClientId, DeviceId, FixedClock, Qos, RecordId, TELEMETRY_TOPIC, Telemetry, TenantId, TopicName, fingerprint,
};
use futures::TryFutureExt as _;
use tokio::task::JoinHandle;

/// Late 2026, in milliseconds since the Unix epoch.
pub const NOW_MS: u64 = 1_795_000_000_000;
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Longest a test waits for a state; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Partitions of the telemetry topic.
const PARTITIONS: u32 = 4;

/// A running service and all around it.
pub struct Stage {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<FixedClock>,
    pub metrics: Metrics,
    pub health: Health,
    network: Network,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Stage {
    /// A service over what is in `directory`, its topic there.
    pub async fn on(directory: &Path, config: StorageConfig) -> Self {
        Self::at(NOW_MS, directory, config).await
    }

    /// As [`Stage::on`], at another time.
    pub async fn at(now_ms: u64, directory: &Path, config: StorageConfig) -> Self {
        let stage = Self::without_topic(now_ms, directory, config);
        stage.create_topic().await;
        stage
    }

    /// A service over what is in `directory`.
    pub fn without_topic(now_ms: u64, directory: &Path, config: StorageConfig) -> Self {
        let (bus, _) = EmbeddedBus::open(&directory.join("log"), EmbeddedOptions::default()).expect("opens");
        let (bus, clock): (Arc<dyn Bus>, _) = (Arc::new(bus), Arc::new(FixedClock::at(now_ms)));
        let (network, metrics, health) = (Network::default(), Metrics::default(), Health::default());
        let shutdown = Shutdown::new();
        let ports = Ports {
            bus: Arc::clone(&bus),
            clock: Arc::clone(&clock) as _,
            random: Arc::new(SystemRandom),
            network: network.clone(),
            sockets: Sockets::default(),
            data: directory.join("storage"),
            metrics: metrics.clone(),
            cassandra: Cassandra::default(),
            functions: Default::default(),
            ready: health.service("storage"),
        };
        let run = Storage::run(config, ports, shutdown.clone());
        let running = tokio::spawn(run.inspect_err(|error| println!("the service ended: {error:#}")));
        Self { bus, clock, metrics, health, network, shutdown, running }
    }

    pub async fn create_topic(&self) {
        let config = TopicConfig {
            topic: TELEMETRY_TOPIC.into(),
            partitions: PARTITIONS,
            compact: false,
            retention_ms: None,
            retention_bytes: None,
        };
        self.bus.create_topic(config).await.expect("made");
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.expect("no panic").expect("a clean end");
    }

    pub async fn append(&self, batch: Vec<Outgoing>) {
        self.bus.append(batch).await.expect("taken").await.expect("durable");
    }

    /// Puts messages into the log and waits until storage has read them.
    pub async fn publish(&self, messages: impl IntoIterator<Item = Telemetry>) {
        self.append(messages.into_iter().map(outgoing).collect()).await;
        self.drained().await;
    }

    /// Waits until all that is in the log is stored.
    pub async fn drained(&self) {
        until(async || {
            assert!(!self.running.is_finished(), "the service ended");
            let committed = self.bus.committed(GROUP, TELEMETRY_TOPIC).await.expect("offsets");
            let mut behind = 0;
            for partition in 0..PARTITIONS {
                let end = self.bus.bounds(&TopicPartition::new(TELEMETRY_TOPIC, partition)).await.expect("bounds").end;
                behind += end - committed.iter().find(|p| p.at.partition == partition).map_or(0, |p| p.offset);
            }
            behind == 0
        })
        .await;
    }

    pub fn client(&self) -> StorageClient<grpc::Client> {
        StorageClient::new(self.network.client("storage"))
    }

    /// `field=value` of each field of a device of the tenant `home`.
    pub async fn latest(&self, device: &str) -> Vec<String> {
        let request = GetLatestRequest { tenant: "home".into(), device: device.into(), ..Default::default() };
        let answer = self.client().get_latest(request).await.expect("answered").into_inner();
        answer.points.iter().map(|point| format!("{}={}", point.field, value(point))).collect()
    }

    pub async fn range(&self, request: GetRangeRequest) -> GetRangeResponse {
        self.client().get_range(request).await.expect("answered").into_inner()
    }

    pub async fn messages(&self, request: GetMessagesRequest) -> GetMessagesResponse {
        self.client().get_messages(request).await.expect("answered").into_inner()
    }

    /// What `/metrics` says of a counter.
    pub fn counter(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
        line.parse().expect("a number")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The value of a point as text.
pub fn value(point: &Point) -> String {
    match point.value.as_ref().expect("a value") {
        point::Value::Number(number) => number.to_string(),
        point::Value::Text(text) => format!("{text:?}"),
        point::Value::Boolean(truth) => truth.to_string(),
    }
}

/// All of a field of a device of the tenant `home`.
pub fn of(device: &str, field: &str) -> GetRangeRequest {
    GetRangeRequest { tenant: "home".into(), device: device.into(), field: field.into(), ..Default::default() }
}

/// All messages of a device of the tenant `home`.
pub fn sent_by(device: &str) -> GetMessagesRequest {
    GetMessagesRequest { tenant: "home".into(), device: device.into(), ..Default::default() }
}

/// A QoS 1 publish of a device of tenant `home` to `sensors/DEVICE`, its number as packet id and in its id.
pub fn message(device: &str, number: u16, time_ms: u64, payload: impl AsRef<[u8]>) -> Telemetry {
    let (topic, payload) = (format!("sensors/{device}"), payload.as_ref());
    let mut id = [0; 10];
    id[..2].copy_from_slice(&number.to_be_bytes());
    id[2..10.min(2 + device.len())].copy_from_slice(&device.as_bytes()[..device.len().min(8)]);
    Telemetry {
        id: RecordId::at(time_ms, id),
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new(device).expect("valid"),
        client: ClientId::new(device).expect("valid"),
        fingerprint: fingerprint(device, number, Qos::AtLeastOnce, &topic, payload),
        topic: TopicName::new(topic).expect("valid"),
        payload: Bytes::copy_from_slice(payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: Some(number),
        epoch: 1,
        time_ms,
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
    Telemetry { id, epoch: message.epoch + 1, time_ms: message.time_ms + 1, ..message.clone() }
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

/// Waits for a state.
pub async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !reached().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("reached in time");
}
