//! The embedded store: one fjall keyspace in a directory of its own.
//!
//! Adapter layer. It is a view, so nothing is synced: a crash loses whole batches from the end, which the log brings
//! again. After a failed write the database is dropped and opened again by the next call.

mod commands;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_fjall_kit::{Failure, Layout, OpenError, Reopened};
use drover_types::shadow::ShadowName;
use drover_types::{DeviceId, DeviceKey, TenantId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch};

use crate::config::EmbeddedLimits;
use crate::domain::{Shadow, ShadowKey};
use crate::ports::{ShadowStore, StoreError};

/// One keyspace.
const LAYOUT: Layout =
    Layout { what: "a store of shadows", keyspace: "shadow", format: "drover-shadow 1", open_files_max: 64 };
/// Key of the format.
const FORMAT_KEY: &[u8] = b"m";
/// Bytes of a version before the document in a row.
const VERSION_BYTES: usize = 8;

/// The embedded store. Dropping it releases the directory.
pub struct Embedded(Arc<Shared>);

struct Shared {
    database: Reopened<Open>,
    /// Held while a write looks at what is there and then writes.
    writing: Mutex<()>,
}

struct Open {
    rows: Keyspace,
    database: Database,
}

impl Embedded {
    /// Opens the store in `directory`, or makes it.
    pub fn open(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let database = Reopened::new(LAYOUT.what, directory, move |directory| Open::at(directory, limits))?;
        Ok(Self(Arc::new(Shared { database, writing: Mutex::default() })))
    }

    /// Runs where blocking is allowed.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, Arc<Open>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.0.clone();
        let task = tokio::task::spawn_blocking(move || work(&shared, shared.database.opened()?));
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}

impl Shared {
    fn put(
        &self,
        open: &Arc<Open>,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: &[(ShadowKey, Shadow)],
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = open.next(partition)?.unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        let mut batch = open.database.batch();
        for (key, shadow) in shadows {
            let row_key = shadow_key(key);
            let there = open.rows.get(&row_key).map_err(store_error)?;
            let version = there.map(|row| version_of(&row)).transpose()?;
            if version.is_some_and(|version| version > shadow.version) {
                continue;
            }
            // Of the same version, too: a Drover that kept no open deltas may have put it.
            batch.insert(&open.rows, row_key, row_of(shadow));
            if key.is_classic() {
                open.put_open_delta(&mut batch, &key.device, shadow.is_open())?;
            }
        }
        if kept < next {
            batch.insert(&open.rows, next_key(partition), next.to_be_bytes());
        }
        Ok(self.database.commit(open, batch)?)
    }
}

impl Open {
    fn at(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let (database, failed) = (LAYOUT.open(directory, limits.cache.bytes())?, LAYOUT.failed(directory));
        let options = || KeyspaceCreateOptions::default().max_memtable_size(limits.write_buffer.bytes());
        let rows = database.keyspace(LAYOUT.keyspace, options).map_err(&failed)?;
        let (found, is_empty) = (rows.get(FORMAT_KEY).map_err(&failed)?, rows.is_empty().map_err(&failed)?);
        if LAYOUT.is_new(directory, found.as_deref(), is_empty)? {
            rows.insert(FORMAT_KEY, LAYOUT.format).map_err(&failed)?;
        }
        Ok(Self { rows, database })
    }

    fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        let row = self.rows.get(next_key(partition)).map_err(store_error)?;
        row.map(|row| number(&row)).transpose()
    }

    fn put_open_delta(&self, batch: &mut OwnedWriteBatch, device: &DeviceKey, is_open: bool) -> Result<(), StoreError> {
        let key = [&delta_prefix(&device.tenant), device.device.as_str().as_bytes()].concat();
        let is_listed = self.rows.contains_key(&key).map_err(store_error)?;
        match (is_open, is_listed) {
            (true, false) => batch.insert(&self.rows, key, ""),
            (false, true) => batch.remove(&self.rows, key),
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let (prefix, after) = (delta_prefix(tenant), after.map_or("", DeviceId::as_str));
        // No name has a zero byte: this is right behind `after`, and before all names where it is empty.
        let from = [prefix.as_slice(), after.as_bytes(), &[0]].concat();
        let mut devices = Vec::new();
        for row in self.rows.range(from..) {
            let (key, _) = row.into_inner().map_err(store_error)?;
            let Some(device) = key.strip_prefix(prefix.as_slice()).filter(|_| devices.len() < limit) else { break };
            let device = std::str::from_utf8(device).map_err(corrupt)?;
            devices.push(DeviceId::new(device).map_err(corrupt)?);
        }
        Ok(devices)
    }

    fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError> {
        let prefix = device_prefix(device);
        let mut names = Vec::new();
        for row in self.rows.range(prefix.clone()..) {
            let (key, row) = row.into_inner().map_err(store_error)?;
            let Some(name) = key.strip_prefix(prefix.as_slice()) else { break };
            let name = std::str::from_utf8(name).map_err(corrupt)?;
            names.push((ShadowName::new(name).map_err(corrupt)?, read_row(&row)?.state.is_some()));
        }
        Ok(names)
    }
}

