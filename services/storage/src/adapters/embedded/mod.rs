//! The embedded store: one fjall database in a directory of its own, three tables whose keys sort as they are asked for.
//!
//! Adapter layer. Storing again writes the same rows again; only the table of newest points is read before it is
//! written, so writers take turns. After a failed write the database is dropped and opened again by the next call,
//! which cuts what was half-written.

mod expiry;
mod keys;
mod open;

use std::collections::HashMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use drover_fjall_kit::{OpenError, Reopened};
use drover_types::{DeviceId, DeviceKey, TenantId};
use fjall::{Keyspace, OwnedWriteBatch, PersistMode};

use super::rows;
use crate::config::EmbeddedLimits;
use crate::ports::{Expired, Limit, Page, SeriesStore, StoreError};
use crate::series::{Entry, Field, Message, Place, Point, Series};
use open::{Open, store_error};

/// The embedded store.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    database: Reopened<Open>,
    /// Held from reading the newest points to writing them.
    writing: Mutex<()>,
}

impl Embedded {
    /// Opens the store in `directory`, or makes it.
    pub fn open(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        Ok(Self(Arc::new(Inner { database: open::database(directory, limits)?, writing: Mutex::new(()) })))
    }

    /// Runs a read or a write where blocking is allowed.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Arc<Open>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let task = tokio::task::spawn_blocking(move || work(&inner, &inner.database.opened()?));
        task.await.unwrap_or_else(|e| Err(StoreError::Unavailable { reason: e.to_string() }))
    }
}

#[async_trait]
impl SeriesStore for Embedded {
    async fn store(&self, entries: Arc<Vec<Entry>>) -> Result<(), StoreError> {
        self.run(move |inner, open| {
            let _turn = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
            stage(open, &entries, &mut batch)?;
            Ok(inner.database.commit(open, batch)?)
        })
        .await
    }

    async fn newest(&self, device: &DeviceKey, from: &str, limit: Limit) -> Result<Page<Point, Field>, StoreError> {
        let prefix = keys::device(device);
        let from = [prefix.as_slice(), from.as_bytes()].concat();
        self.run(move |_, open| {
            let rows = under(&open.newest, &prefix, Bound::Included(from)).map(|row| {
                let (key, row) = row?;
                let point = rows::read_newest(rows::read_field(&key[prefix.len()..])?, &row)?;
                Ok((point.bytes(), point.field.clone(), point))
            });
            page(rows, limit)
        })
        .await
    }

