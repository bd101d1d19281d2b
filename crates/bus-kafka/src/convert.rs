//! Records and places as the port has them, and as librdkafka has them.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use drover_bus::{Header, Outgoing, Partition, Position, Record, Stored, Topic, TopicPartition};
use drover_types::header;
use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;
use rdkafka::{Offset, TopicPartitionList};

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
        send.headers = Some(headers.iter().fold(all, |all, header| {
            all.insert(rdkafka::message::Header { key: &header.name, value: Some(header.value.as_ref()) })
        }));
    }
    send
}

/// A message read back; its parts share one piece of memory.
pub(crate) fn stored(message: &BorrowedMessage<'_>, topic: &Topic) -> Stored {
    // Asked for once: each of them is a call of librdkafka.
    let found = message.headers();
    let mut headers = Vec::with_capacity(found.map_or(0, Headers::count));
    headers.extend(found.iter().flat_map(|found| found.iter()));
    let values = headers.iter().map(|header| header.value.map_or(0, <[u8]>::len));
    let bytes = message.key_len() + message.payload_len() + values.sum::<usize>();
    let mut memory = BytesMut::with_capacity(bytes);
    let mut keep = |part: &[u8]| -> Bytes {
        memory.put_slice(part);
        memory.split().freeze()
    };
    let record = Record {
        key: message.key().map(&mut keep),
        value: message.payload().map(&mut keep),
        headers: headers.iter().map(|header| kept(header, &mut keep)).collect(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
    };
    let at = TopicPartition { topic: topic.clone(), partition: partition(message.partition()) };
    Stored { position: Position { at, offset: offset(message.offset()) }, record }
}

fn kept(header: &rdkafka::message::Header<'_, &[u8]>, keep: &mut impl FnMut(&[u8]) -> Bytes) -> Header {
    let known = header::ALL.iter().find(|known| **known == header.key);
    let name = known.map_or_else(|| Cow::Owned(header.key.to_owned()), |known| Cow::Borrowed(*known));
    Header { name, value: header.value.map(keep).unwrap_or_default() }
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
