//! Audit trails in the embedded store: a bounded number of rows a tenant, the oldest swept away as others come.
//!
//! Entries need no fsync of their own: the journal keeps the order of commits, and the commit that forgets their rows of
//! the outbox has one.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;

use drover_types::TenantId;
use fjall::OwnedWriteBatch;

use super::{Embedded, Open, keys, store_error};
use crate::audit::{Entry, KEPT_MS, Position};
use crate::ports::{AuditPage, StoreError};

/// What is kept of a tenant's trail.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How much older than the newest an entry may be, milliseconds.
    pub kept_ms: u64,
    pub entries_max: u64,
}

/// Of some 200 bytes each, before they are compressed.
const BOUNDS: Bounds = Bounds { kept_ms: KEPT_MS, entries_max: 500_000 };
/// Most entries that are swept away at once beyond as many as come; so a trail does not grow, and no write waits for long.
const SWEPT_MAX: usize = 256;

impl Embedded {
    pub(super) async fn put_entries(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        self.put_entries_within(entries, BOUNDS).await
    }

    pub(super) async fn put_entries_within(&self, entries: Vec<Entry>, bounds: Bounds) -> Result<(), StoreError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut by_tenant: BTreeMap<TenantId, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            by_tenant.entry(entry.tenant.clone()).or_default().push(entry);
        }
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _alone = shared.auditing.lock().unwrap_or_else(PoisonError::into_inner);
            let open = shared.database.opened()?;
            let mut batch = open.database.batch().durability(None);
            for (tenant, entries) in &by_tenant {
                open.stage_entries(&mut batch, tenant, entries, bounds)?;
            }
            Ok(shared.database.commit(&open, batch)?)
        });
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }

    pub(super) async fn entries(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let (from, to) = (keys::audit(tenant, &Position::at(oldest_ms)), keys::audit(tenant, before));
        if from >= to {
            return Ok(AuditPage::default());
        }
        self.read(move |open| {
            let mut entries = Vec::new();
            for row in open.rows.range(from..to).rev().take(limit) {
                let (_, row) = row.into_inner().map_err(store_error)?;
                entries.push(keys::read_entry(&row)?);
            }
            let next = entries.last().filter(|_| entries.len() == limit).map(Entry::position);
            Ok(AuditPage { entries, next })
        })
        .await
    }
}

impl Open {
    /// Adds entries of one tenant to the batch, and takes away the oldest for which there is no room any more.
    fn stage_entries(
        &self,
        batch: &mut OwnedWriteBatch,
        tenant: &TenantId,
        entries: &[Entry],
        bounds: Bounds,
    ) -> Result<(), StoreError> {
        let (prefix, counter) = (keys::audit_of(tenant), keys::audit_count(tenant));
        let counted = self.rows.get(&counter).map_err(store_error)?;
        let mut count = counted.map_or(Ok(0), |row| keys::read_number(&row))?;
        let mut coming: HashSet<Vec<u8>> = HashSet::with_capacity(entries.len());
        for entry in entries {
            let key = keys::audit(tenant, &entry.position());
            if coming.insert(key.clone()) {
                count += u64::from(!self.rows.contains_key(&key).map_err(store_error)?);
                batch.insert(&self.rows, key, keys::write_entry(entry));
            }
        }
        let newest_ms = entries.iter().map(|entry| entry.time_ms).max().unwrap_or(0);
        let oldest_ms = newest_ms.saturating_sub(bounds.kept_ms);
        for row in self.rows.prefix(&prefix).take(entries.len() + SWEPT_MAX) {
            let key = row.key().map_err(store_error)?;
            if count <= bounds.entries_max && keys::time_of_audit(&prefix, &key)? >= oldest_ms {
                break;
            }
            // One batch says one thing of a row: what comes stays.
            if !coming.contains(key.as_ref()) {
                batch.remove(&self.rows, key);
                count = count.saturating_sub(1);
            }
        }
        batch.insert(&self.rows, counter, count.to_be_bytes());
        Ok(())
    }
}
