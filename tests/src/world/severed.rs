//! A bus that can be taken away from one life of a service, as its death does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Membership, Offset, Outgoing, Polled,
    Position, ReadError, Receipt, Stalled, Stored, TopicConfig, TopicPartition, TransactError, Transaction, Transactor,
};
use drover_host::{Health, Metrics, Network, Ports, Sockets};
use drover_sim::{Broken, BrokenBus, SeededRandom, SimBus, VirtualClock};
use tokio_util::sync::CancellationToken;

/// After [`SeverableBus::sever`] no call begins, and none that has begun ends.
#[derive(Clone)]
pub struct SeverableBus {
    bus: SimBus,
    severed: CancellationToken,
}

impl SeverableBus {
    pub fn new(bus: SimBus) -> Self {
        Self { bus, severed: CancellationToken::new() }
    }

    pub fn sever(&self) {
        self.severed.cancel();
    }

    /// Cancelled when it is severed.
    pub fn severed(&self) -> CancellationToken {
        self.severed.clone()
    }

    /// What one life of a service is given that has this bus, broken as said: no disk, no socket, nothing outside the world.
    pub fn ports(
        &self,
        broken: Broken,
        clock: &Arc<VirtualClock>,
        random: &Arc<SeededRandom>,
        network: Network,
        service: &'static str,
    ) -> Ports {
        Ports {
            bus: Arc::new(BrokenBus::new(Arc::new(self.clone()), broken)),
            clock: clock.clone(),
            random: random.clone(),
            network,
            sockets: Sockets::default(),
            data: PathBuf::new(),
            metrics: Metrics::default(),
            cassandra: Default::default(),
            functions: Default::default(),
            ready: Health::default().service(service),
        }
    }
}

/// The answer, unless the line is cut before it comes.
pub(crate) async fn through<T>(severed: &CancellationToken, call: impl Future<Output = T>) -> T {
    match severed.run_until_cancelled(call).await {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

#[async_trait]
impl Bus for SeverableBus {
    async fn create_topic(&self, config: TopicConfig) -> Result<bool, AdminError> {
        through(&self.severed, self.bus.create_topic(config)).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        through(&self.severed, self.bus.delete_topic(topic)).await
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        through(&self.severed, self.bus.topics()).await
    }

    async fn append(&self, batch: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        let receipt = through(&self.severed, self.bus.append(batch)).await?;
        let severed = self.severed.clone();
        Ok(Box::pin(async move { through(&severed, receipt).await }))
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        through(&self.severed, self.bus.read(at, from, bytes_max, wait)).await
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        through(&self.severed, self.bus.bounds(at)).await
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        through(&self.severed, self.bus.offset_at(at, timestamp_ms)).await
    }

    async fn join(&self, config: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        let consumer = through(&self.severed, self.bus.join(config)).await?;
        Ok(Box::new(Severable { inner: consumer, severed: self.severed.clone() }))
    }

    async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Position>, ReadError> {
        through(&self.severed, self.bus.committed(group, topic)).await
    }

    async fn transactor(&self, transactional_id: &str) -> Result<Box<dyn Transactor>, TransactError> {
        let transactor = through(&self.severed, self.bus.transactor(transactional_id)).await?;
        Ok(Box::new(Severable { inner: transactor, severed: self.severed.clone() }))
    }
}

struct Severable<T> {
    inner: T,
    severed: CancellationToken,
}

#[async_trait]
impl Consumer for Severable<Box<dyn Consumer>> {
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError> {
        through(&self.severed, self.inner.poll(records_max, wait)).await
    }

    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError> {
        through(&self.severed, self.inner.commit(next)).await
    }

    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError> {
        through(&self.severed, self.inner.seek(to)).await
    }

    fn membership(&self) -> Membership {
        self.inner.membership()
    }

    fn stalled(&self) -> Vec<Stalled> {
        self.inner.stalled()
    }
}

#[async_trait]
impl Transactor for Severable<Box<dyn Transactor>> {
    async fn commit(&mut self, transaction: Transaction) -> Result<Vec<Position>, TransactError> {
        through(&self.severed, self.inner.commit(transaction)).await
    }
}
