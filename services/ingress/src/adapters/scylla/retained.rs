//! Retained messages in Cassandra or Scylla: a partition for each tenant and first level of topics.
//!
//! Of two messages for a topic the later by (time, id) stays: it is written at its time as timestamp, and of two writes of
//! one timestamp the greater value stays, which begins with time and id. What a tenant keeps is counted by each node for
//! itself, from a reading of all its rows, and anew after each sweep: several nodes may exceed a bound by what they write
//! between two sweeps.
//!
//! The first levels of a tenant are listed, for filters that begin with a wildcard. A level is never missing there while a
//! message under it is kept: it is listed before each message, at the node's time; a sweep that finds it empty deletes as
//! of [`LISTED_MS`] ago, so that whoever has listed it since wins; and whoever takes [`LISTED_AGAIN`] from there to its
//! message lists it again. This holds while the clocks of ingress nodes differ by less than the remaining five minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Cassandra, SystemClock};
use drover_scylla_kit::{Failure, OpenError, Read, Store, Write};
use drover_types::{Clock, TenantId, TopicName};
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::schema::SCHEMA;
use super::store_error;
use crate::adapters::rows::corrupt;
use crate::adapters::rows::retained::{REMOVAL_MS, Row, literal};
use crate::domain::message::Message;
use crate::ports::{RetainedBounds, RetainedPage, RetainedQuery, RetainedStore, StoreError};

/// Requests under way at once.
const CONCURRENT: usize = 32;
/// [`REMOVAL_MS`] in seconds.
const REMOVAL_TTL_S: i32 = (REMOVAL_MS / 1_000) as i32;
/// How long a level stays listed without a message, milliseconds: as long as a removal is remembered.
const LISTED_MS: u64 = REMOVAL_MS;
/// A level that was listed this long before its message was kept is listed again.
const LISTED_AGAIN: Duration = Duration::from_millis(LISTED_MS / 2);
/// What a message outlives its expiry by in the table, seconds: until then it is found, and not sent.
const EXPIRED_S: i32 = 60;
/// Longest time to live there is, seconds: 20 years.
const TTL_S_MAX: i32 = 20 * 365 * 24 * 3600;
/// Bytes of time and id, at the beginning of `kept`.
const ORDER_BYTES: usize = 24;

/// The retained messages in a keyspace, for one node.
pub struct Retained {
    store: Store,
    statements: Statements,
    bounds: RetainedBounds,
    /// What the tenants keep that this node has written for, as of the last sweep and its own writes since; held while it
    /// writes, and not while a sweep counts.
    kept: Mutex<HashMap<TenantId, Amount>>,
}

struct Statements {
    put: Write,
    put_level: Write,
    delete: Write,
    delete_level: Write,
    one: Read,
    some: Read,
    sizes: Read,
    levels: Read,
}

/// What a tenant keeps.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    messages: usize,
    bytes: usize,
    /// First levels that were listed when it was counted, empty ones too.
    levels: usize,
}

impl Retained {
    /// Opens the tables, or makes them; while the database is away, waits and tells why.
    pub async fn open(
        cassandra: &Cassandra,
        bounds: RetainedBounds,
        waiting: impl Fn(&OpenError),
    ) -> Result<Self, OpenError> {
        let (store, statements) = cassandra.open_and_prepare(&SCHEMA, Statements::prepare, waiting).await?;
        Ok(Self { store, statements, bounds, kept: Mutex::default() })
    }

    /// What is kept of a topic, a removal included.
    async fn one(&self, tenant: &TenantId, topic: &TopicName) -> Result<Option<Row>, StoreError> {
        let values = (tenant.as_str(), level(topic.as_str()), topic.as_str());
        let row: Option<(Option<Vec<u8>>,)> =
            self.store.row(&self.statements.one, values).await.map_err(store_error)?;
        row.and_then(|(kept,)| kept).map(|kept| read(&kept)).transpose()
    }

    async fn put(&self, tenant: &TenantId, topic: &TopicName, row: &Row) -> Result<(), StoreError> {
        let (tenant, level, topic) = (tenant.as_str(), level(topic.as_str()), topic.as_str());
        let kept = row.kept.as_ref();
        let seconds = |s: u32| i32::try_from(s).unwrap_or(TTL_S_MAX).saturating_add(EXPIRED_S).min(TTL_S_MAX);
        // 0: for ever.
        let ttl_s = kept.map_or(REMOVAL_TTL_S, |kept| kept.expiry_s.map_or(0, seconds));
        let bytes = row.bytes(topic).map_or(0, |bytes| i32::try_from(bytes).unwrap_or(i32::MAX));
        let expires_ms = row.expires_ms().map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let at = timestamp(row.time_ms);
        let began = Instant::now();
        if kept.is_some() {
            self.list(tenant, level).await?;
        }
        let values = (tenant, level, topic, write(row), bytes, expires_ms, ttl_s);
        self.store.write_at(at, &self.statements.put, values).await.map_err(store_error)?;
        if kept.is_some() && began.elapsed() >= LISTED_AGAIN {
            self.list(tenant, level).await?;
        }
        Ok(())
    }

