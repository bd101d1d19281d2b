//! A log in memory, with a wish for every failure a live stream must survive.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use drover_bus::{
    AdminError, AppendError, Bounds, Bus, ConsumeError, Consumer, GroupConfig, Offset, Outgoing, Partition, Position,
    ReadError, Receipt, Record, Stored, TopicConfig, TopicPartition, TransactError, Transactor, partition_of,
};
use tokio::sync::Notify;

/// Partitions of every topic.
const PARTITIONS: Partition = 2;

/// Topics with their records; only what the gateway needs works.
#[derive(Default)]
pub struct FakeBus {
    records: Mutex<Vec<(TopicPartition, Vec<Record>)>>,
    /// First kept offset of every partition; one that has not come so far is empty.
    pub earliest: Mutex<Offset>,
    appended: Notify,
}

impl FakeBus {
    pub fn with_topics(topics: &[&str]) -> Self {
        let bus = Self::default();
        for topic in topics {
            for partition in 0..PARTITIONS {
                bus.records.lock().unwrap().push((TopicPartition::new(*topic, partition), Vec::new()));
            }
        }
        bus
    }

    /// Adds a record to the partition of its key.
    pub fn put(&self, topic: &str, record: Record) {
        let partition = partition_of(record.key.as_deref().unwrap_or_default(), PARTITIONS);
        let at = TopicPartition::new(topic, partition);
        let mut records = self.records.lock().unwrap();
        records.iter_mut().find(|(found, _)| *found == at).expect("topic exists").1.push(record);
        drop(records);
        self.appended.notify_waiters();
    }

    fn of<T>(&self, at: &TopicPartition, look: impl FnOnce(&[Record]) -> T) -> Result<T, ReadError> {
        let records = self.records.lock().unwrap();
        let found = records.iter().find(|(found, _)| found == at);
        found.map(|(_, records)| look(records)).ok_or_else(|| ReadError::Unknown { at: at.clone() })
    }

    fn now(&self, at: &TopicPartition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, ReadError> {
        let earliest = *self.earliest.lock().unwrap();
        self.of(at, |records| {
            let end = records.len() as Offset;
            let earliest = earliest.min(end);
            if from < earliest || from > end {
                return Err(ReadError::OutOfRange { from, earliest, end });
            }
            let mut bytes = 0;
            let fits = |(_, record): &(Offset, &Record)| {
                let first = bytes == 0;
                bytes += record.bytes().max(1);
                first || bytes <= bytes_max
            };
            let stored = |(offset, record): (Offset, &Record)| Stored {
                position: Position { at: at.clone(), offset },
                record: record.clone(),
            };
            Ok((from..).zip(&records[from as usize..]).take_while(fits).map(stored).collect())
        })?
    }
}

fn unavailable() -> String {
    "not part of this fake".into()
}

#[async_trait]
impl Bus for FakeBus {
    async fn create_topic(&self, _: TopicConfig) -> Result<bool, AdminError> {
        Err(AdminError::Unavailable { reason: unavailable() })
    }

    async fn delete_topic(&self, _: &str) -> Result<(), AdminError> {
        Err(AdminError::Unavailable { reason: unavailable() })
    }

    async fn topics(&self) -> Result<Vec<TopicConfig>, AdminError> {
        Err(AdminError::Unavailable { reason: unavailable() })
    }

    async fn append(&self, _: Vec<Outgoing>) -> Result<Receipt, AppendError> {
        Err(AppendError::Unavailable { reason: unavailable() })
    }

    async fn read(
        &self,
        at: &TopicPartition,
        from: Offset,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Stored>, ReadError> {
        let appended = self.appended.notified();
        let found = self.now(at, from, bytes_max)?;
        if !found.is_empty() || tokio::time::timeout(wait, appended).await.is_err() {
            return Ok(found);
        }
        self.now(at, from, bytes_max)
    }

    async fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        let earliest = *self.earliest.lock().unwrap();
        self.of(at, |records| Bounds { earliest: earliest.min(records.len() as Offset), end: records.len() as Offset })
    }

    async fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        self.of(at, |records| records.partition_point(|record| record.timestamp_ms < timestamp_ms) as Offset)
    }

    async fn join(&self, _: GroupConfig) -> Result<Box<dyn Consumer>, ConsumeError> {
        Err(ConsumeError::Unavailable { reason: unavailable() })
    }

    async fn committed(&self, _: &str, _: &str) -> Result<Vec<Position>, ReadError> {
        Err(ReadError::Unavailable { reason: unavailable() })
    }

    async fn transactor(&self, _: &str) -> Result<Box<dyn Transactor>, TransactError> {
        Err(TransactError::Aborted { reason: unavailable() })
    }
}
