//! Commands in Cassandra or Scylla: a device's places are one partition of so many rows, which are written over and never grow.
//!
//! Adapter layer. What a record changes is written at twice its offset, that a command was sent at one more than its own
//! record: so a place belongs to whoever came last in the log, whatever comes late or twice.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use drover_bus::{Offset, Partition};
use drover_scylla_kit::{Failure, Migration, Read, Store, Write};
use drover_types::{DeviceKey, RecordId};
use futures::{StreamExt, TryStreamExt, stream};

use super::{CONCURRENT, Scylla, column, corrupt, signed};
use crate::domain::command::{Answered, Body, Change, Execution, Head, SLOTS, Slot, What};
use crate::ports::{CommandStore, StoreError};

/// A row ends by itself when the longest command and the time that finished ones are kept are over: 37 days.
pub const MIGRATION: Migration = Migration {
    number: 3,
    name: "commands",
    statements: &[
        "CREATE TABLE IF NOT EXISTS shadow_commands (
            tenant text, device text, slot int, id blob, name text, payload blob, created_at bigint,
            created_ms bigint, expires_ms bigint, sent_ms bigint, code int, answered_ms bigint, response blob,
            PRIMARY KEY ((tenant, device), slot)) WITH default_time_to_live = 3196800",
        "CREATE TABLE IF NOT EXISTS shadow_commands_next (partition int PRIMARY KEY, next bigint)",
    ],
};

/// Slot, id, created_at, created_ms, expires_ms, sent_ms, code and answered_ms of a row; all but the slot may be missing when a row
/// is about to end. 0 as `sent_ms` and `code`: not yet.
type HeadRow = (i32, Option<Vec<u8>>, Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i32>, Option<i64>);
/// Id, name, payload and response of a row.
type BodyRow = (Option<Vec<u8>>, Option<String>, Option<Vec<u8>>, Option<Vec<u8>>);

pub struct Statements {
    heads: Read,
    body: Read,
    create: Write,
    answer: Write,
    sent: Write,
    forget: Write,
    next: Read,
    put_next: Write,
}

impl Statements {
    pub async fn prepare(store: &Store) -> Result<Self, Failure> {
        Ok(Self {
            heads: store
                .prepare_read(
                    "SELECT slot, id, created_at, created_ms, expires_ms, sent_ms, code, answered_ms
                     FROM shadow_commands WHERE tenant = ? AND device = ? LIMIT ?",
                )
                .await?,
            body: store
                .prepare_read(
                    "SELECT id, name, payload, response FROM shadow_commands
                     WHERE tenant = ? AND device = ? AND slot = ?",
                )
                .await?,
            create: store
                .prepare_write(
                    "INSERT INTO shadow_commands (tenant, device, slot, id, name, payload, created_at, created_ms,
                     expires_ms, sent_ms, code, answered_ms, response)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?)",
                )
                .await?,
            answer: store
                .prepare_write(
                    "UPDATE shadow_commands SET code = ?, answered_ms = ?, response = ?
                     WHERE tenant = ? AND device = ? AND slot = ?",
                )
                .await?,
            sent: store
                .prepare_write("UPDATE shadow_commands SET sent_ms = ? WHERE tenant = ? AND device = ? AND slot = ?")
                .await?,
            forget: store
                .prepare_write("DELETE FROM shadow_commands WHERE tenant = ? AND device = ? AND slot = ?")
                .await?,
            next: store.prepare_read("SELECT next FROM shadow_commands_next WHERE partition = ?").await?,
            put_next: store.prepare_write("INSERT INTO shadow_commands_next (partition, next) VALUES (?, ?)").await?,
        })
    }
}

/// The timestamp of what the record at `offset` changes: above 0, and with room for the next one.
fn timestamp(offset: Offset) -> i64 {
    signed(offset.saturating_add(1).saturating_mul(2))
}

impl Scylla {
    /// Writes the changes of one place, in their order.
    async fn put_place(&self, changes: Vec<Change>) -> Result<(), Failure> {
        for change in changes {
            self.put_change(change).await?;
        }
        Ok(())
    }

    async fn put_change(&self, change: Change) -> Result<(), Failure> {
        let Change { device, offset, slot, what } = change;
        let (tenant, name, slot) = (device.tenant.as_str(), device.device.as_str(), i32::from(slot));
        let (at, statements) = (timestamp(offset), &self.commands);
        match what {
            What::Create(execution) => {
                let Execution { head, body } = *execution;
                let times = (signed(head.created_at), signed(head.created_ms), signed(head.expires_ms));
                let values = (
                    tenant,
                    name,
                    slot,
                    head.id.0.to_vec(),
                    body.name,
                    body.payload.to_vec(),
                    times.0,
                    times.1,
                    times.2,
                    body.response.to_vec(),
                );
                self.store.write_at(at, &statements.create, values).await
            }
            What::Answer { answered: Answered { code, time_ms }, response, .. } => {
                let values = (i32::from(code), signed(time_ms), response.to_vec(), tenant, name, slot);
                self.store.write_at(at, &statements.answer, values).await
            }
            What::Forget => self.store.write_at(at, &statements.forget, (tenant, name, slot)).await,
        }
    }
}