    async fn list(&self, tenant: &str, level: &str) -> Result<(), StoreError> {
        let at = timestamp(SystemClock.now_ms());
        self.store.write_at(at, &self.statements.put_level, (tenant, level)).await.map_err(store_error)
    }

    /// Takes a level from the list that was empty at `now_ms` or later, unless it was listed within [`LISTED_MS`] before.
    async fn unlist(&self, tenant: &TenantId, level: &str, now_ms: u64) -> Result<(), StoreError> {
        let Some(at_ms) = now_ms.checked_sub(LISTED_MS) else { return Ok(()) };
        let values = (tenant.as_str(), level);
        self.store.write_at(timestamp(at_ms), &self.statements.delete_level, values).await.map_err(store_error)
    }

    async fn levels(&self, tenant: &TenantId) -> Result<Vec<String>, StoreError> {
        let rows = self.store.stream::<(String,)>(&self.statements.levels, (tenant.as_str(),)).await;
        rows.map_err(store_error)?.map_ok(|(level,)| level).try_collect().await.map_err(store_error)
    }

    /// What a tenant keeps by `now_ms`; what has expired by then is removed, and counted beside it, and levels under
    /// which nothing is kept are taken from the list.
    async fn count(&self, tenant: &TenantId, now_ms: u64) -> Result<(Amount, usize), StoreError> {
        let levels = self.levels(tenant).await?;
        let (mut amount, mut expired) = (Amount { levels: levels.len(), ..Amount::default() }, 0);
        for level in levels {
            let before = amount.messages;
            let values = (tenant.as_str(), level.as_str());
            let rows = self.store.stream::<(String, i32, Option<i64>, i64)>(&self.statements.sizes, values).await;
            let mut rows = rows.map_err(store_error)?;
            while let Some((topic, bytes, expires_ms, written)) = rows.try_next().await.map_err(store_error)? {
                if expires_ms.is_some_and(|ms| u64::try_from(ms).unwrap_or(0) <= now_ms) {
                    let values = (tenant.as_str(), level.as_str(), topic);
                    let removed = self.store.write_at(written, &self.statements.delete, values).await;
                    removed.map_err(store_error)?;
                    expired += 1;
                } else if bytes > 0 {
                    amount = amount.with(Some(usize::try_from(bytes).unwrap_or(0)));
                }
            }
            if amount.messages == before {
                self.unlist(tenant, &level, now_ms).await?;
            }
        }
        Ok((amount, expired))
    }
}

