//! Presence reports on their way to the log, in order, none lost while the process lives.
//!
//! Domain layer over the Bus port. A connection reserves the room for both of its reports before it is admitted, so
//! that reporting never waits and the queue is bounded: while the log hangs and the room is used up, nobody new is
//! admitted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_bus::{Bus, Headers, Outgoing, Record, Topic};
use drover_mqtt::Version;
use drover_proto::ingress::v1::{Connected, Disconnected, NodeStarted, PresenceReport, presence_report::What};
use drover_types::Clock;
use prost::Message as _;
use tokio::sync::{Notify, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::domain::sessions::{Presence, Protocol, Report};

pub use drover_types::PRESENCE_TOPIC;

/// Reports waiting or reserved beside those of the connections there may be: reconnects while the log hangs.
const REPORTS_BESIDE: usize = 100_000;
/// Reports of one connection: connected, disconnected.
const REPORTS_PER_CONNECTION: u32 = 2;
/// Reports in one append.
const BATCH_MAX: usize = 512;
/// Time from one append to the next, unless there is a whole one to write: each costs the log a sync, and the registry a
/// transaction. A report after a quiet time is written at once.
const GATHER: Duration = Duration::from_millis(50);
/// Wait before an append that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The reports of this node.
pub struct Reports {
    room: Semaphore,
    /// With the time of each, milliseconds since the Unix epoch.
    waiting: Mutex<VecDeque<(u64, Report)>>,
    more: Notify,
}

impl Default for Reports {
    fn default() -> Self {
        Self::of(0)
    }
}

impl Reports {
    /// Of a node with at most `connections` at once.
    pub fn of(connections: usize) -> Self {
        let room = REPORTS_BESIDE + connections * REPORTS_PER_CONNECTION as usize;
        Self { room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)), waiting: Mutex::default(), more: Notify::new() }
    }

    /// Waits for the room that both reports of a connection take.
    pub async fn reserve(&self) {
        let permits = self.room.acquire_many(REPORTS_PER_CONNECTION).await;
        permits.expect("the semaphore is never closed").forget();
    }

    /// Gives back what [`Reports::reserve`] took, for a connection that was not admitted.
    pub fn release(&self) {
        self.room.add_permits(REPORTS_PER_CONNECTION as usize);
    }

    /// Adds a report, for which there is room.
    pub fn push(&self, time_ms: u64, report: Report) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((time_ms, report));
        self.more.notify_one();
    }

    fn front(&self) -> Vec<(u64, Report)> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.iter().take(BATCH_MAX).cloned().collect()
    }

    fn count(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn done(&self, count: usize) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.drain(..count);
        if waiting.is_empty() {
            waiting.shrink_to(BATCH_MAX); // what a burst has taken is not kept
        }
        drop(waiting);
        self.room.add_permits(count);
    }

    /// Writes reports until `stop`, and then those that wait. First of all the node says that it has started.
    pub async fn run(&self, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, node: &str, boot: u32, stop: CancellationToken) {
        let Some(()) = stop.run_until_cancelled(announce(&*bus, &*clock, node, boot)).await else { return };
        let mut gather = tokio::time::interval(GATHER);
        gather.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let topic = Topic::from(PRESENCE_TOPIC);
        loop {
            if (1..BATCH_MAX).contains(&self.count()) {
                stop.run_until_cancelled(gather.tick()).await;
            }
            let batch = self.front();
            if !batch.is_empty() {
                let records =
                    batch.iter().map(|(time_ms, report)| outgoing(&topic, node, boot, *time_ms, report)).collect();
                append(&*bus, records).await;
                self.done(batch.len());
            } else if stop.run_until_cancelled(self.more.notified()).await.is_none() {
                return;
            }
        }
    }
}

/// Says to every partition that whatever this node reported under an earlier boot is over.
async fn announce(bus: &dyn Bus, clock: &dyn Clock, node: &str, boot: u32) {
    let partitions = partitions(bus).await;
    let report = PresenceReport {
        node: node.to_owned(),
        boot: u64::from(boot),
        time_ms: clock.now_ms(),
        what: Some(What::NodeStarted(NodeStarted {})),
        ..PresenceReport::default()
    };
    let topic = Topic::from(PRESENCE_TOPIC);
    let record = |partition| Outgoing { partition: Some(partition), ..encode(&topic, None, &report) };
    append(bus, (0..partitions).map(record).collect()).await;
}

