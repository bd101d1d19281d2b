//! The store in Cassandra or Scylla, shared by any number of processes.
//!
//! Adapter layer. Every row is written at its own number as timestamp: a shadow at its version, a command at the offset of its
//! record, the offset of a partition's next document at itself. So whatever comes late, twice or in another order changes nothing, and no write
//! needs a condition. Shadows and open deltas are written before the offset that says they are there.

mod commands;

use async_trait::async_trait;
use drover_bus::{Offset, Partition, partition_of};
use drover_scylla_kit::{Cassandra, Failure, Migration, OpenError, Read, Schema, Store, Write};
use drover_types::limits::SHADOWS_PER_DEVICE_MAX;
use drover_types::shadow::ShadowName;
use drover_types::{DeviceId, DeviceKey, TenantId};
use futures::{StreamExt, TryStreamExt, stream};

use crate::domain::{Shadow, ShadowKey};
use crate::ports::{ShadowStore, StoreError};

/// Writes under way at once.
const CONCURRENT: usize = 32;
/// Partitions over which the open deltas of a tenant are spread by the devices' names. Never changes: rows would not be
/// found any more. With twenty million devices each has 80,000 rows and tombstones at most; a list fails where one has 100,000
/// tombstones (Cassandra's `tombstone_failure_threshold`).
const DELTA_SHARDS: u32 = 256;

/// Grows at its end only. A device's shadows are one partition: at most
/// [`SHADOWS_PER_DEVICE_MAX`] of about 250 KB each.
const SCHEMA: Schema = Schema {
    name: "shadow",
    migrations: &[
        Migration {
            number: 1,
            name: "documents",
            statements: &[
                // `there`: it is not deleted; so that names are told without reading documents.
                "CREATE TABLE IF NOT EXISTS shadow_documents (
                    tenant text, device text, name text, there boolean, document blob,
                    PRIMARY KEY ((tenant, device), name))",
                "CREATE TABLE IF NOT EXISTS shadow_next (partition int PRIMARY KEY, next bigint)",
            ],
        },
        Migration {
            number: 2,
            name: "open deltas",
            statements: &[
                "CREATE TABLE IF NOT EXISTS shadow_open_deltas (
                    tenant text, shard int, device text, PRIMARY KEY ((tenant, shard), device))",
                // In the place of `shadow_next`, which those move on who keep no open deltas: what they have put is put again.
                "CREATE TABLE IF NOT EXISTS shadow_view_next (partition int PRIMARY KEY, next bigint)",
            ],
        },
        commands::MIGRATION,
    ],
};

/// The store in a keyspace. Any number of them, in any number of processes, may be open at once.
pub struct Scylla {
    store: Store,
    statements: Statements,
    commands: commands::Statements,
}

struct Statements {
    document: Read,
    names: Read,
    put_document: Write,
    open_deltas: Read,
    open_delta: Read,
    put_open_delta: Write,
    delete_open_delta: Write,
    next: Read,
    put_next: Write,
}

impl Statements {
    async fn prepare(store: &Store) -> Result<Self, Failure> {
        Ok(Self {
            document: store
                .prepare_read("SELECT document FROM shadow_documents WHERE tenant = ? AND device = ? AND name = ?")
                .await?,
            names: store
                .prepare_read("SELECT name, there FROM shadow_documents WHERE tenant = ? AND device = ? LIMIT ?")
                .await?,
            put_document: store
                .prepare_write(
                    "INSERT INTO shadow_documents (tenant, device, name, there, document) VALUES (?, ?, ?, ?, ?)",
                )
                .await?,
            open_deltas: store
                .prepare_read(
                    "SELECT device FROM shadow_open_deltas WHERE tenant = ? AND shard = ? AND device > ? LIMIT ?",
                )
                .await?,
            open_delta: store
                .prepare_read("SELECT device FROM shadow_open_deltas WHERE tenant = ? AND shard = ? AND device = ?")
                .await?,
            put_open_delta: store
                .prepare_write("INSERT INTO shadow_open_deltas (tenant, shard, device) VALUES (?, ?, ?)")
                .await?,
            delete_open_delta: store
                .prepare_write("DELETE FROM shadow_open_deltas WHERE tenant = ? AND shard = ? AND device = ?")
                .await?,
            next: store.prepare_read("SELECT next FROM shadow_view_next WHERE partition = ?").await?,
            put_next: store.prepare_write("INSERT INTO shadow_view_next (partition, next) VALUES (?, ?)").await?,
        })
    }
}

impl Scylla {
    /// Opens the shadows' tables, or makes them; while the database is away, waits and tells why.
    pub async fn open(cassandra: &Cassandra, waiting: impl Fn(&OpenError)) -> Result<Self, OpenError> {
        let prepare = async |store: Store| {
            let (statements, commands) =
                (Statements::prepare(&store).await?, commands::Statements::prepare(&store).await?);
            Ok(Self { store, statements, commands })
        };
        cassandra.open_and_prepare(&SCHEMA, prepare, waiting).await
    }

