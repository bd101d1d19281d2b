//! A batch on its way to the writer: checked, shared out to partitions and encoded, on the producer's own task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::command::TopicSections;
use super::section::{SECTION_BYTES, Section};
use super::shared::Shared;
use super::topic::TopicLog;
use crate::{AppendError, Offset, Outgoing, Partition, Position, Record, Topic, TopicPartition, partition_of};

/// Where one record of the batch went: the partition, its section's number and its place in that.
struct Place {
    at: TopicPartition,
    slot: usize,
    delta: Offset,
}

/// An encoded batch.
pub(super) struct Batch {
    pub topics: Vec<TopicSections>,
    pub records: usize,
    pub bytes: usize,
    pub places: Places,
}

/// Where the records of a batch went, in the order given.
pub(super) struct Places(Vec<Place>);

impl Places {
    /// Positions, once the offset of each section is known.
    pub fn positions(self, offsets: &[Offset]) -> Vec<Position> {
        self.0.into_iter().map(|p| Position { at: p.at, offset: offsets[p.slot] + p.delta }).collect()
    }
}

/// Bytes that an encoded record has besides key, value and headers, about.
const RECORD_BYTES: usize = 48;

/// Numbers of the records of one partition.
type ByPartition = BTreeMap<Partition, Vec<usize>>;

impl Batch {
    /// Checks and encodes `batch`; nothing is taken unless all of it can be.
    pub fn encode(shared: &Shared, batch: &[Outgoing]) -> Result<Self, AppendError> {
        let mut topics: BTreeMap<u32, (Arc<TopicLog>, ByPartition)> = BTreeMap::new();
        let mut places = Vec::with_capacity(batch.len());
        let mut last: Option<(&Topic, Arc<TopicLog>)> = None;
        for (number, outgoing) in batch.iter().enumerate() {
            check_size(shared, &outgoing.record)?;
            // Most batches are for one topic, named by one string.
            let known = last.take().filter(|(name, _)| Arc::ptr_eq(name, &outgoing.topic)).map(|(_, topic)| topic);
            let topic = known
                .or_else(|| shared.topic(&outgoing.topic))
                .ok_or_else(|| AppendError::UnknownTopic { topic: outgoing.topic.to_string() })?;
            last = Some((&outgoing.topic, topic.clone()));
            let partition = choose(&topic, outgoing)?;
            places.push(Place { at: topic.partition(partition), slot: 0, delta: 0 });
            let (_, partitions) = topics.entry(topic.id).or_insert_with(|| (topic, ByPartition::new()));
            partitions.entry(partition).or_default().push(number);
        }
        let mut slots = 0;
        let topics = topics
            .into_values()
            .map(|(topic, partitions)| {
                let mut sections = Vec::new();
                for (partition, numbers) in partitions {
                    encode_partition(batch, partition, &numbers, slots, &mut sections, &mut places);
                }
                let first = slots;
                slots += sections.len();
                TopicSections { topic, slots: (first..slots).collect(), sections }
            })
            .collect();
        let bytes = batch.iter().map(|outgoing| outgoing.record.bytes()).sum();
        Ok(Self { topics, records: batch.len(), bytes, places: Places(places) })
    }
}

/// Encodes the records of one partition as sections of about [`SECTION_BYTES`].
fn encode_partition(
    batch: &[Outgoing],
    partition: Partition,
    numbers: &[usize],
    first_slot: usize,
    sections: &mut Vec<Section>,
    places: &mut [Place],
) {
    let mut rest = numbers;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |number: &&usize| {
            let fits = bytes < SECTION_BYTES;
            bytes += batch[**number].record.bytes();
            fits
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
        for (delta, number) in (0..).zip(now) {
            places[*number].slot = first_slot + sections.len();
            places[*number].delta = delta;
        }
        let records = (0..).zip(now.iter().map(|number| &batch[*number].record));
        sections.push(Section::encode_within(partition, records, bytes + now.len() * RECORD_BYTES));
        rest = later;
    }
}

/// Refuses a record that is too large.
pub(super) fn check_size(shared: &Shared, record: &Record) -> Result<(), AppendError> {
    let (bytes, limit) = (record.bytes(), shared.options.record_bytes_max);
    if bytes > limit { Err(AppendError::TooLarge { bytes, limit }) } else { Ok(()) }
}

fn choose(topic: &TopicLog, outgoing: &Outgoing) -> Result<Partition, AppendError> {
    let partitions = topic.config.partitions;
    match (outgoing.partition, &outgoing.record.key) {
        (Some(partition), _) if partition >= partitions => {
            Err(AppendError::UnknownPartition { topic: topic.config.topic.to_string(), partition })
        }
        (Some(partition), _) => Ok(partition),
        (None, Some(key)) => Ok(partition_of(key, partitions)),
        (None, None) => Ok(topic.turn.fetch_add(1, Ordering::Relaxed) % partitions),
    }
}
