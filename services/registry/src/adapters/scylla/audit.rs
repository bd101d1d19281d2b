//! Audit trails: a partition for each tenant and day, which goes as a whole when its entries have ended.

use drover_proto::registry::v1 as registry;
use drover_types::TenantId;
use futures::future::FutureExt;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;

use super::Scylla;
use super::rows::{corrupt, signed};
use crate::audit::{Entry, KEPT_MS, Position};
use crate::ports::{AuditPage, StoreError};
use crate::wire;

/// How long an entry stays, in seconds.
const TTL_SECONDS: i32 = (KEPT_MS / 1_000) as i32;
const MS_PER_DAY: u64 = 24 * 3600 * 1000;
const MICROS_PER_MS: i64 = 1_000;
/// Days, each a partition, that one call looks at.
const DAYS_MAX: usize = 8;
/// Requests under way at once.
const CONCURRENT: usize = 32;
/// Most rows of one answer.
const ROWS_MAX: usize = 1_000;

impl Scylla {
    pub(super) async fn put_entries(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let writes = entries.into_iter().map(|entry| self.put_entry(entry).boxed());
        stream::iter(writes).buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn put_entry(&self, entry: Entry) -> Result<(), StoreError> {
        let Position { time_ms, revision, object } = entry.position();
        let (tenant, day, time_ms) = (entry.tenant.as_str(), signed(time_ms / MS_PER_DAY), signed(time_ms));
        let row = wire::encode_entry(&entry).encode_to_vec();
        let values = (tenant, day, time_ms, signed(revision), object, row, TTL_SECONDS);
        let at = time_ms.saturating_mul(MICROS_PER_MS);
        Ok(self.store.write_at(at, &self.statements.put_audit, values).await?)
    }

    pub(super) async fn entries(
        &self,
        tenant: &TenantId,
        oldest_ms: u64,
        before: &Position,
        limit: usize,
    ) -> Result<AuditPage, StoreError> {
        let limit = limit.min(ROWS_MAX);
        let (oldest_day, last_day) = (oldest_ms / MS_PER_DAY, before.time_ms / MS_PER_DAY);
        let mut entries: Vec<Entry> = Vec::new();
        for day in (oldest_day..=last_day).rev().take(DAYS_MAX) {
            let found = self.entries_of_day(tenant, day, before, limit - entries.len()).await?;
            entries.extend(found.into_iter().take_while(|entry| entry.time_ms >= oldest_ms));
            if entries.len() == limit {
                let next = entries.last().map(Entry::position);
                return Ok(AuditPage { entries, next });
            }
        }
        let looked_from = (last_day + 1).saturating_sub(DAYS_MAX as u64);
        let next = (looked_from > oldest_day).then(|| Position::at(looked_from * MS_PER_DAY));
        Ok(AuditPage { entries, next })
    }

    async fn entries_of_day(
        &self,
        tenant: &TenantId,
        day: u64,
        before: &Position,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let Position { time_ms, revision, object } = before;
        let rows_wanted = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (tenant.as_str(), signed(day), signed(*time_ms), signed(*revision), object.as_str(), rows_wanted);
        let found: Vec<(Vec<u8>,)> = self.store.rows(&self.statements.audit, values).await?;
        let read = |(row,): (Vec<u8>,)| {
            let entry = registry::AuditEntry::decode(row.as_slice()).map_err(corrupt)?;
            wire::decode_entry(&entry).map_err(corrupt)
        };
        found.into_iter().map(read).collect()
    }
}