    async fn put_shadow(&self, key: ShadowKey, shadow: Shadow, is_late: bool) -> Result<(), Failure> {
        let (tenant, device) = (key.device.tenant.as_str(), key.device.device.as_str());
        let values = (tenant, device, key.name.as_str(), shadow.state.is_some(), shadow.to_json());
        self.store.write_at(signed(shadow.version), &self.statements.put_document, values).await?;
        if key.is_classic() && !is_late { self.put_open_delta(&key.device, &shadow).await } else { Ok(()) }
    }

    /// A deletion leaves a tombstone that lists have to pass by, so only a row that is there is deleted. It is there if it has
    /// to be: of each shadow a version is put before the next one is made.
    async fn put_open_delta(&self, device: &DeviceKey, shadow: &Shadow) -> Result<(), Failure> {
        let Statements { open_delta, put_open_delta, delete_open_delta, .. } = &self.statements;
        let (version, name) = (signed(shadow.version), device.device.as_str());
        let row = (device.tenant.as_str(), delta_shard(name), name);
        if shadow.is_open() {
            return self.store.write_at(version, put_open_delta, row).await;
        }
        let there: Option<(String,)> = self.store.row(open_delta, row).await?;
        if there.is_some() { self.store.write_at(version, delete_open_delta, row).await } else { Ok(()) }
    }
}

#[async_trait]
impl ShadowStore for Scylla {
    async fn get(&self, key: &ShadowKey) -> Result<Option<Shadow>, StoreError> {
        let values = (key.device.tenant.as_str(), key.device.device.as_str(), key.name.as_str());
        let row: Option<(Vec<u8>,)> = self.store.row(&self.statements.document, values).await?;
        row.map(|(document,)| Shadow::from_json(&document).map_err(corrupt)).transpose()
    }

    async fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError> {
        let limit = i32::try_from(SHADOWS_PER_DEVICE_MAX).unwrap_or(i32::MAX);
        let values = (device.tenant.as_str(), device.device.as_str(), limit);
        let rows: Vec<(String, bool)> = self.store.rows(&self.statements.names, values).await?;
        rows.into_iter().map(|(name, there)| Ok((ShadowName::new(&name).map_err(corrupt)?, there))).collect()
    }

    async fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let mut after = after.map_or("", DeviceId::as_str);
        let first = if after.is_empty() { 0 } else { delta_shard(after) };
        let mut devices = Vec::new();
        for shard in first..DELTA_SHARDS.cast_signed() {
            let left = i32::try_from(limit - devices.len()).unwrap_or(i32::MAX);
            let values = (tenant.as_str(), shard, after, left);
            let rows: Vec<(String,)> = self.store.rows(&self.statements.open_deltas, values).await?;
            for (device,) in rows {
                devices.push(DeviceId::new(device).map_err(corrupt)?);
            }
            if devices.len() == limit {
                break;
            }
            after = "";
        }
        Ok(devices)
    }

    async fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        let row: Option<(i64,)> = self.store.row(&self.statements.next, (column(partition)?,)).await?;
        row.map(|(next,)| u64::try_from(next).map_err(|_| corrupt(format!("offset {next}")))).transpose()
    }

    async fn put(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: Vec<(ShadowKey, Shadow)>,
    ) -> Result<(), StoreError> {
        let kept = self.next(partition).await?.unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        // What a late call would list as open may have been closed since, by whom nothing was to be deleted.
        let is_late = next <= kept;
        let writes = shadows.into_iter().map(|(key, shadow)| self.put_shadow(key, shadow, is_late));
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        if kept < next {
            let (column, next) = (column(partition)?, signed(next));
            self.store.write_at(next, &self.statements.put_next, (column, next)).await?;
        }
        Ok(())
    }
}

/// The partition that lists the open delta of a device.
fn delta_shard(device: &str) -> i32 {
    partition_of(device.as_bytes(), DELTA_SHARDS).cast_signed()
}

fn column(partition: Partition) -> Result<i32, StoreError> {
    i32::try_from(partition).map_err(corrupt)
}

/// A number as the database keeps it; what is larger than it can keep becomes the largest it can.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            // A refusal has a cause outside as well: a right taken away, a table dropped by hand.
            Failure::Unavailable { .. } | Failure::Refused { .. } => {
                StoreError::Unavailable { reason: failure.to_string() }
            }
            Failure::Unreadable { reason } => StoreError::Corrupt { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_where_they_have_always_been() {
        assert_eq!(["a", "thermostat-1", "lamp"].map(delta_shard), [124, 89, 52]);
    }
}
