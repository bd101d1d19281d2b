//! The records of a simulated bus: plain vectors in memory.

use std::collections::BTreeMap;

use drover_bus::{
    AdminError, AppendError, Bounds, Offset, Outgoing, Position, ReadError, Stored, Topic, TopicConfig, TopicPartition,
    partition_of,
};

/// Largest record, bytes; Kafka's default.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// Topics, their records, and committed offsets by group.
#[derive(Default)]
pub struct Log {
    topics: BTreeMap<Topic, (TopicConfig, Vec<Vec<Stored>>)>,
    committed: BTreeMap<(String, TopicPartition), Offset>,
}

impl Log {
    pub fn create(&mut self, config: TopicConfig) -> Result<bool, AdminError> {
        config.check()?;
        let topic = config.topic.to_string();
        match self.topics.get(&config.topic) {
            Some((there, _)) if there.partitions == config.partitions => Ok(false),
            Some((there, _)) => {
                Err(AdminError::Partitions { topic, existing: there.partitions, wanted: config.partitions })
            }
            None => {
                let empty = vec![Vec::new(); config.partitions as usize];
                self.topics.insert(config.topic.clone(), (config, empty));
                Ok(true)
            }
        }
    }

    pub fn delete(&mut self, topic: &str) -> Result<(), AdminError> {
        self.topics.remove(topic).ok_or_else(|| AdminError::Unknown { topic: topic.to_owned() })?;
        self.committed.retain(|(_, at), _| &*at.topic != topic);
        Ok(())
    }

    pub fn topics(&self) -> Vec<TopicConfig> {
        self.topics.values().map(|(config, _)| config.clone()).collect()
    }

    pub fn partitions(&self, topic: &str) -> Option<u32> {
        self.topics.get(topic).map(|(config, _)| config.partitions)
    }

    /// Checks a record and says which partition it goes to.
    pub fn place(&self, outgoing: &Outgoing) -> Result<TopicPartition, AppendError> {
        let topic = outgoing.topic.to_string();
        let partitions = self.partitions(&topic).ok_or(AppendError::UnknownTopic { topic: topic.clone() })?;
        let bytes = outgoing.record.bytes();
        if bytes > RECORD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes, limit: RECORD_BYTES_MAX });
        }
        let by_key = || outgoing.record.key.as_ref().map_or(0, |key| partition_of(key, partitions));
        let partition = outgoing.partition.unwrap_or_else(by_key);
        if partition >= partitions {
            return Err(AppendError::UnknownPartition { topic, partition });
        }
        Ok(TopicPartition { topic: outgoing.topic.clone(), partition })
    }

    /// Writes one record; `None` if its topic is gone.
    pub fn push(&mut self, outgoing: Outgoing) -> Option<Position> {
        let at = self.place(&outgoing).ok()?;
        let (_, partitions) = self.topics.get_mut(&at.topic)?;
        let records = &mut partitions[at.partition as usize];
        let position = Position { at, offset: records.len() as Offset };
        records.push(Stored { position: position.clone(), record: outgoing.record });
        Some(position)
    }

    fn records(&self, at: &TopicPartition) -> Result<&[Stored], ReadError> {
        let topic = self.topics.get(&at.topic);
        let records = topic.and_then(|(_, partitions)| partitions.get(at.partition as usize));
        records.map(Vec::as_slice).ok_or_else(|| ReadError::Unknown { at: at.clone() })
    }

    pub fn read(&self, at: &TopicPartition, from: Offset, bytes_max: usize) -> Result<Vec<Stored>, ReadError> {
        let records = self.records(at)?;
        let end = records.len() as Offset;
        if from > end {
            return Err(ReadError::OutOfRange { from, earliest: 0, end });
        }
        let mut bytes = 0;
        let fits = |stored: &&Stored| {
            let first = bytes == 0;
            bytes += stored.record.bytes().max(1);
            first || bytes <= bytes_max
        };
        Ok(records[from as usize..].iter().take_while(fits).cloned().collect())
    }

    pub fn bounds(&self, at: &TopicPartition) -> Result<Bounds, ReadError> {
        Ok(Bounds { earliest: 0, end: self.records(at)?.len() as Offset })
    }

    pub fn offset_at(&self, at: &TopicPartition, timestamp_ms: i64) -> Result<Offset, ReadError> {
        let records = self.records(at)?;
        let found = records.iter().position(|stored| stored.record.timestamp_ms >= timestamp_ms);
        Ok(found.unwrap_or(records.len()) as Offset)
    }

    pub fn commit(&mut self, group: &str, next: Vec<Position>) {
        for position in next {
            self.committed.insert((group.to_owned(), position.at), position.offset);
        }
    }

    pub fn committed(&self, group: &str, at: &TopicPartition) -> Option<Offset> {
        self.committed.get(&(group.to_owned(), at.clone())).copied()
    }
}
