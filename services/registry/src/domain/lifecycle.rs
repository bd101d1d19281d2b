//! From reports to events: consumes `drover.presence`, writes `drover.events` exactly once, keeps the view behind.
//!
//! Events and consumer offsets are one transaction. The truth is the event log; sessions in memory and the view in
//! the store are restored from it, so after any failure this starts over from there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Offset, Outgoing, Partition, Polled, Position,
    ReadError, Record, Start, Stored, Topic, TopicPartition, TransactError, Transaction, Transactor,
};
use drover_host::Shutdown;
use drover_proto::ingress::v1::{PresenceReport, presence_report};
use drover_types::{ApiError, ClientId, Clock, Decimal, DeviceKey, Random, RecordId, header};
use prost::Message;

use super::nodes::Nodes;
use super::presence::{self, Event, Report, Sessions, What};
use super::topics::{EVENTS_TOPIC, PRESENCE_TOPIC};
use crate::ports::{PresenceChange, RegistryStore, SessionKey, StoreError};
use crate::telemetry::Telemetry;
use crate::wire;

/// The consumer group of the reports.
pub const GROUP: &str = "drover.registry.presence";
/// Reports in one transaction; bounds its events with a node's start, which may end every session of a partition.
const REPORTS_MAX: usize = 500;
/// How long a poll waits for a report.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of events read at once when a partition is restored.
const RESTORE_BYTES: usize = 1024 * 1024;
/// Random bytes of one event's id.
const ID_BYTES: usize = 10;
/// Pause before starting over.
const RETRY: Duration = Duration::from_millis(200);
/// How often clients long gone are looked for, in milliseconds.
const FORGET_EVERY_MS: u64 = 3600 * 1000;
/// Name of this part in `/readyz`.
const PART: &str = "presence";

/// Turns reports into events.
pub struct Lifecycle {
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn RegistryStore>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub telemetry: Arc<Telemetry>,
    /// Name of this process in its group.
    pub member: String,
    /// How long a client that is away is remembered, in milliseconds.
    pub keep_ms: u64,
    /// Which ingress nodes are lost; `None`: they are in this process, and end with it.
    pub nodes: Option<Arc<Nodes>>,
}

/// One partition of ours.
struct Owned {
    sessions: Sessions,
    /// Offset after the last event that is in `sessions`.
    next: Offset,
    /// Offset after the last report that is in `sessions`.
    reported: Offset,
    /// When clients long gone were last looked for.
    swept_ms: u64,
}