#[async_trait]
impl RetainedStore for Retained {
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        let mut kept = self.kept.lock().await;
        // Of several for one topic only the last matters.
        let mut last: HashMap<(TenantId, TopicName), Row> = HashMap::new();
        for message in &messages {
            let key = (message.telemetry.tenant.clone(), message.telemetry.topic.clone());
            let row = Row::of(message);
            if last.get(&key).is_none_or(|known| row.is_after(known)) {
                last.insert(key, row);
            }
        }
        let reads = last.into_iter().map(|((tenant, topic), row)| async move {
            let before = self.one(&tenant, &topic).await?;
            Ok::<_, StoreError>((tenant, topic, row, before))
        });
        let rows: Vec<_> = stream::iter(reads).buffer_unordered(CONCURRENT).try_collect().await?;
        let (mut writes, mut refused) = (Vec::new(), 0);
        for (tenant, topic, row, before) in rows {
            // One that is there already is written again: the attempt that wrote it may have failed behind it.
            if before.as_ref().is_some_and(|before| before.is_after(&row)) {
                continue;
            }
            if !kept.contains_key(&tenant) {
                let (amount, _) = self.count(&tenant, 0).await?;
                kept.insert(tenant.clone(), amount);
            }
            let amount = kept.entry(tenant.clone()).or_default();
            let bytes_before = before.as_ref().and_then(|row| row.bytes(topic.as_str()));
            let changed = amount.without(bytes_before).with(row.bytes(topic.as_str()));
            if row.kept.is_some() && (changed.messages > self.bounds.messages || changed.bytes > self.bounds.bytes) {
                refused += 1;
                continue;
            }
            *amount = changed;
            writes.push((tenant, topic, row));
        }
        let writes =
            writes.into_iter().map(|(tenant, topic, row)| async move { self.put(&tenant, &topic, &row).await });
        let written = stream::iter(writes).buffer_unordered(CONCURRENT).try_collect::<()>().await;
        if written.is_err() {
            kept.clear(); // some may be there
        }
        written.map(|()| refused)
    }

    async fn matching(&self, query: RetainedQuery) -> Result<RetainedPage, StoreError> {
        let prefix = literal(&query.filter);
        let after = query.after.as_ref().map(TopicName::as_str);
        let levels = match query.filter.split('/').next() {
            Some(first) if first != "+" && first != "#" => vec![first.to_owned()],
            Some(_) | None => self.levels(&query.tenant).await?,
        };
        let behind = after.map(level).unwrap_or_default();
        let mut page = RetainedPage::default();
        let mut bytes = 0;
        for of in levels.iter().filter(|of| ***of >= *behind) {
            let from = after.filter(|after| level(after) == of.as_str()).unwrap_or_default();
            let values = (query.tenant.as_str(), of.as_str(), from);
            let rows = self.store.stream::<(String, Option<Vec<u8>>)>(&self.statements.some, values).await;
            let mut rows = rows.map_err(store_error)?;
            while let Some((topic, kept)) = rows.try_next().await.map_err(store_error)? {
                let wanted = topic.starts_with(prefix) && drover_types::matches(&query.filter, &topic);
                let Some(kept) = kept.filter(|_| wanted) else { continue };
                let (topic, row) = (TopicName::new(topic).map_err(corrupt)?, read(&kept)?);
                if row.has_expired(query.now_ms) {
                    continue;
                }
                let Some(message) = row.message(query.tenant.clone(), topic.clone())? else { continue };
                bytes += message.bytes();
                page.messages.push(message);
                if page.messages.len() >= query.messages_max || bytes >= query.bytes_max {
                    page.next = Some(topic);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let tenants: Vec<TenantId> = self.kept.lock().await.keys().cloned().collect();
        let mut removed = 0;
        for tenant in tenants {
            // With what other nodes have written; nobody waits for it, and what is written meanwhile may not be counted.
            let (counted, expired) = self.count(&tenant, now_ms).await?;
            if let Some(amount) = self.kept.lock().await.get_mut(&tenant) {
                *amount = counted;
            }
            removed += expired;
        }
        // Whose levels are still listed is swept again, until they are not.
        self.kept.lock().await.retain(|_, amount| amount.messages > 0 || amount.levels > 0);
        Ok(removed)
    }
}

impl Amount {
    fn with(self, bytes: Option<usize>) -> Self {
        bytes.map_or(self, |bytes| Self { messages: self.messages + 1, bytes: self.bytes + bytes, ..self })
    }

    /// Another node may have written what is replaced: it is not counted here then.
    fn without(self, bytes: Option<usize>) -> Self {
        bytes.map_or(self, |bytes| Self {
            messages: self.messages.saturating_sub(1),
            bytes: self.bytes.saturating_sub(bytes),
            ..self
        })
    }
}

/// The first level of a topic.
fn level(topic: &str) -> &str {
    topic.split('/').next().unwrap_or_default()
}

/// Microseconds since the Unix epoch.
fn timestamp(time_ms: u64) -> i64 {
    i64::try_from(time_ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

/// The cell of a row: what came later is the greater one.
fn write(row: &Row) -> Vec<u8> {
    let mut cell = row.time_ms.to_be_bytes().to_vec();
    cell.extend(row.id.iter().copied().chain(std::iter::repeat(0)).take(ORDER_BYTES - cell.len()));
    row.encode(&mut cell).expect("a vector grows");
    cell
}

fn read(cell: &[u8]) -> Result<Row, StoreError> {
    Row::read(cell.get(ORDER_BYTES..).ok_or_else(|| corrupt("a retained message without time and id"))?)
}

impl Statements {
    async fn prepare(store: Store) -> Result<(Store, Self), Failure> {
        let statements = Self {
            put: store
                .prepare_write(
                    "INSERT INTO ingress_retained (tenant, level, topic, kept, bytes, expires_ms)
                     VALUES (?, ?, ?, ?, ?, ?) USING TTL ?",
                )
                .await?,
            put_level: store.prepare_write("INSERT INTO ingress_retained_levels (tenant, level) VALUES (?, ?)").await?,
            delete: store
                .prepare_write("DELETE FROM ingress_retained WHERE tenant = ? AND level = ? AND topic = ?")
                .await?,
            delete_level: store
                .prepare_write("DELETE FROM ingress_retained_levels WHERE tenant = ? AND level = ?")
                .await?,
            one: store
                .prepare_read("SELECT kept FROM ingress_retained WHERE tenant = ? AND level = ? AND topic = ?")
                .await?,
            some: store
                .prepare_read("SELECT topic, kept FROM ingress_retained WHERE tenant = ? AND level = ? AND topic > ?")
                .await?,
            sizes: store
                .prepare_read(
                    "SELECT topic, bytes, expires_ms, WRITETIME(bytes) FROM ingress_retained
                     WHERE tenant = ? AND level = ?",
                )
                .await?,
            levels: store.prepare_read("SELECT level FROM ingress_retained_levels WHERE tenant = ?").await?,
        };
        Ok((store, statements))
    }
}
