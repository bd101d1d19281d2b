//! What rules that group messages know of a partition, brought back from the log before its messages are looked at.

use std::time::Duration;

use drover_bus::{Bus, Partition, Position, ReadError, TopicPartition};
use futures::future::try_join_all;

use crate::domain::{Held, STATE_TOPIC};

/// Bytes of one read.
const READ_BYTES: usize = 1024 * 1024;
/// Partitions that are read back at a time.
const AT_ONCE: usize = 8;

/// The states of each partition, in the order of `positions`.
pub async fn states(bus: &dyn Bus, positions: &[Position]) -> Result<Vec<Held>, ReadError> {
    let mut all = Vec::with_capacity(positions.len());
    for some in positions.chunks(AT_ONCE) {
        all.extend(try_join_all(some.iter().map(|position| of_partition(bus, position.at.partition))).await?);
    }
    Ok(all)
}

async fn of_partition(bus: &dyn Bus, partition: Partition) -> Result<Held, ReadError> {
    let at = TopicPartition::new(STATE_TOPIC, partition);
    // Whoever had the partition before may have ended in the middle of a transaction.
    let bounds = bus.settled_bounds(&at).await?;
    let (mut held, mut next) = (Held::default(), bounds.earliest);
    while next < bounds.end {
        let records = match bus.read(&at, next, READ_BYTES, Duration::ZERO).await {
            Err(ReadError::Corrupt { reason }) => {
                // As with repeats: one damaged place does not stop every rule, and is told of.
                tracing::error!(reason, partition, next, "states of rules behind the damage are lost");
                held.unreadable += 1;
                break;
            }
            read => read?,
        };
        let Some(last) = records.last() else { break };
        next = last.position.offset + 1;
        records.iter().for_each(|stored| held.restore(&stored.record));
    }
    Ok(held)
}
