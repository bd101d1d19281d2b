//! Retained messages in the embedded store: one row a topic.
//!
//! Adapter layer. Writers take turns, and one turn writes what all who wait want kept: one sync for many connections.
//! How much each tenant keeps is counted in memory, from one reading of all rows when the store is first used.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_types::TenantId;
use prost::Message as _;
use tokio::sync::oneshot;

use super::keys;
use super::open::{Open, Shared, store_error};
use crate::adapters::rows::retained::{Row, literal};
use crate::domain::message::Message;
use crate::ports::{RetainedBounds, RetainedPage, RetainedQuery, RetainedStore, StoreError};

/// Rows read at most for one page, matching or not.
const ROWS_READ_MAX: usize = 10_000;

/// The embedded store of retained messages.
#[derive(Clone)]
pub struct Retained(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    bounds: RetainedBounds,
    /// What waits for the next turn.
    waiting: Mutex<Vec<Job>>,
    /// Held from reading a row to writing it.
    writing: tokio::sync::Mutex<()>,
    /// What the tenants keep, once that is known.
    kept: Mutex<Option<HashMap<TenantId, Amount>>>,
}

/// Messages to keep, and where the answer goes.
struct Job {
    messages: Vec<Arc<Message>>,
    answer: oneshot::Sender<Result<usize, StoreError>>,
}

/// What a tenant keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    messages: usize,
    bytes: usize,
}

impl Retained {
    /// Those in the database `shared`.
    pub(super) fn new(shared: Arc<Shared>, bounds: RetainedBounds) -> Self {
        Self(Arc::new(Inner {
            shared,
            bounds,
            waiting: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            kept: Mutex::default(),
        }))
    }

    /// Runs a read or a write where blocking is allowed.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || work(&inner));
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}

#[async_trait]
impl RetainedStore for Retained {
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        let (answer, mut answered) = oneshot::channel();
        self.0.waiting().push(Job { messages, answer });
        let _turn = self.0.writing.lock().await;
        if let Ok(done) = answered.try_recv() {
            return done; // written in the turn of somebody else
        }
        self.run(|inner| {
            let jobs = std::mem::take(&mut *inner.waiting());
            inner.write(jobs);
            Ok(())
        })
        .await?;
        answered.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }

    async fn matching(&self, query: RetainedQuery) -> Result<RetainedPage, StoreError> {
        self.run(move |inner| match inner.shared.existing()? {
            Some(open) => matching(&open, &query),
            None => Ok(RetainedPage::default()),
        })
        .await
    }

    async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let _turn = self.0.writing.lock().await;
        self.run(move |inner| inner.sweep(now_ms)).await
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Vec<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all jobs in one batch, and answers them.
    fn write(&self, jobs: Vec<Job>) {
        let (messages, answers): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.messages, job.answer)).unzip();
        let written = self.write_all(&messages);
        for (n, answer) in answers.into_iter().enumerate() {
            let done = match &written {
                Ok(refused) => Ok(refused[n]),
                Err(error) => Err(StoreError::Unavailable { reason: error.to_string() }),
            };
            drop(answer.send(done)); // who does not wait any more does not miss it
        }
    }

    /// For each job, how many of its messages there was no room for.
    fn write_all(&self, jobs: &[Vec<Arc<Message>>]) -> Result<Vec<usize>, StoreError> {
        let open = self.shared.opened()?;
        let mut kept = self.kept(&open)?;
        let mut rows: HashMap<Vec<u8>, Row> = HashMap::new();
        let mut refused = vec![0; jobs.len()];
        for (n, message) in jobs.iter().enumerate().flat_map(|(n, job)| job.iter().map(move |message| (n, message))) {
            let (tenant, topic) = (&message.telemetry.tenant, message.telemetry.topic.as_str());
            let (key, row) = (keys::topic(tenant, topic), Row::of(message));
            let before = match rows.get(&key) {
                Some(row) => Some(row.clone()),
                None => open.retained.get(&key).map_err(store_error)?.map(|row| Row::read(&row)).transpose()?,
            };
            if before.as_ref().is_some_and(|before| !row.is_after(before)) {
                continue;
            }
            let amount = kept.entry(tenant.clone()).or_default();
            let changed = amount.without(before.as_ref().and_then(|row| row.bytes(topic))).with(row.bytes(topic));
            if row.kept.is_some() && (changed.messages > self.bounds.messages || changed.bytes > self.bounds.bytes) {
                refused[n] += 1;
                continue;
            }
            *amount = changed;
            rows.insert(key, row);
        }
        let mut batch = open.batch();
        rows.into_iter().for_each(|(key, row)| batch.insert(&open.retained, key, row.encode_to_vec()));
        self.shared.commit(batch)?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(refused)
    }

    /// What the tenants keep; taken out, so that it is counted anew after a failure.
    fn kept(&self, open: &Open) -> Result<HashMap<TenantId, Amount>, StoreError> {
        if let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(kept);
        }
        let mut kept = HashMap::<TenantId, Amount>::new();
        for row in open.retained.iter() {
            let (key, row) = row.into_inner().map_err(store_error)?;
            let (tenant, topic) = keys::read_topic(&key)?;
            let amount = kept.entry(tenant).or_default();
            *amount = amount.with(Row::read(&row)?.bytes(topic.as_str()));
        }
        Ok(kept)
    }

    fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let Some(open) = self.shared.existing()? else { return Ok(0) };
        let mut kept = self.kept(&open)?;
        let (mut batch, mut count) = (open.batch(), 0);
        for row in open.retained.iter() {
            let (key, bytes) = row.into_inner().map_err(store_error)?;
            let row = Row::read(&bytes)?;
            if !row.is_over(now_ms) {
                continue;
            }
            let (tenant, topic) = keys::read_topic(&key)?;
            let amount = kept.entry(tenant).or_default();
            *amount = amount.without(row.bytes(topic.as_str()));
            batch.remove(&open.retained, key);
            count += 1;
        }
        if count > 0 {
            self.shared.commit(batch)?;
        }
        kept.retain(|_, amount| *amount != Amount::default());
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(count)
    }
}

