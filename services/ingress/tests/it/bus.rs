//! A log behind a gate: appends of telemetry may hang, or fail with an unknown fate, and reads may be cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Offset, Outgoing, Position, ReadError,
    Receipt, Stored, TopicConfig, TopicPartition, TransactError, Transactor, Unacknowledged,
};
use drover_types::TELEMETRY_TOPIC;
use futures::FutureExt;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Receipts wait.
    Hanging,
    /// Receipts say that nobody knows.
    Failing,
}

pub struct GatedBus {
    bus: Arc<dyn Bus>,
    gate: watch::Sender<Gate>,
    /// While the gate is open: batches with a record of this key hang.
    stuck: watch::Sender<Option<&'static str>>,
    cut: AtomicBool,
}

impl GatedBus {
    pub fn new(bus: Arc<dyn Bus>) -> Self {
        let (gate, stuck) = (watch::Sender::new(Gate::Open), watch::Sender::new(None));
        Self { bus, gate, stuck, cut: AtomicBool::new(false) }
    }

    /// Whether reads fail from now on.
    pub fn cut_reads(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// Receipts of batches with a record of this key wait, as if its partition hung.
    pub fn stick(&self, key: Option<&'static str>) {
        self.stuck.send_replace(key);
    }

    pub fn set(&self, gate: Gate) {
        self.gate.send_replace(gate);
    }
}

#[async_trait]
impl Bus for GatedBus {
    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        let gated = batch.iter().any(|outgoing| &*outgoing.topic == TELEMETRY_TOPIC);
        let keys: Vec<_> = batch.iter().filter_map(|outgoing| outgoing.record.key.clone()).collect();
        let receipt = self.bus.append(batch).await?;
        if !gated {
            return Ok(receipt);
        }
        let (mut gate, mut stuck) = (self.gate.subscribe(), self.stuck.subscribe());
        Ok(async move {
            let free = |stuck: &Option<&str>| stuck.is_none_or(|stuck| keys.iter().all(|key| key != stuck.as_bytes()));
            drop(stuck.wait_for(free).await.expect("the bus outlives its receipts"));
            let passed = *gate.wait_for(|gate| *gate != Gate::Hanging).await.expect("the bus outlives its receipts");
            match passed {
                Gate::Failing => Err(Unacknowledged { reason: "broken by the test".into() }),
                Gate::Open | Gate::Hanging => receipt.await,
            }
        }
        .boxed())
    }
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        self.bus.create_topic(config).await
    }
    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        self.bus.delete_topic(topic).await
    }
    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        self.bus.topics().await
    }
    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(ReadError::Unavailable { reason: "cut by the test".into() });
        }
        self.bus.read(at, from, bytes_max, wait).await
    }
    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        self.bus.bounds(at).await
    }
    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        self.bus.offset_at(at, timestamp_ms).await
    }
    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        self.bus.join(config).await
    }
    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        self.bus.committed(group, topic).await
    }
    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        self.bus.transactor(transactional_id).await
    }
}
