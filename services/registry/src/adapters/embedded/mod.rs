//! The embedded store: one fjall keyspace in a directory of its own.
//!
//! Adapter layer. Reads go to the keyspace at once; writes of objects pass one thread ([`writer`]), which makes
//! compare-and-set simple and one fsync serve many writers. After a failed write the database is dropped and opened
//! again by the next call, which cuts what was half-written.

mod audit;
mod claims;
mod keys;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use drover_bus::Partition;
use drover_fjall_kit::{Failure, Layout, OpenError, Reopened};
use drover_types::{DeviceKey, TenantId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use tokio::sync::{mpsc, oneshot};

use crate::adapters::claims::{claimed, released};
use crate::audit::{Entry, Position};
use crate::config::EmbeddedLimits;
use crate::object::{Digest, Kind, Object, ObjectKey};
use crate::ports::{
    AuditPage, Found, Lookups, Mutation, OutboxRow, PresenceChange, PresenceView, RegistryStore, RelayTurn, Session,
    SessionKey, StoreError, TopicClaim,
};
use writer::Request;

/// One keyspace, with few tables.
const LAYOUT: Layout =
    Layout { what: "a registry store", keyspace: "registry", format: "drover-registry 1", open_files_max: 64 };
/// Writes waiting for the writer; more wait in their callers.
const QUEUE_MAX: usize = 256;

/// The embedded store. Dropping it finishes the writes in hand and releases the directory.
pub struct Embedded {
    shared: Arc<Shared>,
    /// Taken when dropped, which ends the writer.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What readers and the writer share.
struct Shared {
    database: Reopened<Open>,
    /// Held while a topic's claim is read and written: no other process has this directory.
    claiming: Mutex<()>,
    /// Held while entries of audit trails are counted and written.
    auditing: Mutex<()>,
}

/// An open database.
struct Open {
    rows: Keyspace,
    database: Database,
}

impl Embedded {
    /// Opens the store in `directory`, or makes it.
    pub fn open(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let database = Reopened::new(LAYOUT.what, directory, move |directory| Open::at(directory, limits))?;
        let shared = Arc::new(Shared { database, claiming: Mutex::default(), auditing: Mutex::default() });
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (of_writer, name) = (Arc::clone(&shared), "registry-store".to_owned());
        let writer = std::thread::Builder::new()
            .name(name)
            .spawn(move || writer::run(&of_writer, queue))
            .map_err(|source| OpenError::Io { directory: directory.to_owned(), source })?;
        Ok(Self { shared, requests: Some(requests), writer: Some(writer) })
    }

    /// Runs a read where blocking is allowed.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Open) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || read(&*shared.database.opened()?));
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }

    /// Commits a batch that needs no compare-and-set, where blocking is allowed.
    async fn commit(
        &self,
        durability: Option<PersistMode>,
        fill: impl FnOnce(&Open, &mut OwnedWriteBatch) + Send + 'static,
    ) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            let open = shared.database.opened()?;
            let mut batch = open.database.batch().durability(durability);
            fill(&open, &mut batch);
            Ok(shared.database.commit(&open, batch)?)
        });
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the registry store's writer panicked");
        }
    }
}

impl Open {
    fn at(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let (database, failed) = (LAYOUT.open(directory, limits.cache.bytes())?, LAYOUT.failed(directory));
        let options = || KeyspaceCreateOptions::default().max_memtable_size(limits.write_buffer.bytes());
        let rows = database.keyspace(LAYOUT.keyspace, options).map_err(&failed)?;
        let open = Self { rows, database };
        let (found, is_empty) = (open.rows.get(keys::FORMAT).map_err(&failed)?, open.rows.is_empty().map_err(&failed)?);
        if LAYOUT.is_new(directory, found.as_deref(), is_empty)? {
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&open.rows, keys::FORMAT, LAYOUT.format);
            batch.commit().map_err(&failed)?;
        }
        Ok(open)
    }

    fn object(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.rows.get(keys::object(key)).map_err(store_error)?.map(|row| keys::read_object(&row)).transpose()
    }

    fn by_digest(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        let Some(key) = self.rows.get(keys::digest(digest)).map_err(store_error)? else { return Ok(None) };
        self.rows.get(&key).map_err(store_error)?.map(|row| keys::read_object(&row)).transpose()
    }

    /// The mark that the first credential left behind.
    fn had_credentials(&self, device: &DeviceKey) -> Result<bool, StoreError> {
        self.rows.contains_key(keys::credentials_of(device)).map_err(store_error)
    }

    /// Keys and values of the rows under `prefix`, after the row `after` if there is one.
    fn scan<T>(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        read: impl Fn(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let from = match after {
            Some(after) => std::ops::Bound::Excluded(after.to_vec()),
            None => std::ops::Bound::Included(prefix.to_vec()),
        };
        let mut found = Vec::new();
        for row in self.rows.range((from, std::ops::Bound::Unbounded)).take(limit) {
            let (key, value) = row.into_inner().map_err(store_error)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push(read(&key, &value)?);
        }
        Ok(found)
    }
}