impl Amount {
    fn with(self, bytes: Option<usize>) -> Self {
        bytes.map_or(self, |bytes| Self { messages: self.messages + 1, bytes: self.bytes + bytes })
    }

    fn without(self, bytes: Option<usize>) -> Self {
        bytes.map_or(self, |bytes| Self { messages: self.messages - 1, bytes: self.bytes - bytes })
    }
}

fn matching(open: &Open, query: &RetainedQuery) -> Result<RetainedPage, StoreError> {
    let prefix = keys::topic(&query.tenant, literal(&query.filter));
    let from = match &query.after {
        Some(topic) => Bound::Excluded(keys::topic(&query.tenant, topic.as_str())),
        None => Bound::Included(prefix.clone()),
    };
    let one = query.filter.len() == literal(&query.filter).len();
    let to = if one { Bound::Included(prefix.clone()) } else { Bound::Unbounded };
    if one && query.after.is_some() {
        return Ok(RetainedPage::default());
    }
    let mut page = RetainedPage::default();
    let mut bytes = 0;
    for (read, row) in open.retained.range((from, to)).enumerate() {
        let (key, row) = row.into_inner().map_err(store_error)?;
        if !key.starts_with(&prefix) {
            return Ok(page);
        }
        let (tenant, topic) = keys::read_topic(&key)?;
        if drover_types::matches(&query.filter, topic.as_str()) {
            let row = Row::read(&row)?;
            if !row.has_expired(query.now_ms)
                && let Some(message) = row.message(tenant, topic.clone())?
            {
                bytes += message.bytes();
                page.messages.push(message);
            }
        }
        if page.messages.len() >= query.messages_max || bytes >= query.bytes_max || read + 1 >= ROWS_READ_MAX {
            page.next = Some(topic);
            return Ok(page);
        }
    }
    Ok(page)
}
