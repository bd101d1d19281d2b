//! Retained messages in memory.
//!
//! Adapter layer, of tests only: every question looks at all there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_types::{TenantId, TopicName};

use crate::adapters::rows::retained::Row;
use crate::domain::message::Message;
use crate::ports::{RetainedBounds, RetainedPage, RetainedQuery, RetainedStore, StoreError};

/// What all nodes retain.
#[derive(Clone)]
pub struct SharedRetained {
    rows: Arc<Mutex<BTreeMap<(TenantId, String), Row>>>,
    bounds: RetainedBounds,
}

impl SharedRetained {
    /// Nothing yet; of each tenant no more than `bounds`.
    pub fn new(bounds: RetainedBounds) -> Self {
        Self { rows: Arc::default(), bounds }
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<(TenantId, String), Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tenant has room for `bytes` at `topic`, instead of what is there.
    fn has_room(&self, rows: &BTreeMap<(TenantId, String), Row>, key: &(TenantId, String), bytes: usize) -> bool {
        let others = rows.iter().filter(|(other, _)| other.0 == key.0 && *other != key);
        let kept: Vec<usize> = others.filter_map(|((_, topic), row)| row.bytes(topic)).collect();
        kept.len() < self.bounds.messages && kept.iter().sum::<usize>() + bytes <= self.bounds.bytes
    }
}

#[async_trait]
impl RetainedStore for SharedRetained {
    async fn keep(&self, messages: Vec<Arc<Message>>) -> Result<usize, StoreError> {
        let mut rows = self.rows();
        let mut refused = 0;
        for message in messages {
            let key = (message.telemetry.tenant.clone(), message.telemetry.topic.to_string());
            let row = Row::of(&message);
            if rows.get(&key).is_some_and(|before| !row.is_after(before)) {
                continue;
            }
            match row.bytes(&key.1) {
                Some(bytes) if !self.has_room(&rows, &key, bytes) => refused += 1,
                Some(_) | None => drop(rows.insert(key, row)),
            }
        }
        Ok(refused)
    }

    async fn matching(&self, query: RetainedQuery) -> Result<RetainedPage, StoreError> {
        let rows = self.rows();
        let (mut page, mut bytes) = (RetainedPage::default(), 0);
        let of_tenant = rows.iter().filter(|((tenant, _), _)| *tenant == query.tenant);
        let behind = |topic: &str| query.after.as_ref().is_none_or(|after| topic > after.as_str());
        for ((tenant, topic), row) in of_tenant.filter(|((_, topic), _)| behind(topic)) {
            if !drover_types::matches(&query.filter, topic) || row.has_expired(query.now_ms) {
                continue;
            }
            let name = TopicName::new(topic).map_err(crate::adapters::rows::corrupt)?;
            let Some(message) = row.clone().message(tenant.clone(), name.clone())? else { continue };
            bytes += message.bytes();
            page.messages.push(message);
            if page.messages.len() >= query.messages_max || bytes >= query.bytes_max {
                page.next = Some(name);
                break;
            }
        }
        Ok(page)
    }

    async fn sweep(&self, now_ms: u64) -> Result<usize, StoreError> {
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|_, row| !row.is_over(now_ms));
        Ok(before - rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{BOUNDS, RetainedFactory, retained};

    struct Memory(SharedRetained);

    #[async_trait]
    impl RetainedFactory for Memory {
        async fn open(&self) -> Arc<dyn RetainedStore> {
            Arc::new(self.0.clone())
        }
    }

    #[tokio::test]
    async fn retained_messages_in_memory_keep_every_promise() {
        retained(&Memory(SharedRetained::new(BOUNDS))).await;
    }
}