#[async_trait]
impl CommandStore for Scylla {
    async fn command_heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError> {
        let values = (device.tenant.as_str(), device.device.as_str(), i32::from(SLOTS));
        let rows: Vec<HeadRow> = self.store.rows(&self.commands.heads, values).await?;
        rows.into_iter().filter_map(|row| head(row).transpose()).collect()
    }

    async fn command_body(&self, device: &DeviceKey, head: &Head) -> Result<Option<Body>, StoreError> {
        let values = (device.tenant.as_str(), device.device.as_str(), i32::from(head.slot));
        let row: Option<BodyRow> = self.store.row(&self.commands.body, values).await?;
        let Some((Some(id), Some(name), payload, response)) = row else { return Ok(None) };
        let bytes = |bytes: Option<Vec<u8>>| Bytes::from(bytes.unwrap_or_default());
        Ok((id == head.id.0).then(|| Body { name, payload: bytes(payload), response: bytes(response) }))
    }

    async fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        let row: Option<(i64,)> = self.store.row(&self.commands.next, (column(partition)?,)).await?;
        row.map(|(next,)| unsigned(next)).transpose()
    }

    async fn put_commands(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let kept = self.commands_next(partition).await?.unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        let mut places: BTreeMap<(DeviceKey, Slot), Vec<Change>> = BTreeMap::new();
        // Those that are there already among them: what they are stamped with keeps them from doing harm.
        for change in changes {
            places.entry((change.device.clone(), change.slot)).or_default().push(change);
        }
        let writes = places.into_values().map(|changes| self.put_place(changes));
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        if kept < next {
            let (column, next) = (column(partition)?, signed(next));
            self.store.write_at(next, &self.commands.put_next, (column, next)).await?;
        }
        Ok(())
    }

    async fn command_sent(&self, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError> {
        let values = (signed(sent_ms), device.tenant.as_str(), device.device.as_str(), i32::from(head.slot));
        Ok(self.store.write_at(timestamp(head.created_at) + 1, &self.commands.sent, values).await?)
    }

    /// Rows end by themselves.
    async fn forget_commands(&self, _: u64, _: Option<&DeviceKey>) -> Result<Option<DeviceKey>, StoreError> {
        Ok(None)
    }
}

/// What a row says; `None`: it ends, and part of it is gone.
fn head(row: HeadRow) -> Result<Option<Head>, StoreError> {
    let (slot, Some(id), Some(created_at), Some(created_ms), Some(expires_ms), sent_ms, code, answered_ms) = row else {
        return Ok(None);
    };
    let code = u16::try_from(code.unwrap_or_default()).map_err(corrupt)?;
    let answered = Answered { code, time_ms: unsigned(answered_ms.unwrap_or_default())? };
    Ok(Some(Head {
        id: RecordId(id.try_into().map_err(|_| corrupt("an id has 16 bytes"))?),
        slot: Slot::try_from(slot).map_err(corrupt)?,
        created_at: unsigned(created_at)?,
        created_ms: unsigned(created_ms)?,
        expires_ms: unsigned(expires_ms)?,
        sent_ms: sent_ms.filter(|ms| *ms > 0).map(unsigned).transpose()?,
        answered: (code > 0).then_some(answered),
    }))
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupt(format!("number {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_in_the_log_has_the_greater_timestamp_and_that_it_was_sent_lies_between() {
        for offset in [0, 1, 1_000_000] {
            assert!(timestamp(offset) > 0);
            assert!(timestamp(offset) < timestamp(offset) + 1 && timestamp(offset) + 1 < timestamp(offset + 1));
        }
    }

    #[test]
    fn a_row_of_which_a_part_has_ended_is_none() {
        let whole = (3, Some(vec![7; 16]), Some(9), Some(1_000), Some(2_000), Some(0), Some(0), Some(0));
        let found = head(whole.clone()).expect("readable").expect("whole");
        assert_eq!((found.slot, found.created_at, found.sent_ms, found.answered), (3, 9, None, None));
        assert_eq!(head((3, None, None, None, None, None, Some(200), Some(5))), Ok(None));
        assert!(head((300, whole.1, whole.2, whole.3, whole.4, None, None, None)).is_err());
    }
}
