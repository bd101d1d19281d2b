//! Sessions in Cassandra or Scylla: a row a session, and its inbox in buckets.
//!
//! A bucket of an inbox is a partition: messages of one epoch, a thousand numbers. Those that the session has passed are
//! removed whole, so however long a connection lasts, neither rows nor tombstones gather in a partition. All writes
//! of a session carry its stamps as timestamps: so what is written at the same time has the effect of its order, whichever
//! arrives last. Of one call, messages are written before what depends on them: one that changes hands is with the one
//! before it leaves the other, and none is received before it is with its subscribers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::Cassandra;
use drover_scylla_kit::{Failure, OpenError, Read, Store, Write};
use drover_types::{ClientId, TenantId};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::schema::SCHEMA;
use super::store_error;
use crate::adapters::rows::{corrupt, sessions as rows};
use crate::domain::sessions::Key;
use crate::ports::StoreError;
use crate::ports::sessions::{Change, Listed, Place, Row, SessionStore, Stored, What};

/// Changes that are written at the same time, of whichever sessions, and heads that are read.
const CONCURRENT: usize = 128;
/// Numbers of one bucket.
const BUCKET: u32 = 1_000;
/// Slices of a node's list of sessions.
const SLICES: i32 = 64;
/// The one list of nodes.
const LIST: i32 = 0;
/// Time to live of all rows, in seconds: nothing is left for ever of what nobody has removed. Longer than any session
/// outlives its connection, and what that may have kept before.
const TTL_S: i32 = 30 * 24 * 3600;
/// A bucket is written to its list anew by the first message that comes this long after it was last written there.
const BUCKET_AGAIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time to live of a bucket in its list, in seconds: it outlasts every message that is written before it comes there anew.
const BUCKET_TTL_S: i32 = TTL_S + BUCKET_AGAIN.as_secs() as i32;
/// Buckets that are known to be in their list, so that they are not written there again; beyond it all are forgotten.
const KNOWN_BUCKETS_MAX: usize = 100_000;

/// The sessions in a keyspace, for one node.
pub struct Sessions {
    store: Store,
    statements: Statements,
    node: String,
    /// The last bucket of each session that is in its list, and when it was written there.
    known: Mutex<HashMap<Arc<Key>, (Bucket, Instant)>>,
}

struct Statements {
    put_head: Write,
    put_subscriptions: Write,
    put_received: Write,
    delete: Write,
    read: Read,
    put_of_node: Write,
    delete_of_node: Write,
    of_node: Read,
    put_bucket: Write,
    delete_bucket: Write,
    buckets: Read,
    put_message: Write,
    delete_message: Write,
    delete_messages_below: Write,
    delete_messages: Write,
    messages: Read,
    nodes: Read,
}

/// Half of a call.
#[derive(Clone, Copy)]
enum Phase {
    First,
    Then,
}

/// A partition of an inbox: its epoch, and which thousand of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket {
    epoch: i64,
    bucket: i32,
}

impl Bucket {
    fn of(place: Place) -> Result<Self, StoreError> {
        let (epoch, bucket) = (i64::try_from(place.epoch), i32::try_from(place.number / BUCKET));
        Ok(Self { epoch: epoch.map_err(corrupt)?, bucket: bucket.map_err(corrupt)? })
    }
}

impl Sessions {
    /// Opens the tables, or makes them, for the node of this name; while the database is away, waits and tells why.
    pub async fn open(cassandra: &Cassandra, node: &str, waiting: impl Fn(&OpenError)) -> Result<Self, OpenError> {
        let name = node.to_owned();
        let prepare = move |store: Store| {
            let name = name.clone();
            async move { Statements::prepare(store, &name).await }
        };
        let (store, statements) = cassandra.open_and_prepare(&SCHEMA, prepare, waiting).await?;
        Ok(Self { store, statements, node: node.to_owned(), known: Mutex::default() })
    }

    async fn write_at<V>(&self, stamp: u64, write: &Write, values: V) -> Result<(), StoreError>
    where
        V: drover_scylla_kit::SerializeRow,
    {
        let stamp = i64::try_from(stamp).map_err(corrupt)?;
        self.store.write_at(stamp, write, values).await.map_err(store_error)
    }

