//! Records carried out one by one: in order within a partition, partitions side by side, at least once.
//!
//! Nothing is passed over: a record that cannot be carried out now holds its partition up, which goes back to it and waits.
//! Offsets are committed as far as all before them is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{Bus, ConsumeError, Consumer, GroupConfig, Polled, Position, Start, Stored, TopicPartition};
use futures::future::join_all;
use tokio::time::Instant;

use crate::{Backoff, Shutdown};

/// Longest wait of one poll.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A member that hangs for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest one partition's turn may take before its last record, so that the member polls well within its session timeout.
const TURN: Duration = Duration::from_secs(10);

/// What is done with each record.
#[async_trait]
pub trait CarryOut: Send + Sync {
    /// Carries out one record, within 5 s or so. Done means done for good, also where the record is unreadable or is refused. The error says
    /// why it has to be tried again. The same record may come again after a crash.
    async fn carry_out(&self, stored: &Stored) -> Result<(), String>;
}

/// A member of a group that carries out the records of one topic.
pub struct InOrder {
    pub bus: Arc<dyn Bus>,
    pub group: &'static str,
    /// Unique among running members, the same after a restart.
    pub member: String,
    pub topic: &'static str,
    /// Records of one poll; after a crash they may be carried out again.
    pub poll_records: usize,
}

impl InOrder {
    /// Works until `shutdown`.
    pub async fn run(&self, work: &dyn CarryOut, shutdown: &Shutdown) {
        let mut backoff = Backoff::default();
        loop {
            let (group, topic) = (self.group, self.topic);
            match self.session(work, shutdown, &mut backoff).await {
                Ok(()) => return,
                Err(error @ ConsumeError::UnknownTopic { .. }) => {
                    tracing::debug!(group, %error, "waiting for its topic")
                }
                Err(error) => tracing::warn!(group, topic, %error, "begins again from the committed offsets"),
            }
            if !backoff.wait(shutdown).await {
                return;
            }
        }
    }

    async fn session(
        &self,
        work: &dyn CarryOut,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), ConsumeError> {
        let config = GroupConfig {
            group: self.group.to_owned(),
            member: self.member.clone(),
            topics: vec![self.topic.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
        };
        let mut consumer = self.bus.join(config).await?;
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                polled = consumer.poll(self.poll_records, POLL_WAIT) => polled?,
            };
            match polled {
                // Whatever was done is committed: nothing is in hand between two polls.
                Polled::Assigned(_) | Polled::Revoked(_) | Polled::Idle => {}
                Polled::Records(records) => {
                    if self.carry_out_all(work, records, &mut *consumer).await? {
                        backoff.reset();
                    } else if !backoff.wait(shutdown).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Carries records out, partitions side by side; false if some have to wait, to which their partition then goes back.
    async fn carry_out_all(
        &self,
        work: &dyn CarryOut,
        records: Vec<Stored>,
        consumer: &mut dyn Consumer,
    ) -> Result<bool, ConsumeError> {
        let mut partitions: BTreeMap<TopicPartition, Vec<Stored>> = BTreeMap::new();
        for stored in records {
            partitions.entry(stored.position.at.clone()).or_default().push(stored);
        }
        let turns = join_all(partitions.values().map(|records| self.turn(work, records))).await;
        consumer.commit(turns.iter().map(|(position, _)| position.clone()).collect()).await?;
        let mut all = true;
        for (position, done) in turns {
            if !done {
                all = false;
                consumer.seek(position).await?;
            }
        }
        Ok(all)
    }

    /// Carries out what one partition brought, in order; the offset to go on from, and whether all was done.
    async fn turn(&self, work: &dyn CarryOut, records: &[Stored]) -> (Position, bool) {
        let started = Instant::now();
        let mut next = records[0].position.clone();
        for stored in records {
            if started.elapsed() > TURN {
                return (next, false);
            }
            if let Err(reason) = work.carry_out(stored).await {
                let (group, partition, offset) = (self.group, next.at.partition, next.offset);
                tracing::debug!(group, partition, offset, reason, "a record waits");
                return (next, false);
            }
            next.offset = stored.position.offset + 1;
        }
        (next, true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
    use drover_bus::{Outgoing, Record, TopicConfig};

    use super::*;

    /// Remembers what it was given; fails so many times at the record `b`.
    struct Book {
        done: Mutex<Vec<String>>,
        failures: Mutex<u32>,
        shutdown: Shutdown,
        enough: usize,
    }

    #[async_trait]
    impl CarryOut for Book {
        async fn carry_out(&self, stored: &Stored) -> Result<(), String> {
            let value = String::from_utf8_lossy(stored.record.value.as_deref().unwrap_or_default()).into_owned();
            let mut failures = self.failures.lock().expect("not poisoned");
            if value == "b" && *failures > 0 {
                *failures -= 1;
                return Err("not yet".to_owned());
            }
            let mut done = self.done.lock().expect("not poisoned");
            done.push(value);
            if done.len() == self.enough {
                self.shutdown.cancel();
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_record_that_has_to_wait_holds_up_its_partition_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let bus = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("opens").0;
        let (topic, retention_ms, retention_bytes) = ("t".into(), None, None);
        let config = TopicConfig { topic, partitions: 2, compact: false, retention_ms, retention_bytes };
        bus.create_topic(config).await.expect("creates");
        for (partition, value) in [(0, "a"), (0, "b"), (0, "c"), (1, "x"), (1, "y")] {
            let record = Record { value: Some(value.into()), ..Record::default() };
            let outgoing = Outgoing { topic: "t".into(), partition: Some(partition), record };
            bus.append(vec![outgoing]).await.expect("is taken").await.expect("is acknowledged");
        }
        let shutdown = Shutdown::new();
        let book = Book { done: Mutex::default(), failures: Mutex::new(3), shutdown: shutdown.clone(), enough: 5 };
        let worker =
            InOrder { bus: Arc::new(bus.clone()), group: "g", member: "m".into(), topic: "t", poll_records: 10 };
        worker.run(&book, &shutdown).await;
        let done = book.done.lock().expect("not poisoned").clone();
        let of = |names: &str| done.iter().filter(|value| names.contains(value.as_str())).cloned().collect::<String>();
        assert_eq!((of("abc").as_str(), of("xy").as_str(), done.len()), ("abc", "xy", 5), "{done:?}");
        assert_eq!(done.last().map(String::as_str), Some("c"), "the other partition did not wait: {done:?}");
        let committed = bus.group_offsets("g").into_iter().map(|offset| offset.next).collect::<Vec<_>>();
        assert_eq!(committed, [3, 2]);
    }
}
