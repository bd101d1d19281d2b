//! How lanes read what they had no room for when the group brought it.

use std::time::Duration;

use drover_bus::{Offset, Partition, ReadError, Stored, TopicPartition};
use futures::future::join_all;
use tokio::time::Instant;

use super::{Actions, Session};
use crate::domain::{LaneKey, OUTBOX_TOPIC};

/// Bytes of one read of a lane that is behind.
const READ_BYTES: usize = 256 * 1024;
/// Lanes that read at a time.
const READS_AT_ONCE: usize = 16;
/// Lanes that read in one turn; one of each partition may at least.
const READS: usize = 32;
/// A lane for which the log could not be read asks again after this.
const UNREAD: Duration = Duration::from_secs(1);
/// A lane that stands before a damaged place of the log asks again after this.
const STALLED: Duration = Duration::from_secs(60);

impl Actions {
    /// Entries of a partition from `from` on.
    async fn read(&self, partition: Partition, from: Offset) -> Result<Vec<Stored>, ReadError> {
        self.bus.read(&TopicPartition::new(OUTBOX_TOPIC, partition), from, READ_BYTES, Duration::ZERO).await
    }
}

impl Session<'_> {
    /// Lanes that are behind and have room read on, side by side. What cannot be read holds up its lane.
    pub(super) async fn catch_up(&mut self) {
        let (room, now) = (self.has_room(), Instant::now());
        let most = (READS / self.partitions.len().max(1)).max(1);
        let mut behind = Vec::new();
        for (partition, lanes) in &mut self.partitions {
            behind.extend(lanes.behind(now, room, most).into_iter().map(|(key, from)| (*partition, key, from)));
        }
        for some in behind.chunks(READS_AT_ONCE) {
            let reads: Vec<_> = some.iter().map(|(partition, _, from)| self.actions.read(*partition, *from)).collect();
            let read = join_all(reads).await;
            for ((partition, key, from), read) in some.iter().zip(read) {
                self.has_read(*partition, key, *from, read, (now, room));
            }
        }
    }

    fn has_read(
        &mut self,
        partition: Partition,
        key: &LaneKey,
        from: Offset,
        read: Result<Vec<Stored>, ReadError>,
        (now, room): (Instant, bool),
    ) {
        let Some(lanes) = self.partitions.get_mut(&partition) else { return };
        match read {
            Ok(records) => lanes.catch_up(key, records, room),
            Err(ReadError::OutOfRange { from, earliest, .. }) if from < earliest => {
                tracing::error!(rule = key.rule, from, earliest, "entries are not kept any more: actions are lost");
                self.actions.telemetry.actions_lost.inc();
                lanes.skip_to(key, earliest);
            }
            Err(error @ ReadError::Corrupt { .. }) => {
                tracing::error!(rule = key.rule, from, %error, "an action stands before a damaged place");
                self.actions.telemetry.actions_stalled.inc();
                lanes.could_not_read(key, now + STALLED);
            }
            Err(error) => {
                tracing::debug!(rule = key.rule, from, %error, "an action cannot read on");
                lanes.could_not_read(key, now + UNREAD);
            }
        }
    }
}