/// Why it starts over.
#[derive(Debug, thiserror::Error)]
enum LifecycleError {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Transact(#[from] TransactError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Lifecycle {
    /// Works until `shutdown`, which may interrupt it anywhere: a transaction happens wholly or not, and the rest is
    /// restored.
    pub async fn run(&self, shutdown: Shutdown) {
        shutdown.run_until_cancelled(self.work_for_ever()).await;
    }

    async fn work_for_ever(&self) {
        loop {
            let Err(error) = self.work().await;
            self.telemetry.obstacle(PART, &error);
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn work(&self) -> Result<std::convert::Infallible, LifecycleError> {
        let mut transactor = self.bus.transactor(&format!("{GROUP}.{}", self.member)).await?;
        let config = GroupConfig {
            group: GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![PRESENCE_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        let mut consumer = self.bus.join(config).await?;
        let mut owned: HashMap<Partition, Owned> = HashMap::new();
        loop {
            match consumer.poll(REPORTS_MAX, POLL_WAIT).await? {
                Polled::Assigned(positions) => {
                    for Position { at, offset } in positions {
                        owned.insert(at.partition, self.restore(at.partition, offset).await?);
                    }
                }
                Polled::Revoked(partitions) => partitions.iter().for_each(|at| drop(owned.remove(&at.partition))),
                Polled::Records(reports) => {
                    let membership = consumer.membership();
                    let (records, offsets) = self.advance(&mut owned, reports);
                    let transaction = Transaction { records, offsets: Some((membership, offsets)) };
                    self.commit(&mut *transactor, transaction, &mut owned).await?;
                }
                Polled::Idle => {}
            }
            let ends = self.end_lost(&mut owned, &*consumer);
            if let Some(transaction) = ends {
                self.commit(&mut *transactor, transaction, &mut owned).await?;
            }
            match consumer.stalled().first() {
                None => self.telemetry.working(PART),
                Some(stalled) => self.telemetry.waiting(PART, &stalled.to_string()),
            }
        }
    }

    /// The view, and the events it has not seen; `reported` is where the reports go on.
    async fn restore(&self, partition: Partition, reported: Offset) -> Result<Owned, LifecycleError> {
        let view = self.store.presence(partition).await?;
        let at = TopicPartition::new(EVENTS_TOPIC, partition);
        let bounds = self.bus.bounds(&at).await?;
        let mut next = view.next.unwrap_or(bounds.earliest).clamp(bounds.earliest, bounds.end);
        let mut sessions = Sessions::restored(view.sessions);
        while next < bounds.end {
            let events = self.bus.read(&at, next, RESTORE_BYTES, Duration::ZERO).await?;
            let Some(last) = events.last() else { break };
            next = last.position.offset + 1;
            for Stored { position, record } in events {
                match presence::from_json(record.value.as_deref().unwrap_or_default()) {
                    Ok(event) => sessions.replay(&event),
                    Err(error) => self.telemetry.malformed(EVENTS_TOPIC, &position, &error),
                }
            }
        }
        let mut owned = Owned { sessions, next, reported, swept_ms: 0 };
        if let Some(change) = self.changes(partition, &mut owned) {
            self.store.put_presence(vec![change]).await?;
        }
        Ok(owned)
    }

    /// The events of some reports, and the offsets after them.
    fn advance(&self, owned: &mut HashMap<Partition, Owned>, reports: Vec<Stored>) -> (Arc<[Outgoing]>, Vec<Position>) {
        let mut told = Vec::new();
        let mut offsets: HashMap<Partition, Position> = HashMap::new();
        for Stored { position, record } in reports {
            let partition = position.at.partition;
            let owned = owned.get_mut(&partition).expect("records follow their partition's assignment");
            owned.reported = position.offset + 1;
            match events(&mut owned.sessions, record.value.as_deref().unwrap_or_default()) {
                Ok(events) => told.extend(events.into_iter().map(|event| (partition, event))),
                Err(error) => self.telemetry.malformed(PRESENCE_TOPIC, &position, &error),
            }
            offsets.insert(partition, Position { offset: position.offset + 1, at: position.at });
        }
        (self.records(&told), offsets.into_values().collect())
    }

    /// The ends of the sessions of nodes that are lost, fenced by where the reports stand: whoever has lost a partition
    /// ends nothing in it.
    fn end_lost(&self, owned: &mut HashMap<Partition, Owned>, consumer: &dyn Consumer) -> Option<Transaction> {
        let nodes = self.nodes.as_ref()?;
        let holders: BTreeSet<&str> = owned.values().flat_map(|owned| owned.sessions.holders()).collect();
        let lost = nodes.lost(holders.into_iter().map(str::to_owned));
        let (mut told, mut offsets) = (Vec::new(), Vec::new());
        for (partition, owned) in owned {
            let now_ms = self.clock.now_ms();
            let events: Vec<Event> = lost.iter().flat_map(|node| owned.sessions.node_gone(node, now_ms)).collect();
            if !events.is_empty() {
                told.extend(events.into_iter().map(|event| (*partition, event)));
                let at = TopicPartition::new(PRESENCE_TOPIC, *partition);
                offsets.push(Position { at, offset: owned.reported });
            }
        }
        let offsets = Some((consumer.membership(), offsets));
        (!told.is_empty()).then(|| Transaction { records: self.records(&told), offsets })
    }

    async fn commit(
        &self,
        transactor: &mut dyn Transactor,
        transaction: Transaction,
        owned: &mut HashMap<Partition, Owned>,
    ) -> Result<(), LifecycleError> {
        let reported: Vec<Partition> =
            transaction.offsets.iter().flat_map(|(_, offsets)| offsets).map(|p| p.at.partition).collect();
        let events = transactor.commit(transaction).await?;
        self.telemetry.events(events.len());
        for Position { at, offset } in events {
            if let Some(owned) = owned.get_mut(&at.partition) {
                owned.next = owned.next.max(offset + 1);
            }
        }
        let mut changes = Vec::with_capacity(reported.len());
        for partition in reported {
            if let Some(owned) = owned.get_mut(&partition) {
                changes.extend(self.changes(partition, owned));
            }
        }
        if !changes.is_empty() {
            self.store.put_presence(changes).await?;
        }
        Ok(())
    }

    /// What the view of a partition lacks; `None`: nothing.
    fn changes(&self, partition: Partition, owned: &mut Owned) -> Option<PresenceChange> {
        let now_ms = self.clock.now_ms();
        if now_ms.saturating_sub(owned.swept_ms) >= FORGET_EVERY_MS {
            owned.sessions.forget_before(now_ms.saturating_sub(self.keep_ms));
            owned.swept_ms = now_ms;
        }
        let sessions = owned.sessions.take_changes();
        (!sessions.is_empty()).then_some(PresenceChange { partition, next: owned.next, sessions })
    }

    /// The records of these events; the random parts of their ids are drawn together.
    fn records(&self, told: &[(Partition, Event)]) -> Arc<[Outgoing]> {
        let mut drawn = vec![0_u8; told.len() * ID_BYTES];
        self.random.fill(&mut drawn);
        let (ids, _) = drawn.as_chunks::<ID_BYTES>();
        let topic: Topic = EVENTS_TOPIC.into();
        told.iter().zip(ids).map(|((partition, event), id)| record(&topic, *partition, event, *id)).collect()
    }
}

fn record(topic: &Topic, partition: Partition, event: &Event, random: [u8; ID_BYTES]) -> Outgoing {
    let id = RecordId::at(event.time_ms, random);
    let record = Record {
        key: Some(event.key.device.to_text().into()),
        value: Some(presence::to_json(event).into()),
        headers: [(header::ID, &id.0[..]), (header::TIME, Decimal::of(event.time_ms).as_bytes())].into(),
        timestamp_ms: i64::try_from(event.time_ms).unwrap_or(i64::MAX),
    };
    Outgoing { topic: Arc::clone(topic), partition: Some(partition), record }
}

/// The events a report's record amounts to.
fn events(sessions: &mut Sessions, value: &[u8]) -> Result<Vec<Event>, ApiError> {
    let malformed = |e: prost::DecodeError| ApiError::invalid("value", e.to_string());
    let report = PresenceReport::decode(value).map_err(malformed)?;
    // Before reports had a boot of their own it was the upper half of their epochs.
    let boot = if report.boot == 0 { report.epoch >> 32 } else { report.boot };
    let what = match report.what.as_ref() {
        Some(presence_report::What::Connected(connected)) => What::Connected { ip: presence::ip_of(&connected.peer) },
        Some(presence_report::What::Disconnected(disconnected)) => {
            What::Disconnected { reason: disconnected.reason.clone() }
        }
        Some(presence_report::What::NodeStarted(_)) => {
            return Ok(sessions.node_started(&report.node, boot, report.time_ms));
        }
        None => return Err(ApiError::invalid("what", "is missing")),
    };
    let device =
        DeviceKey { tenant: wire::tenant("tenant", &report.tenant)?, device: wire::device("device", &report.device)? };
    let client = ClientId::new(&report.client).map_err(|e| ApiError::invalid("client", e.to_string()))?;
    let key = SessionKey { device, client };
    let PresenceReport { node, epoch, time_ms, .. } = report;
    Ok(sessions.report(Report { key, node, boot, epoch, time_ms, what }))
}
