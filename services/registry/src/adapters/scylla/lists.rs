//! Lists in the order of names, out of shards that know nothing of each other.

use std::collections::VecDeque;

use drover_types::{DeviceKey, TenantId};
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Scylla, rows};
use crate::object::{Kind, Object, ObjectKey};
use crate::ports::StoreError;

/// Requests of one list under way at once.
const CONCURRENT: usize = 16;
/// Rows asked of a shard beyond its even share of a page.
const SPARE_ROWS: usize = 8;
/// Most rows of one answer.
const ROWS_MAX: usize = 1_000;

/// What is known of one shard: rows that were read and not taken, and where to read on.
struct Cursor {
    shard: i32,
    after: String,
    ready: VecDeque<Object>,
    more: bool,
}

impl Scylla {
    pub(super) async fn list(
        &self,
        kind: Kind,
        tenant: &TenantId,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Object>, StoreError> {
        let shards = rows::shards(kind);
        let share = limit / shards.unsigned_abs() as usize + SPARE_ROWS;
        let start = |shard| Cursor { shard, after: after.to_owned(), ready: VecDeque::new(), more: true };
        let mut cursors: Vec<Cursor> = (0..shards).map(start).collect();
        let mut found = Vec::new();
        while found.len() < limit {
            let fills = cursors.into_iter().map(|cursor| self.fill(kind, tenant, cursor, share.min(ROWS_MAX)).boxed());
            cursors = stream::iter(fills).buffered(CONCURRENT).try_collect().await?;
            // As long as every shard that has more shows its next one, the least of them is the next of all.
            while found.len() < limit && cursors.iter().all(|cursor| !cursor.ready.is_empty() || !cursor.more) {
                let least = cursors.iter_mut().filter(|cursor| !cursor.ready.is_empty());
                let Some(next) = least.min_by(|a, b| a.ready[0].meta.name.cmp(&b.ready[0].meta.name)) else {
                    return Ok(found);
                };
                found.extend(next.ready.pop_front());
            }
        }
        Ok(found)
    }

    /// Reads on in a shard of which nothing is ready.
    async fn fill(
        &self,
        kind: Kind,
        tenant: &TenantId,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<Cursor, StoreError> {
        if !cursor.more || !cursor.ready.is_empty() {
            return Ok(cursor);
        }
        let rows_wanted = i32::try_from(limit).unwrap_or(i32::MAX);
        let values = (kind.as_str(), tenant.as_str(), cursor.shard, &cursor.after, rows_wanted);
        let found: Vec<(String, i64, Vec<u8>)> = self.store.rows(&self.statements.page, values).await?;
        cursor.more = found.len() >= limit;
        if let Some((name, ..)) = found.last() {
            cursor.after.clone_from(name);
        }
        let objects = found.into_iter().map(|(_, revision, bytes)| rows::read_object(&bytes, revision));
        cursor.ready = objects.collect::<Result<_, _>>()?;
        Ok(cursor)
    }

    pub(super) async fn by_digest(&self, digest: &[u8]) -> Result<Option<Object>, StoreError> {
        let row: Option<(String, String)> = self.store.row(&self.statements.by_digest, (digest,)).await?;
        let Some((tenant, name)) = row else { return Ok(None) };
        let found = self.object(&rows::key(Kind::Credential.as_str(), &tenant, name)?).await?;
        // The index follows the head: what the head no longer says is no longer so.
        Ok(found.filter(|object| object.credential().is_some_and(|(credential, _)| credential.digest == *digest)))
    }

    pub(super) async fn credentials(&self, device: &DeviceKey) -> Result<Vec<Object>, StoreError> {
        let values = (device.tenant.as_str(), device.device.as_str());
        // Of a device that has none left the row says only that it had some.
        let names: Vec<(Option<String>,)> = self.store.rows(&self.statements.credentials, values).await?;
        let keys = names.into_iter().filter_map(|(name,)| name);
        let keys = keys.map(|name| ObjectKey::new(Kind::Credential, &device.tenant, name));
        let reads: Vec<BoxFuture<'_, _>> = keys.map(|key| async move { self.object(&key).await }.boxed()).collect();
        let found: Vec<Option<Object>> = stream::iter(reads).buffered(CONCURRENT).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}
