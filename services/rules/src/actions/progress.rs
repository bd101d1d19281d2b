//! How far lanes are that are further than the committed offset of their partition: remembered in a compacted topic, so
//! that after a crash what they did is not done again because of another one that is behind.

use std::collections::HashMap;
use std::time::Duration;

use drover_bus::{Bus, Offset, Outgoing, Partition, ReadError, Record, TopicPartition};
use drover_proto::rules::v1::LaneProgress;
use prost::Message as _;

use crate::domain::{LaneKey, RETRY_TOPIC};

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;

/// What is remembered of the lanes of a partition.
pub async fn read(bus: &dyn Bus, partition: Partition) -> Result<HashMap<LaneKey, Offset>, ReadError> {
    let at = TopicPartition::new(RETRY_TOPIC, partition);
    let bounds = bus.bounds(&at).await?;
    let (mut next, mut found) = (bounds.earliest, HashMap::new());
    while next < bounds.end {
        let records = match bus.read(&at, next, READ_BYTES, Duration::ZERO).await {
            Err(ReadError::Corrupt { reason }) => {
                // What is not remembered is done again: one damaged place does not stop every action, and is told of.
                tracing::error!(reason, partition, next, "where actions stand is lost behind the damage");
                break;
            }
            read => read?,
        };
        let Some(last) = records.last() else { break };
        next = last.position.offset + 1;
        for stored in records {
            let key = stored.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key.and_then(|key| LaneKey::from_record_key(key, partition)) else { continue };
            match stored.record.value.map(LaneProgress::decode) {
                Some(Ok(progress)) => {
                    found.insert(key, progress.offset);
                }
                Some(Err(error)) => tracing::error!(rule = key.rule, %error, "where an action stands cannot be read"),
                None => {
                    found.remove(&key);
                }
            }
        }
    }
    Ok(found)
}

/// The record that remembers where a lane is, or that nothing has to be remembered of it.
pub fn record(partition: Partition, key: &LaneKey, at: Option<Offset>, now_ms: u64) -> Outgoing {
    let value = at.map(|offset| LaneProgress { offset }.encode_to_vec().into());
    let key = Some(key.record_key(partition).into());
    let record = Record { key, value, timestamp_ms: now_ms as i64, ..Record::default() };
    Outgoing { topic: RETRY_TOPIC.into(), partition: Some(partition), record }
}