#[async_trait]
impl RegistryStore for Embedded {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let key = key.clone();
        self.read(move |open| open.object(&key)).await
    }

    async fn page(&self, kind: Kind, tenant: &TenantId, after: &str, limit: usize) -> Result<Vec<Object>, StoreError> {
        let prefix = keys::objects_of(kind, tenant);
        let after = (!after.is_empty()).then(|| [prefix.as_slice(), after.as_bytes()].concat());
        self.read(move |open| open.scan(&prefix, after.as_deref(), limit, |_, row| keys::read_object(row))).await
    }

    async fn credential_by_digest(&self, digest: &Digest) -> Result<Option<Object>, StoreError> {
        let digest = *digest;
        self.read(move |open| open.by_digest(&digest)).await
    }

    async fn has_had_credentials(&self, device: &DeviceKey) -> Result<bool, StoreError> {
        let device = device.clone();
        self.read(move |open| open.had_credentials(&device)).await
    }

    async fn look_up(&self, wanted: Arc<Lookups>) -> Result<Found, StoreError> {
        self.read(move |open| {
            Ok(Found {
                objects: wanted.objects.iter().map(|key| open.object(key)).collect(),
                by_digest: wanted.digests.iter().map(|digest| open.by_digest(digest)).collect(),
                had_credentials: wanted.had_credentials.iter().map(|device| open.had_credentials(device)).collect(),
            })
        })
        .await
    }

    async fn credentials_of(&self, device: &DeviceKey) -> Result<Vec<Object>, StoreError> {
        let prefix = keys::credentials_of(device);
        self.read(move |open| {
            let keys = open.scan(&prefix, Some(&prefix), usize::MAX, |_, key| Ok(key.to_vec()))?;
            let rows = keys.into_iter().filter_map(|key| open.rows.get(key).map_err(store_error).transpose());
            rows.map(|row| keys::read_object(&row?)).collect()
        })
        .await
    }

    async fn write(&self, mutation: Mutation) -> Result<Option<Object>, StoreError> {
        let ended = || StoreError::Unavailable { reason: "the store's writer has ended".to_owned() };
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(Request { mutation, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    async fn claim_topic(&self, topic: &str, rule: &ObjectKey, now_ms: u64) -> Result<TopicClaim, StoreError> {
        let (topic, rule) = (topic.to_owned(), rule.clone());
        self.change_claim(topic, move |claim| claimed(claim, &rule, now_ms)).await
    }

    async fn topic_claim(&self, topic: &str) -> Result<Option<TopicClaim>, StoreError> {
        self.claim_of(topic).await
    }

    async fn release_topic(&self, topic: &str, rule: &ObjectKey) -> Result<(), StoreError> {
        let (topic, rule) = (topic.to_owned(), rule.clone());
        self.change_claim(topic, move |claim| (released(claim, &rule), ())).await
    }

    async fn relay_turn(&self) -> Result<RelayTurn, StoreError> {
        Ok(RelayTurn::Alone)
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.read(move |open| open.scan(keys::OUTBOX, None, limit, keys::read_outbox)).await
    }

    async fn forget(&self, sequences: &[u64]) -> Result<(), StoreError> {
        let sequences = sequences.to_vec();
        self.commit(Some(PersistMode::SyncAll), move |open, batch| {
            sequences.iter().for_each(|sequence| batch.remove(&open.rows, keys::outbox(*sequence)));
        })
        .await
    }

    async fn put_audit(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.put_entries(entries).await
    }

    async fn audit(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        self.entries(tenant, oldest_ms, before, limit).await
    }

    async fn presence_of(
        &self,
        partition: Partition,
        device: &DeviceKey,
    ) -> Result<Vec<(SessionKey, Session)>, StoreError> {
        let prefix = keys::sessions_of(partition, device);
        self.read(move |open| open.scan(&prefix, None, usize::MAX, keys::read_session)).await
    }

    async fn presence(&self, partition: Partition) -> Result<PresenceView, StoreError> {
        self.read(move |open| {
            let next = open.rows.get(keys::next_event(partition)).map_err(store_error)?;
            let next = next.map(|row| keys::read_number(&row)).transpose()?;
            let sessions = open.scan(&keys::sessions(partition), None, usize::MAX, keys::read_session)?;
            Ok(PresenceView { next, sessions })
        })
        .await
    }

    async fn put_presence(&self, changes: Vec<PresenceChange>) -> Result<(), StoreError> {
        self.commit(None, move |open, batch| {
            for PresenceChange { partition, next, sessions } in changes {
                for (key, session) in sessions {
                    let key = keys::session(partition, &key);
                    match session {
                        Some(session) => batch.insert(&open.rows, key, keys::write_session(&session)),
                        None => batch.remove(&open.rows, key),
                    }
                }
                batch.insert(&open.rows, keys::next_event(partition), next.to_be_bytes());
            }
        })
        .await
    }
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
mod tests;