#[async_trait]
impl ShadowStore for Embedded {
    async fn get(&self, key: &ShadowKey) -> Result<Option<Shadow>, StoreError> {
        let key = shadow_key(key);
        self.blocking(move |_, open| open.rows.get(key).map_err(store_error)?.map(|row| read_row(&row)).transpose())
            .await
    }

    async fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError> {
        let device = device.clone();
        self.blocking(move |_, open| open.names(&device)).await
    }

    async fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let (tenant, after) = (tenant.clone(), after.cloned());
        self.blocking(move |_, open| open.open_deltas(&tenant, after.as_ref(), limit)).await
    }

    async fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        self.blocking(move |_, open| open.next(partition)).await
    }

    async fn put(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: Vec<(ShadowKey, Shadow)>,
    ) -> Result<(), StoreError> {
        self.blocking(move |shared, open| shared.put(&open, partition, from, next, &shadows)).await
    }
}

/// Parts are separated by a zero byte, which no part holds, so that the order of bytes is the order of names.
fn device_prefix(device: &DeviceKey) -> Vec<u8> {
    [b"s", device.tenant.as_str().as_bytes(), &[0], device.device.as_str().as_bytes(), &[0]].concat()
}

/// A shadow: value = its version, then its document.
fn shadow_key(key: &ShadowKey) -> Vec<u8> {
    [&device_prefix(&key.device), key.name.as_str().as_bytes()].concat()
}

/// What the keys of a tenant's open deltas begin with; the device follows, and there is no value.
fn delta_prefix(tenant: &TenantId) -> Vec<u8> {
    [b"d", tenant.as_str().as_bytes(), &[0]].concat()
}

/// Offset of the next document of a partition. A Drover that kept no open deltas has it under `n`: what it has put is put
/// again.
fn next_key(partition: Partition) -> Vec<u8> {
    [b"v".as_slice(), &partition.to_be_bytes()].concat()
}

fn row_of(shadow: &Shadow) -> Vec<u8> {
    [shadow.version.to_be_bytes().as_slice(), &shadow.to_json()].concat()
}

fn version_of(row: &[u8]) -> Result<u64, StoreError> {
    number(row.get(..VERSION_BYTES).unwrap_or_default())
}

fn read_row(row: &[u8]) -> Result<Shadow, StoreError> {
    Shadow::from_json(row.get(VERSION_BYTES..).unwrap_or_default()).map_err(corrupt)
}

fn number(bytes: &[u8]) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a number has 8 bytes"))
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt { reason: reason.to_string() }
}

fn store_error(error: fjall::Error) -> StoreError {
    Failure::from(error).into()
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full { reason } => StoreError::Full { reason },
            Failure::Unavailable { reason } => StoreError::Unavailable { reason },
            Failure::Corrupt { reason } => StoreError::Corrupt { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::conformance::{self, Factory};
    use crate::ports::Store;

    /// Stores in directories that live as long as the test; the last one made is the one that is opened again.
    #[derive(Default)]
    struct Directories(Mutex<Vec<TempDir>>);

    impl Directories {
        fn open_last(&self) -> Arc<dyn Store> {
            let directories = self.0.lock().expect("no test panics while it holds this");
            let directory = directories.last().expect("one was made").path();
            Arc::new(Embedded::open(directory, EmbeddedLimits::default()).expect("opens"))
        }
    }

    #[async_trait]
    impl Factory for Directories {
        async fn empty(&self) -> Arc<dyn Store> {
            self.0.lock().expect("not poisoned").push(tempfile::tempdir().expect("a directory"));
            self.open_last()
        }

        async fn reopened(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
            drop(store);
            self.open_last()
        }
    }

    #[tokio::test]
    async fn the_embedded_store_keeps_every_promise() {
        conformance::suite(&Directories::default()).await;
    }

    #[tokio::test]
    async fn the_directory_of_a_drover_that_kept_no_open_deltas_is_filled_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = ShadowKey::parse("home/lamp").expect("a key");
        let document = br#"{"state":{"desired":{"on":true}},"metadata":{},"version":4,"timestamp":7}"#;
        let shadow = Shadow::from_json(document).expect("a document");
        let former = Open::at(directory.path(), EmbeddedLimits::default()).expect("opens");
        former.rows.insert(shadow_key(&key), row_of(&shadow)).expect("written");
        former.rows.insert([b"n".as_slice(), &3_u32.to_be_bytes()].concat(), 9_u64.to_be_bytes()).expect("written");
        drop(former);
        let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
        assert_eq!(store.next(3).await, Ok(None));
        store.put(3, 0, 9, vec![(key.clone(), shadow)]).await.expect("put");
        assert_eq!(store.open_deltas(&key.device.tenant, None, 9).await, Ok(vec![key.device.device]));
    }

    #[test]
    fn a_directory_in_use_or_of_another_format_is_refused_with_its_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let open = Open::at(directory.path(), EmbeddedLimits::default()).expect("opens");
        let refused = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("locked");
        assert!(matches!(&refused, OpenError::Locked { directory: named } if named == directory.path()), "{refused}");
        open.rows.insert(FORMAT_KEY, "drover-shadow 2").expect("written");
        drop(open);
        let refused = Embedded::open(directory.path(), EmbeddedLimits::default()).map(drop).expect_err("newer");
        assert!(matches!(&refused, OpenError::Format { found, .. } if found == "drover-shadow 2"), "{refused}");
    }
}
