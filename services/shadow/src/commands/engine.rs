//! The loop over `drover.commands`: what records make of commands goes into the store, and new commands go to the ingress.
//!
//! The store says how far it is, and what was folded once is not folded again. The group's offset lies before the first command
//! that is not sent yet: who comes after reads from there, so that a restart loses none; no list of unsent commands is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, ConsumeError, Consumer, GroupConfig, MAX_POLL_INTERVAL, Offset, Partition, Polled, Position, ReadError, Start,
    Stored, TopicPartition,
};
use drover_host::{Backoff, Shutdown};
use drover_types::command::COMMANDS_TOPIC;
use drover_types::{Clock, DeviceKey};
use futures::future::try_join_all;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::deliveries::{Deliveries, Due, Ended, Way};
use crate::domain::command::{CommandEvent, Commands, Event, MalformedCommand};
use crate::ports::{CommandRequest, CommandSender, Store, StoreError};
use crate::telemetry::Telemetry;

/// Consumer group of the loop.
pub const GROUP: &str = "drover.commands";
/// Records of one poll; of 64 KiB each at most.
const POLL_RECORDS: usize = 100;
/// How often the log is polled while there is no room for what it brings.
const POLL_WHILE_FULL: Duration = Duration::from_secs(1);
/// How often offsets are committed. Who comes after sends nothing twice for it: the store says what was sent.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long a poll waits for a record.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A process that is not heard of for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands through their log.
pub struct CommandEngine {
    pub bus: Arc<dyn Bus>,
    pub store: Arc<dyn Store>,
    pub sender: Arc<dyn CommandSender>,
    pub clock: Arc<dyn Clock>,
    pub telemetry: Telemetry,
    pub member: String,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("sending has panicked: {0}")]
    Panic(#[from] JoinError),
    #[error(
        "the shadow store has commands before offset {kept} of partition {partition}, {COMMANDS_TOPIC} ends at {end}: it is the view of another log"
    )]
    Ahead { partition: Partition, kept: Offset, end: Offset },
}

/// One membership, from joining to leaving.
struct Session<'e> {
    engine: &'e CommandEngine,
    consumer: Box<dyn Consumer>,
    owned: BTreeMap<Partition, Owned>,
    deliveries: Deliveries,
    way: Way,
    /// While there is no room: not polled before.
    poll_at: Instant,
    /// Not committed before.
    commit_at: Instant,
}

/// One partition of ours.
struct Owned {
    /// What is before it is in the store.
    folded: Offset,
    /// Next record to come. Before `folded` where commands may have to be sent again.
    next: Offset,
    committed: Offset,
}

/// What a turn waits for.
enum Turn {
    Stop,
    Polled(Polled),
    Sent(Ended),
}

/// A record of the log.
type Read = (Offset, Result<Event, MalformedCommand>);

impl CommandEngine {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let mut backoff = Backoff::default();
        loop {
            let ended = match self.join().await {
                Ok(mut session) => session.work(&shutdown, &mut backoff).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => return,
                Err(interrupted) => {
                    tracing::warn!(%interrupted, "commands begin again from the committed offsets");
                    self.telemetry.restarts.inc();
                }
            }
            if !backoff.wait(&shutdown).await {
                return;
            }
        }
    }

    async fn join(&self) -> Result<Session<'_>, Interrupted> {
        let config = GroupConfig {
            group: GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![COMMANDS_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
            max_poll_interval: MAX_POLL_INTERVAL,
        };
        let consumer = self.bus.join(config).await?;
        let way =
            Way { sender: Arc::clone(&self.sender), store: Arc::clone(&self.store), clock: Arc::clone(&self.clock) };
        let deliveries = Deliveries::new(self.telemetry.clone());
        let (poll_at, commit_at) = (Instant::now(), Instant::now());
        Ok(Session { engine: self, consumer, owned: BTreeMap::new(), deliveries, way, poll_at, commit_at })
    }

    /// The commands of the devices that records are about, as the store has them.
    async fn learned(&self, read: &[Read]) -> Result<Commands, StoreError> {
        let devices = read.iter().filter_map(|(_, event)| Some(event.as_ref().ok()?.device.clone()));
        let devices: BTreeSet<DeviceKey> = devices.collect();
        let heads = try_join_all(devices.iter().map(|device| self.store.command_heads(device))).await?;
        let mut commands = Commands::default();
        devices.into_iter().zip(heads).for_each(|(device, heads)| commands.learn(device, heads));
        Ok(commands)
    }
}

