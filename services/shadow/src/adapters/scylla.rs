//! The store in Cassandra or Scylla, shared by any number of processes.
//!
//! Adapter layer. Every row is written at its own number as timestamp: a shadow at its version, the offset of a
//! partition's next document at itself. So whatever comes late, twice or in another order changes nothing, and no write
//! needs a condition. Shadows are written before the offset that says they are there.

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_scylla_kit::{Cassandra, Failure, Migration, OpenError, Read, Schema, Store, Write};
use drover_types::DeviceKey;
use drover_types::limits::SHADOWS_PER_DEVICE_MAX;
use drover_types::shadow::ShadowName;
use futures::{StreamExt, TryStreamExt, stream};

use crate::domain::{Shadow, ShadowKey};
use crate::ports::{ShadowStore, StoreError};

/// Writes under way at once.
const CONCURRENT: usize = 32;

/// Grows at its end only. A device's shadows are one partition: at most
/// [`SHADOWS_PER_DEVICE_MAX`] of about 250 KB each.
const SCHEMA: Schema = Schema {
    name: "shadow",
    migrations: &[Migration {
        number: 1,
        name: "documents",
        statements: &[
            // `there`: it is not deleted; so that names are told without reading documents.
            "CREATE TABLE IF NOT EXISTS shadow_documents (
                tenant text, device text, name text, there boolean, document blob,
                PRIMARY KEY ((tenant, device), name))",
            "CREATE TABLE IF NOT EXISTS shadow_next (partition int PRIMARY KEY, next bigint)",
        ],
    }],
};

/// The store in a keyspace. Any number of them, in any number of processes, may be open at once.
pub struct Scylla {
    store: Store,
    statements: Statements,
}

struct Statements {
    document: Read,
    names: Read,
    put_document: Write,
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
            next: store.prepare_read("SELECT next FROM shadow_next WHERE partition = ?").await?,
            put_next: store.prepare_write("INSERT INTO shadow_next (partition, next) VALUES (?, ?)").await?,
        })
    }
}

impl Scylla {
    /// Opens the shadows' tables, or makes them; while the database is away, waits and tells why.
    pub async fn open(cassandra: &Cassandra, waiting: impl Fn(&OpenError)) -> Result<Self, OpenError> {
        let prepare =
            async |store: Store| Statements::prepare(&store).await.map(|statements| Self { store, statements });
        cassandra.open_and_prepare(&SCHEMA, prepare, waiting).await
    }

    async fn put_shadow(&self, key: ShadowKey, shadow: Shadow) -> Result<(), Failure> {
        let (tenant, device) = (key.device.tenant.as_str(), key.device.device.as_str());
        let values = (tenant, device, key.name.as_str(), shadow.state.is_some(), shadow.to_json());
        self.store.write_at(signed(shadow.version), &self.statements.put_document, values).await
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
        let writes = shadows.into_iter().map(|(key, shadow)| self.put_shadow(key, shadow));
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        if kept < next {
            let (column, next) = (column(partition)?, signed(next));
            self.store.write_at(next, &self.statements.put_next, (column, next)).await?;
        }
        Ok(())
    }
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