/// The number of partitions, once the registry has made the topic.
async fn partitions(bus: &dyn Bus) -> u32 {
    loop {
        let topics = bus.topics().await.unwrap_or_default();
        if let Some(topic) = topics.iter().find(|topic| &*topic.topic == PRESENCE_TOPIC) {
            return topic.partitions;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Appends until it is durable. A repeat after an unknown fate is harmless: the registry drops epochs it has seen.
async fn append(bus: &dyn Bus, records: Vec<Outgoing>) {
    loop {
        let failure = match bus.append(records.clone()).await {
            Ok(receipt) => match receipt.await {
                Ok(_) => return,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::warn!(error = failure, "presence is not stored yet, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

fn outgoing(topic: &Topic, node: &str, boot: u32, time_ms: u64, report: &Report) -> Outgoing {
    let publisher = &report.publisher;
    let what = match &report.what {
        Presence::Connected { peer, version } => {
            let protocol = match version {
                Protocol::Mqtt(Version::V311) => "mqtt3.1.1",
                Protocol::Mqtt(Version::V5) => "mqtt5",
                Protocol::Coap => "coap",
            };
            What::Connected(Connected { peer: peer.to_string(), protocol: protocol.to_owned() })
        }
        Presence::Disconnected { reason } => What::Disconnected(Disconnected { reason: reason.name().to_owned() }),
    };
    let wire = PresenceReport {
        tenant: publisher.tenant.to_string(),
        device: publisher.device.to_string(),
        client: publisher.client.to_string(),
        node: node.to_owned(),
        epoch: publisher.epoch,
        time_ms,
        what: Some(what),
        boot: u64::from(boot),
    };
    encode(topic, Some(format!("{}/{}", publisher.tenant, publisher.device)), &wire)
}

fn encode(topic: &Topic, key: Option<String>, report: &PresenceReport) -> Outgoing {
    let record = Record {
        key: key.map(Into::into),
        value: Some(report.encode_to_vec().into()),
        headers: Headers::default(),
        timestamp_ms: i64::try_from(report.time_ms).unwrap_or(i64::MAX),
    };
    Outgoing::keyed(Arc::clone(topic), record)
}

#[cfg(test)]
mod tests {
    use drover_bus::{TopicConfig, TopicPartition};
    use drover_sim::{BusFaults, SimBus};
    use drover_types::{ClientId, DeviceId, FixedClock, TenantId};
    use tokio::time::Instant;

    use super::*;
    use crate::domain::message::Publisher;

    fn report(epoch: u64) -> Report {
        let (tenant, device) = (TenantId::default_tenant(), DeviceId::new("d").expect("valid"));
        let publisher = Publisher { tenant, device, client: ClientId::new("d").expect("valid"), epoch };
        let peer = "10.0.0.1:5".parse().expect("an address");
        Report { publisher, what: Presence::Connected { peer, version: Protocol::Coap } }
    }

    /// Epochs of the connections reported in the log.
    async fn epochs(bus: &SimBus) -> Vec<u64> {
        let at = TopicPartition::new(PRESENCE_TOPIC, 0);
        let stored = bus.read(&at, 0, 1 << 24, Duration::ZERO).await.expect("readable");
        let reports = stored.iter().map(|stored| stored.record.value.as_deref().unwrap_or_default());
        let reports = reports.map(|value| PresenceReport::decode(value).expect("a report"));
        reports.filter(|report| matches!(report.what, Some(What::Connected(_)))).map(|report| report.epoch).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_report_is_written_at_once_a_burst_together_and_at_the_end_all() {
        let bus = Arc::new(SimBus::new(1, BusFaults::default()));
        let topic = Topic::from(PRESENCE_TOPIC);
        let config = TopicConfig { topic, partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
        bus.create_topic(config).await.expect("created");
        let (reports, stop) = (Arc::new(Reports::of(1_000)), CancellationToken::new());
        let running = tokio::spawn({
            let (reports, bus, stop) = (reports.clone(), bus.clone(), stop.clone());
            async move { reports.run(bus, Arc::new(FixedClock::at(1)), "n", 1, stop).await }
        });
        tokio::time::sleep(GATHER * 4).await;
        reports.push(1, report(1));
        tokio::time::sleep(GATHER / 5).await;
        assert_eq!(epochs(&bus).await, [1], "nothing else is there to wait for");
        reports.push(1, report(2));
        tokio::time::sleep(GATHER / 5).await;
        assert_eq!(epochs(&bus).await, [1], "one was just written");
        (3..=400).for_each(|epoch| reports.push(1, report(epoch)));
        tokio::time::sleep(GATHER).await;
        assert_eq!(epochs(&bus).await, (1..=400).collect::<Vec<_>>(), "in their order");

        (0..BATCH_MAX * 4).for_each(|_| reports.push(1, report(500)));
        let began = Instant::now();
        while epochs(&bus).await.len() < 400 + BATCH_MAX * 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(began.elapsed() < GATHER / 2, "a whole batch does not wait: {:?}", began.elapsed());
        tokio::time::sleep(GATHER).await;
        let room = reports.waiting.lock().expect("not poisoned").capacity();
        assert!(room <= BATCH_MAX, "room for {room} is kept while nothing waits");
        reports.push(1, report(600));
        stop.cancel();
        running.await.expect("no panic");
        assert_eq!(epochs(&bus).await.last(), Some(&600), "what waits at the end is written");
    }
}