    async fn write_first(&self, change: &Change) -> Result<(), StoreError> {
        let Change { key, stamp, what } = change;
        let (tenant, client, of) = (key.0.as_str(), key.1.as_str(), &self.statements);
        match what {
            What::Head(head) => {
                let bytes = rows::write_head(head, &self.node, *stamp);
                self.write_at(*stamp, &of.put_of_node, (self.node.as_str(), slice_of(key), tenant, client, TTL_S))
                    .await?;
                self.write_at(*stamp, &of.put_head, (tenant, client, bytes, TTL_S)).await
            }
            What::Subscriptions(all) => {
                let bytes = rows::write_subscriptions(all);
                self.write_at(*stamp, &of.put_subscriptions, (tenant, client, bytes, TTL_S)).await
            }
            What::Put(row) => {
                let bucket = Bucket::of(row.place)?;
                let (number, message) = (i64::from(row.place.number), rows::write_row(row));
                let values = (tenant, client, bucket.epoch, bucket.bucket, number, message, TTL_S);
                self.write_at(*stamp, &of.put_message, values).await
            }
            // later
            What::Received(_) | What::Remove(_) | What::Passed { .. } | What::End | What::Left(_) => Ok(()),
        }
    }

    async fn write_then(&self, change: &Change) -> Result<(), StoreError> {
        let Change { key, stamp, what } = change;
        let (tenant, client, of) = (key.0.as_str(), key.1.as_str(), &self.statements);
        match what {
            What::Received(packet_ids) => {
                let bytes = rows::write_received(packet_ids);
                self.write_at(*stamp, &of.put_received, (tenant, client, bytes, TTL_S)).await
            }
            What::Remove(place) => {
                let bucket = Bucket::of(*place)?;
                let values = (tenant, client, bucket.epoch, bucket.bucket, i64::from(place.number));
                self.write_at(*stamp, &of.delete_message, values).await
            }
            What::Passed { from, before } => {
                let (first, last) = (Bucket::of(*from)?, Bucket::of(*before)?);
                if first.epoch == last.epoch {
                    for bucket in first.bucket..last.bucket {
                        self.remove_bucket(key, *stamp, Bucket { bucket, ..first }).await?;
                    }
                } else {
                    for bucket in self.buckets(key).await?.into_iter().filter(|bucket| *bucket < last) {
                        self.remove_bucket(key, *stamp, bucket).await?;
                    }
                }
                if before.number % BUCKET == 0 {
                    return Ok(()); // nothing of that bucket is passed
                }
                let values = (tenant, client, last.epoch, last.bucket, i64::from(before.number));
                self.write_at(*stamp, &of.delete_messages_below, values).await
            }
            What::End => {
                for bucket in self.buckets(key).await? {
                    self.remove_bucket(key, *stamp, bucket).await?;
                }
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                self.write_at(*stamp, &of.delete_of_node, (self.node.as_str(), slice_of(key), tenant, client)).await?;
                self.write_at(*stamp, &of.delete, (tenant, client)).await
            }
            What::Left(node) => {
                self.write_at(*stamp, &of.delete_of_node, (&**node, slice_of(key), tenant, client)).await
            }
            What::Head(_) | What::Subscriptions(_) | What::Put(_) => Ok(()), // done
        }
    }

    async fn remove_bucket(&self, key: &Key, stamp: u64, Bucket { epoch, bucket }: Bucket) -> Result<(), StoreError> {
        let values = (key.0.as_str(), key.1.as_str(), epoch, bucket);
        self.write_at(stamp, &self.statements.delete_messages, values).await?;
        self.write_at(stamp, &self.statements.delete_bucket, values).await
    }

    /// All there are, the oldest first.
    async fn buckets(&self, key: &Key) -> Result<Vec<Bucket>, StoreError> {
        let values = (key.0.as_str(), key.1.as_str());
        let rows = self.store.stream::<(i64, i32)>(&self.statements.buckets, values).await.map_err(store_error)?;
        rows.map_ok(|(epoch, bucket)| Bucket { epoch, bucket }).try_collect().await.map_err(store_error)
    }

