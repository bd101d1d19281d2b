//! One member of a consumer group.
//!
//! Steps of the group's handshake come first, then records, partition by partition in turn. Everything a poll brings is
//! taken and returned without waiting in between, so a dropped poll loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::command::{Command, Commit, CommitError, Committer};
use super::groups::{Fenced, Step};
use super::topic::{TopicLog, listen};
use super::{EmbeddedBus, reader};
use crate::{
    ConsumeError, Consumer, GroupConfig, Membership, Offset, Polled, Position, ReadError, Stalled, Start, Stored,
    TopicPartition,
};

/// A partition that could not be read is tried again after this time.
const STALL_RETRY: Duration = Duration::from_secs(2);
/// Bytes of records one poll brings at most, but at least one record.
const POLL_BYTES_MAX: usize = 1024 * 1024;

/// A consumer of the embedded log.
pub(super) struct GroupMember {
    bus: EmbeddedBus,
    membership: Membership,
    /// Generation it joined with.
    joined: u64,
    changed: Arc<Notify>,
    topics: Vec<Arc<TopicLog>>,
    start: Start,
    /// Next offset to read of each partition held.
    positions: BTreeMap<TopicPartition, Offset>,
    /// The partition read last, so that all get their turn.
    turn: Option<TopicPartition>,
    /// Partitions held that could not be read where they stand.
    stalls: BTreeMap<TopicPartition, Stall>,
}

/// A partition that waits because it cannot be read.
struct Stall {
    stalled: Stalled,
    again_at: Instant,
}

/// Marks the member as polling for as long as it lives.
struct Polling {
    bus: EmbeddedBus,
    group: String,
    member: String,
    joined: u64,
}

impl GroupMember {
    pub fn join(bus: EmbeddedBus, config: GroupConfig) -> Result<Self, ConsumeError> {
        let topic = |name: &crate::Topic| {
            bus.shared().topic(name).ok_or_else(|| ConsumeError::UnknownTopic { topic: name.to_string() })
        };
        let topics = config.topics.iter().map(topic).collect::<Result<Vec<_>, _>>()?;
        let counts = |topic: &str| bus.shared().partitions(topic);
        let (membership, changed) = bus.shared().groups().join(&config, Instant::now(), &counts);
        let joined = membership.generation;
        Ok(Self {
            bus,
            membership,
            joined,
            changed,
            topics,
            start: config.start,
            positions: BTreeMap::new(),
            turn: None,
            stalls: BTreeMap::new(),
        })
    }

    fn fenced(&self) -> ConsumeError {
        ConsumeError::Fenced { group: self.membership.group.clone(), member: self.membership.member.clone() }
    }

    fn polling(&self) -> Result<Polling, Fenced> {
        self.bus.shared().groups().polling(&self.membership, Instant::now())?;
        let Membership { group, member, generation: _ } = self.membership.clone();
        Ok(Polling { bus: self.bus.clone(), group, member, joined: self.joined })
    }

    /// The next step of the group's handshake.
    fn step(&mut self, again: bool) -> Result<Option<Polled>, Fenced> {
        let bus = self.bus.clone();
        let counts = |topic: &str| bus.shared().partitions(topic);
        let step = bus.shared().groups().step(&mut self.membership, again, Instant::now(), &counts)?;
        Ok(match step {
            Step::Nothing => None,
            Step::Revoked(partitions) => {
                self.positions.retain(|at, _| !partitions.contains(at));
                self.stalls.retain(|at, _| !partitions.contains(at));
                Some(Polled::Revoked(partitions))
            }
            Step::Gained(partitions) => {
                let positions: Vec<_> = partitions.into_iter().map(|at| self.starting(at)).collect();
                self.positions.extend(positions.iter().map(|p| (p.at.clone(), p.offset)));
                Some(Polled::Assigned(positions))
            }
        })
    }

    fn starting(&self, at: TopicPartition) -> Position {
        let bounds = self.bus.shared().partition(&at).map(|topic| topic.view().bounds(at.partition));
        let committed = self.bus.shared().kept().committed(&self.membership.group, &at);
        let offset = committed.unwrap_or_else(|| match self.start {
            Start::Earliest => bounds.map_or(0, |b| b.earliest),
            Start::End => bounds.map_or(0, |b| b.end),
        });
        Position { at, offset }
    }