impl Session<'_> {
    async fn work(&mut self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), Interrupted> {
        loop {
            let now = Instant::now();
            let next = self.deliveries.begin(&self.way, now);
            if now >= self.commit_at {
                self.commit().await?;
                self.commit_at = now + COMMIT_EVERY;
            }
            let wait = next.map_or(POLL_WAIT, |at| at.saturating_duration_since(now).min(POLL_WAIT));
            let Self { consumer, deliveries, .. } = self;
            let not_before = if deliveries.is_full() { self.poll_at } else { now };
            let turn = tokio::select! {
                biased;
                () = shutdown.cancelled() => Turn::Stop,
                Some(ended) = deliveries.ended() => Turn::Sent(ended?),
                polled = poll(&mut **consumer, not_before, wait) => Turn::Polled(polled?),
            };
            match turn {
                Turn::Stop => {
                    self.deliveries.end().await;
                    return Ok(self.commit().await?);
                }
                Turn::Sent(ended) => self.settle(ended)?,
                Turn::Polled(polled) => {
                    self.poll_at = Instant::now() + POLL_WHILE_FULL;
                    self.take(polled).await?;
                    backoff.reset();
                }
            }
        }
    }

    /// What came of an attempt, and of all others that have ended by now.
    fn settle(&mut self, ended: Ended) -> Result<(), JoinError> {
        let now = Instant::now();
        self.deliveries.settle(ended, now);
        while let Some(ended) = self.deliveries.ended_already() {
            self.deliveries.settle(ended?, now);
        }
        Ok(())
    }

    async fn take(&mut self, polled: Polled) -> Result<(), Interrupted> {
        match polled {
            Polled::Idle => Ok(()),
            Polled::Assigned(positions) => {
                for position in positions {
                    self.own(position).await?;
                }
                Ok(())
            }
            Polled::Revoked(partitions) => {
                self.commit().await?;
                for at in partitions {
                    self.owned.remove(&at.partition);
                    self.deliveries.drop_partition(at.partition);
                }
                Ok(())
            }
            Polled::Records(records) => {
                let mut partitions: BTreeMap<Partition, Vec<Stored>> = BTreeMap::new();
                for stored in records {
                    partitions.entry(stored.position.at.partition).or_default().push(stored);
                }
                for (partition, records) in partitions {
                    self.fold(partition, &records).await?;
                }
                Ok(())
            }
        }
    }

    /// Begins where the group stands, or before that, where the store does.
    async fn own(&mut self, position: Position) -> Result<(), Interrupted> {
        let (at, CommandEngine { bus, store, .. }) = (position.at.clone(), self.engine);
        let partition = at.partition;
        let folded = store.commands_next(partition).await?.unwrap_or_default();
        let bounds = bus.bounds(&at).await?;
        if folded > bounds.end {
            return Err(Interrupted::Ahead { partition, kept: folded, end: bounds.end });
        }
        let next = position.offset.min(folded).max(bounds.earliest);
        if next != position.offset {
            self.consumer.seek(Position { at, offset: next }).await?;
        }
        tracing::info!(partition, offset = next, folded, "assigned");
        self.owned.insert(partition, Owned { folded, next, committed: position.offset });
        Ok(())
    }

    /// Takes what one partition brought: into the store, and what is to be sent onto its way.
    async fn fold(&mut self, partition: Partition, records: &[Stored]) -> Result<(), Interrupted> {
        let engine = self.engine;
        let Some(owned) = self.owned.get_mut(&partition) else { return Ok(()) };
        let Some((first, last)) = records.first().zip(records.last()) else { return Ok(()) };
        if self.deliveries.is_full() {
            // They are read again when there is room; until then the ingress is away, and no device answers.
            return Ok(self.consumer.seek(first.position.clone()).await?);
        }
        let read: Vec<Read> = records.iter().map(|stored| (stored.position.offset, Event::read(stored))).collect();
        let mut commands = engine.learned(&read).await?;
        for ((offset, event), stored) in read.iter().zip(records) {
            match event {
                Ok(_) if *offset < owned.folded => {}
                Ok(event) => engine.telemetry.command_record(commands.take(*offset, event)),
                Err(_) if *offset < owned.folded => {}
                Err(error) => engine.telemetry.malformed(&stored.position, error),
            }
        }
        // Those of a device that is gone, and those that are answered.
        self.deliveries.drop_over(|request| commands.is_over(&request.device, request.id));
        let due = read.into_iter().filter_map(|(offset, event)| due(offset, event.ok()?, &commands));
        let due: Vec<(Offset, Due)> = due.collect();
        let next = last.position.offset + 1;
        if next > owned.folded {
            engine.store.put_commands(partition, owned.folded, next, commands.changes()).await?;
            owned.folded = next;
        }
        owned.next = next;
        let now = Instant::now();
        due.into_iter().for_each(|(offset, due)| self.deliveries.push((partition, offset), due, now));
        Ok(())
    }

    /// Commits offsets up to the first command that is not sent.
    async fn commit(&mut self) -> Result<(), ConsumeError> {
        let mut positions = Vec::new();
        for (partition, owned) in &mut self.owned {
            let offset = self.deliveries.first(*partition).map_or(owned.next, |first| first.min(owned.next));
            if owned.committed != offset {
                owned.committed = offset;
                positions.push(Position { at: TopicPartition::new(COMMANDS_TOPIC, *partition), offset });
            }
        }
        if positions.is_empty() { Ok(()) } else { self.consumer.commit(positions).await }
    }
}

/// What a record asks to be sent; the time that it has is looked at when it is sent.
fn due(offset: Offset, event: Event, commands: &Commands) -> Option<(Offset, Due)> {
    let Event { device, what, .. } = event;
    let CommandEvent::Created { id, request, hops, .. } = what else { return None };
    let head = commands.head(&device, id).filter(|head| head.created_at == offset)?;
    if head.sent_ms.is_some() || head.answered.is_some() {
        return None;
    }
    Some((offset, Due { head: head.clone(), request: CommandRequest { device, id, payload: request, hops } }))
}

/// Polls, not before its time: the member has to be heard of, even where it has no room.
async fn poll(consumer: &mut dyn Consumer, not_before: Instant, wait: Duration) -> Result<Polled, ConsumeError> {
    tokio::time::sleep_until(not_before).await;
    consumer.poll(POLL_RECORDS, wait).await
}