    async fn points(
        &self,
        series: &Series,
        from: Place,
        to_ms: u64,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError> {
        let (prefix, field) = (keys::series(series), series.field.clone());
        if from >= Place::first_of(to_ms) {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        self.run(move |_, open| {
            let span = keys::at(&prefix, from)..keys::at(&prefix, Place::first_of(to_ms));
            page(open.points.range(span).map(|row| point(&field, row)), limit)
        })
        .await
    }

    async fn points_back(
        &self,
        series: &Series,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError> {
        let (prefix, field) = (keys::series(series), series.field.clone());
        if last < Place::first_of(from_ms) {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        self.run(move |_, open| {
            let span = keys::at(&prefix, Place::first_of(from_ms))..=keys::at(&prefix, last);
            page(open.points.range(span).rev().map(|row| point(&field, row)), limit)
        })
        .await
    }

    async fn messages(
        &self,
        device: &DeviceKey,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Message, Place>, StoreError> {
        let prefix = keys::device(device);
        if last < Place::first_of(from_ms) {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        self.run(move |_, open| {
            let span = keys::at(&prefix, Place::first_of(from_ms))..=keys::at(&prefix, last);
            let rows = open.messages.range(span).rev().map(|row| {
                let (key, row) = row.into_inner().map_err(store_error)?;
                let message = rows::read_message(keys::split(&key)?.1, &row)?;
                Ok((message.bytes(), message.at, message))
            });
            page(rows, limit)
        })
        .await
    }

    /// One look a device: from the first message of one to the first behind all of its messages.
    async fn devices(
        &self,
        tenant: &TenantId,
        from: Option<Vec<u8>>,
        rows: usize,
    ) -> Result<Page<DeviceId, Vec<u8>>, StoreError> {
        let prefix = keys::tenant(tenant);
        let mut at = from.unwrap_or_else(|| prefix.clone());
        self.run(move |_, open| {
            let mut found = Vec::new();
            loop {
                let Some(row) = under(&open.messages, &prefix, Bound::Included(at)).next() else {
                    return Ok(Page { rows: found, next: None });
                };
                let (key, _) = row?;
                let name = keys::first_name(&key[prefix.len()..])?;
                if found.len() >= rows {
                    return Ok(Page { rows: found, next: Some([prefix.as_slice(), name.as_bytes()].concat()) });
                }
                at = keys::behind(&prefix, name);
                found.push(DeviceId::new(name).map_err(rows::corrupt)?);
            }
        })
        .await
    }

    async fn expire(&self, before_ms: u64, from: Option<Vec<u8>>) -> Result<Expired, StoreError> {
        self.run(move |inner, open| {
            let _turn = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            expiry::step(&inner.database, open, before_ms, from)
        })
        .await
    }
}

/// Adds the rows of all entries to a batch.
fn stage(open: &Open, entries: &[Entry], batch: &mut OwnedWriteBatch) -> Result<(), StoreError> {
    let mut newest: HashMap<Vec<u8>, (Place, Vec<u8>)> = HashMap::new();
    for Entry { device, message, values } in entries {
        let (of_device, at) = (keys::device(device), message.at);
        batch.insert(&open.messages, keys::at(&of_device, at), rows::write_message(message));
        for (field, value) in values {
            let row = rows::write_point(&message.topic, value);
            batch.insert(&open.points, keys::at(&keys::points_of(device, field), at), row.as_slice());
            let key = [of_device.as_slice(), field.as_str().as_bytes()].concat();
            let known = newest.entry(key).or_insert_with(|| (at, Vec::new()));
            if known.0 <= at {
                *known = (at, row);
            }
        }
    }
    for (key, (at, row)) in newest {
        let known = open.newest.get(&key).map_err(store_error)?;
        let known = known.map(|row| rows::newest_place(&row)).transpose()?;
        if known.is_none_or(|known| known < at) {
            batch.insert(&open.newest, key, rows::write_newest(at, &row));
        }
    }
    Ok(())
}

type Row = (fjall::UserKey, fjall::UserValue);

/// Rows under a prefix.
fn under<'p>(
    table: &Keyspace,
    prefix: &'p [u8],
    from: Bound<Vec<u8>>,
) -> impl Iterator<Item = Result<Row, StoreError>> + use<'p> {
    let rows = table.range((from, Bound::Unbounded)).map(|row| row.into_inner().map_err(store_error));
    rows.take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
}

/// A point as it is kept, with its bytes and where it stands.
fn point(field: &Field, row: fjall::Guard) -> Result<(usize, Place, Point), StoreError> {
    let (key, row) = row.into_inner().map_err(store_error)?;
    let point = rows::read_point(field.clone(), keys::split(&key)?.1, &row)?;
    Ok((point.bytes(), point.at, point))
}

/// Rows up to a limit, each with its bytes and where it stands.
fn page<T, N>(
    rows: impl Iterator<Item = Result<(usize, N, T), StoreError>>,
    limit: Limit,
) -> Result<Page<T, N>, StoreError> {
    let (mut found, mut total) = (Vec::new(), 0);
    for row in rows {
        let (bytes, at, row) = row?;
        if !found.is_empty() && (found.len() >= limit.rows || total >= limit.bytes) {
            return Ok(Page { rows: found, next: Some(at) });
        }
        total += bytes;
        found.push(row);
    }
    Ok(Page { rows: found, next: None })
}

#[cfg(test)]
mod tests;