    /// Records of partitions in turn; empty if there are none. A partition that cannot be read is left out for a while, so
    /// that the others go on.
    async fn read(&mut self, records_max: usize) -> Vec<Stored> {
        let mut order: Vec<TopicPartition> = self.positions.keys().cloned().collect();
        let first = order.iter().position(|at| Some(at) > self.turn.as_ref()).unwrap_or(0);
        order.rotate_left(first);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for at in order {
            if records.len() >= records_max.max(1) || bytes >= POLL_BYTES_MAX {
                break;
            }
            let from = self.position(&at);
            let Some(topic) = self.bus.shared().partition(&at) else { continue };
            if from >= topic.view().bounds(at.partition).end || self.waits(&at) {
                continue;
            }
            let limit = reader::Limit { bytes: POLL_BYTES_MAX - bytes, records: records_max.max(1) - records.len() };
            match reader::read(&topic, at.partition, from, limit).await {
                Ok(read) => {
                    self.goes_on(&at);
                    bytes += read.iter().map(|stored| stored.record.bytes()).sum::<usize>();
                    records.extend(read);
                }
                // Retention has overtaken it just now: the next poll goes on behind.
                Err(ReadError::OutOfRange { .. }) => {}
                Err(error) => self.stall(Position { at: at.clone(), offset: from }, error),
            }
            self.turn = Some(at);
        }
        for stored in &records {
            self.positions.insert(stored.position.at.clone(), stored.position.offset + 1);
        }
        records
    }

    fn waits(&self, at: &TopicPartition) -> bool {
        self.stalls.get(at).is_some_and(|stall| Instant::now() < stall.again_at)
    }

    fn stall(&mut self, position: Position, error: ReadError) {
        let at = position.at.clone();
        if !self.stalls.contains_key(&at) {
            let group = &self.membership.group;
            tracing::error!(group, topic = &*at.topic, at.partition, position.offset, %error, "a partition stands still");
        }
        let stalled = Stalled { position, error };
        self.stalls.insert(at, Stall { stalled, again_at: Instant::now() + STALL_RETRY });
    }

    fn goes_on(&mut self, at: &TopicPartition) {
        if self.stalls.remove(at).is_some() {
            tracing::info!(group = self.membership.group, topic = &*at.topic, at.partition, "a partition goes on");
        }
    }

    /// Where to read on; moved to the first kept record if retention has overtaken it.
    fn position(&mut self, at: &TopicPartition) -> Offset {
        let position = self.positions[at];
        let Some(topic) = self.bus.shared().partition(at) else { return position };
        let earliest = topic.view().bounds(at.partition).earliest;
        if position < earliest {
            let group = &self.membership.group;
            tracing::warn!(group, topic = &*at.topic, at.partition, position, earliest, "records expired unread");
        }
        position.max(earliest)
    }
}

#[async_trait]
impl Consumer for GroupMember {
    async fn poll(&mut self, records_max: usize, wait: Duration) -> Result<Polled, ConsumeError> {
        let deadline = Instant::now() + wait;
        let mut again = true;
        let _polling = self.polling().map_err(|Fenced| self.fenced())?;
        loop {
            // Listening begins before looking, so that nothing that happens in between is missed.
            let (changed, topics) = (self.changed.clone(), self.topics.clone());
            let waits = listen(std::iter::once(&*changed).chain(topics.iter().map(|topic| &topic.changed)));
            if let Some(polled) = self.step(std::mem::take(&mut again)).map_err(|Fenced| self.fenced())? {
                return Ok(polled);
            }
            let records = self.read(records_max).await;
            if !records.is_empty() {
                return Ok(Polled::Records(records));
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Polled::Idle);
            }
            let expiry = self.bus.shared().groups().next_expiry(&self.membership.group);
            let retry = self.stalls.values().map(|stall| stall.again_at).filter(|at| *at > now).min();
            let until = expiry.into_iter().chain(retry).min().map_or(deadline, |at| at.clamp(now, deadline));
            drop(tokio::time::timeout_at(until, select_all(waits)).await);
        }
    }

    async fn commit(&mut self, next: Vec<Position>) -> Result<(), ConsumeError> {
        let (answer, answered) = oneshot::channel();
        let offsets = Some(Committer::Member(self.membership.clone(), next));
        let commit = Commit { transactor: None, topics: Vec::new(), offsets, answer };
        let unavailable = |reason| ConsumeError::Unavailable { reason };
        self.bus.send(1, 0, Command::Commit(commit)).await.map_err(unavailable)?;
        match answered.await.unwrap_or_else(|_| Err(CommitError::Unknown(super::CLOSED.into()))) {
            Ok(_) => Ok(()),
            Err(CommitError::Rebalanced | CommitError::Superseded) => Err(self.fenced()),
            Err(CommitError::TopicGone(topic)) => Err(ConsumeError::UnknownTopic { topic }),
            Err(CommitError::Undone(reason) | CommitError::Unknown(reason)) => Err(unavailable(reason)),
        }
    }

    async fn seek(&mut self, to: Position) -> Result<(), ConsumeError> {
        match self.positions.get_mut(&to.at) {
            Some(position) => *position = to.offset,
            None => return Err(self.fenced()),
        }
        self.stalls.remove(&to.at);
        Ok(())
    }

    fn membership(&self) -> Membership {
        self.membership.clone()
    }

    fn stalled(&self) -> Vec<Stalled> {
        self.stalls.values().map(|stall| stall.stalled.clone()).collect()
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        let counts = |topic: &str| self.bus.shared().partitions(topic);
        self.bus.shared().groups().leave(&self.membership, Instant::now(), &counts);
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.bus.shared().groups().polled(&self.group, &self.member, self.joined, Instant::now());
    }
}
