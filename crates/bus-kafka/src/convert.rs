//! Records and places as the port has them, and as librdkafka has them.

use bytes::Bytes;
use drover_bus::{Outgoing, Partition, Position, Record, Stored, Topic, TopicPartition};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;
use rdkafka::{Offset, TopicPartitionList};

/// Bytes of a header with its name, about.
const HEADER_BYTES: usize = 24;

/// A partition as librdkafka counts it; the port's are at most 1,023.
pub(crate) fn raw_partition(partition: Partition) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

/// A partition as the port counts it.
pub(crate) fn partition(raw: i32) -> Partition {
    Partition::try_from(raw).unwrap_or(0)
}

/// An offset as the port counts it.
pub(crate) fn offset(raw: i64) -> u64 {
    u64::try_from(raw).unwrap_or(0)
}

/// An offset as librdkafka counts it.
pub(crate) fn raw_offset(offset: u64) -> Offset {
    Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX))
}

/// `record` on its way to a partition. Kafka takes a time of 0 for "now".
pub(crate) fn to_send<D: IntoOpaque>(
    outgoing: &Outgoing,
    partition: Partition,
    opaque: D,
) -> BaseRecord<'_, [u8], [u8], D> {
    let Record { key, value, headers, timestamp_ms } = &outgoing.record;
    let mut send = BaseRecord::with_opaque_to(&outgoing.topic, opaque)
        .partition(raw_partition(partition))
        .timestamp(*timestamp_ms);
    send.key = key.as_deref();
    send.payload = value.as_deref();
    if !headers.is_empty() {
        let all = OwnedHeaders::new_with_capacity(headers.len());
        let put = |all: OwnedHeaders, (key, value)| all.insert(Header { key, value: Some(value) });
        send.headers = Some(headers.iter().fold(all, put));
    }
    send
}

/// A message read back.
pub(crate) fn stored(message: &BorrowedMessage<'_>, topic: &Topic) -> Stored {
    let mut headers = drover_bus::Headers::default();
    if let Some(found) = message.headers() {
        headers = drover_bus::Headers::with_capacity(HEADER_BYTES * found.count());
        headers.extend(found.iter().map(|header| (header.key, header.value.unwrap_or_default())));
    }
    let (key, value) = (message.key(), message.payload());
    // Both in one piece of memory.
    let mut memory = Bytes::from([key.unwrap_or_default(), value.unwrap_or_default()].concat());
    let record = Record {
        key: key.map(|key| memory.split_to(key.len())),
        value: value.map(|_| memory),
        headers,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
    };
    let at = TopicPartition { topic: topic.clone(), partition: partition(message.partition()) };
    Stored { position: Position { at, offset: offset(message.offset()) }, record }
}

/// A list of positions; `None` if one of them cannot be in such a list.
pub(crate) fn list(positions: &[Position]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for Position { at, offset } in positions {
        let mut element = list.add_partition(&at.topic, raw_partition(at.partition));
        // Fails for offsets that are negative, which the port has none of.
        drop(element.set_offset(raw_offset(*offset)));
    }
    list
}

/// A list of partitions without offsets.
pub(crate) fn places(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        list.add_partition(&at.topic, raw_partition(at.partition));
    }
    list
}

/// The partitions of a list.
pub(crate) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|e| TopicPartition::new(e.topic(), partition(e.partition()))).collect()
}