    fn is_known(&self, key: &Arc<Key>, bucket: Bucket) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).is_some_and(|(known, written)| *known == bucket && written.elapsed() < BUCKET_AGAIN)
    }

    fn know(&self, key: &Arc<Key>, bucket: Bucket) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_BUCKETS_MAX {
            known.clear();
        }
        known.insert(key.clone(), (bucket, Instant::now()));
    }

    /// Writes the buckets of messages among `changes` to their lists, where they are not known to be there: each once, and
    /// before its messages.
    async fn list_buckets(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut missing: BTreeMap<(&Key, Bucket), (u64, &Arc<Key>)> = BTreeMap::new();
        for change in changes {
            let Change { key, stamp, what } = change;
            let What::Put(row) = what else { continue };
            let bucket = Bucket::of(row.place).map_err(|error| change.failed(error))?;
            if !self.is_known(key, bucket) {
                missing.insert((&**key, bucket), (*stamp, key)); // the last of its stamps
            }
        }
        let writes: Vec<_> =
            missing.into_iter().map(|((_, bucket), (stamp, key))| self.list_bucket(key, bucket, stamp)).collect();
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn list_bucket(&self, key: &Arc<Key>, bucket: Bucket, stamp: u64) -> Result<(), StoreError> {
        let values = (key.0.as_str(), key.1.as_str(), bucket.epoch, bucket.bucket, BUCKET_TTL_S);
        self.write_at(stamp, &self.statements.put_bucket, values).await?;
        self.know(key, bucket);
        Ok(())
    }

    /// Makes half of the changes, many at once.
    async fn make(&self, phase: Phase, changes: &[Change]) -> Result<(), StoreError> {
        let each: Vec<_> = changes.iter().map(|change| self.make_one(phase, change)).collect();
        stream::iter(each).buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn make_one(&self, phase: Phase, change: &Change) -> Result<(), StoreError> {
        let made = match phase {
            Phase::First => self.write_first(change).await,
            Phase::Then => self.write_then(change).await,
        };
        made.map_err(|error| change.failed(error))
    }

    /// Sessions whose head `node` has written last, as [`SessionStore::own`] says.
    async fn list(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        for slice in after.map_or(0, slice_of)..SLICES {
            let from = after.filter(|after| slice_of(after) == slice);
            let (tenant, client) = from.map_or(("", ""), |(tenant, client)| (tenant.as_str(), client.as_str()));
            let values = (node, slice, tenant, client);
            let listed = self.store.stream::<(String, String)>(&self.statements.of_node, values).await;
            let mut listed = listed.map_err(store_error)?;
            loop {
                let mut keys = Vec::new();
                while keys.len() < sessions_max - found.len()
                    && let Some((tenant, client)) = listed.try_next().await.map_err(store_error)?
                {
                    keys.push((TenantId::new(tenant).map_err(corrupt)?, ClientId::new(client).map_err(corrupt)?));
                }
                if keys.is_empty() {
                    break;
                }
                found.extend(self.find_of(node, keys).await?);
                if found.len() >= sessions_max {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Those of the sessions whose head `node` has written last, in their order.
    async fn find_of(&self, node: &str, keys: Vec<Key>) -> Result<Vec<Listed>, StoreError> {
        let reads: Vec<_> = keys.iter().map(|key| self.find(key)).collect();
        let read: Vec<Result<Option<Stored>, StoreError>> = stream::iter(reads).buffered(CONCURRENT).collect().await;
        let mut found = Vec::new();
        for (key, stored) in keys.into_iter().zip(read) {
            match stored {
                Ok(Some(stored)) if *stored.node == *node => found.push((key, Ok(stored))),
                Ok(_) => {} // another node has it by now; the list is not told yet
                Err(error @ (StoreError::Corrupt { .. } | StoreError::Unwritable { .. })) => {
                    found.push((key, Err(error)));
                }
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn find(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        type Columns = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let values = (key.0.as_str(), key.1.as_str());
        let row: Option<Columns> = self.store.row(&self.statements.read, values).await.map_err(store_error)?;
        let Some((Some(head), subscriptions, received)) = row else { return Ok(None) };
        let (head, node, stamp) = rows::read_head(&head)?;
        let subscriptions = subscriptions.map(|bytes| rows::read_subscriptions(&bytes)).transpose()?;
        let received = received.map(|bytes| rows::read_received(&bytes)).transpose()?;
        let (subscriptions, received) = (subscriptions.unwrap_or_default(), received.unwrap_or_default());
        Ok(Some(Stored { head, subscriptions, received, stamp, node: node.into() }))
    }
}

#[async_trait]
impl SessionStore for Sessions {
    async fn write(&self, changes: Arc<[Change]>) -> Result<(), StoreError> {
        self.list_buckets(&changes).await?;
        self.make(Phase::First, &changes).await?;
        self.make(Phase::Then, &changes).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.find(key).await
    }

    async fn inbox(&self, key: &Key, after: Option<Place>, rows_max: usize) -> Result<Vec<Row>, StoreError> {
        let from = after.map(Bucket::of).transpose()?;
        let mut found = Vec::new();
        for bucket in self.buckets(key).await?.into_iter().filter(|bucket| from.is_none_or(|from| *bucket >= from)) {
            let behind = after.filter(|_| from == Some(bucket)).map_or(-1, |place| i64::from(place.number));
            let left = i32::try_from(rows_max - found.len()).unwrap_or(i32::MAX);
            let values = (key.0.as_str(), key.1.as_str(), bucket.epoch, bucket.bucket, behind, left);
            let rows: Vec<(i64, Vec<u8>)> =
                self.store.rows(&self.statements.messages, values).await.map_err(store_error)?;
            for (number, bytes) in rows {
                let epoch = u64::try_from(bucket.epoch).map_err(corrupt)?;
                let place = Place { epoch, number: u32::try_from(number).map_err(corrupt)? };
                found.push(rows::read_row(&key.0, place, &bytes)?);
            }
            if found.len() >= rows_max {
                break;
            }
        }
        Ok(found)
    }

    async fn own(&self, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.list(&self.node, after, sessions_max).await
    }

    async fn left_by(&self, node: &str, after: Option<&Key>, sessions_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.list(node, after, sessions_max).await
    }

    async fn nodes(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = self.store.rows(&self.statements.nodes, (LIST,)).await.map_err(store_error)?;
        Ok(rows.into_iter().map(|(node,)| node).collect())
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// The slice of its node's list that a session is in.
fn slice_of((tenant, client): &Key) -> i32 {
    let hash = Sha256::new().chain_update(tenant.as_str()).chain_update([0]).chain_update(client.as_str()).finalize();
    i32::from(hash[0]) % SLICES
}

impl Statements {
    /// Prepares all of them, and writes `node` to the list of nodes.
    async fn prepare(store: Store, node: &str) -> Result<(Store, Self), Failure> {
        let put_node = store.prepare_write("INSERT INTO ingress_nodes (list, node) VALUES (?, ?)").await?;
        store.write(&put_node, (LIST, node)).await?;
        let bucket = "tenant = ? AND client = ? AND epoch = ? AND bucket = ?";
        let statements = Self {
            put_head: store
                .prepare_write("INSERT INTO ingress_sessions (tenant, client, head) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            put_subscriptions: store
                .prepare_write(
                    "INSERT INTO ingress_sessions (tenant, client, subscriptions) VALUES (?, ?, ?) USING TTL ?",
                )
                .await?,
            put_received: store
                .prepare_write("INSERT INTO ingress_sessions (tenant, client, received) VALUES (?, ?, ?) USING TTL ?")
                .await?,
            delete: store.prepare_write("DELETE FROM ingress_sessions WHERE tenant = ? AND client = ?").await?,
            read: store
                .prepare_read(
                    "SELECT head, subscriptions, received FROM ingress_sessions WHERE tenant = ? AND client = ?",
                )
                .await?,
            put_of_node: store
                .prepare_write(
                    "INSERT INTO ingress_sessions_of_nodes (node, slice, tenant, client) VALUES (?, ?, ?, ?)
                     USING TTL ?",
                )
                .await?,
            delete_of_node: store
                .prepare_write(
                    "DELETE FROM ingress_sessions_of_nodes WHERE node = ? AND slice = ? AND tenant = ? AND client = ?",
                )
                .await?,
            of_node: store
                .prepare_read(
                    "SELECT tenant, client FROM ingress_sessions_of_nodes
                     WHERE node = ? AND slice = ? AND (tenant, client) > (?, ?)",
                )
                .await?,
            put_bucket: store
                .prepare_write(
                    "INSERT INTO ingress_inbox_buckets (tenant, client, epoch, bucket) VALUES (?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            delete_bucket: store.prepare_write(&format!("DELETE FROM ingress_inbox_buckets WHERE {bucket}")).await?,
            buckets: store
                .prepare_read("SELECT epoch, bucket FROM ingress_inbox_buckets WHERE tenant = ? AND client = ?")
                .await?,
            put_message: store
                .prepare_write(
                    "INSERT INTO ingress_inbox (tenant, client, epoch, bucket, number, message)
                     VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            delete_message: store
                .prepare_write(&format!("DELETE FROM ingress_inbox WHERE {bucket} AND number = ?"))
                .await?,
            delete_messages_below: store
                .prepare_write(&format!("DELETE FROM ingress_inbox WHERE {bucket} AND number < ?"))
                .await?,
            delete_messages: store.prepare_write(&format!("DELETE FROM ingress_inbox WHERE {bucket}")).await?,
            messages: store
                .prepare_read(&format!(
                    "SELECT number, message FROM ingress_inbox WHERE {bucket} AND number > ? LIMIT ?"
                ))
                .await?,
            nodes: store.prepare_read("SELECT node FROM ingress_nodes WHERE list = ?").await?,
        };
        Ok((store, statements))
    }
}
