//! The store in Cassandra or Scylla, shared by any number of processes.
//!
//! Adapter layer. Every write sets whole rows at a timestamp that is the time of its message, in milliseconds: storing
//! again changes nothing, and of the newest points the later one stays whichever arrives last. A newest point is one
//! cell that begins with time and id, for among writes of one timestamp the greater value stays. What is too old goes
//! by its time to live.

mod schema;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use drover_scylla_kit::{Cassandra, Failure, OpenError, Store};
use drover_types::{DeviceKey, RecordId};
use futures::TryStreamExt;

use super::rows;
use crate::ports::{Expired, Limit, Page, SeriesStore, StoreError};
use crate::series::{Entry, Field, Message, Place, Point, Series};
use schema::{DAY_MS, SCHEMA, Statements};
use write::KnownDays;

/// Latest time there is, milliseconds since the Unix epoch: the end of the year 9999.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// The store.
pub struct Scylla {
    store: Store,
    statements: Statements,
    /// Time to live of rows, seconds; 0: for ever.
    ttl_s: i32,
    known_days: KnownDays,
}

impl Scylla {
    /// Opens the store, making its tables; waits while the database is away and tells why. Rows written from now on
    /// are forgotten after `retention_ms`; `None`: never.
    pub async fn open(
        cassandra: &Cassandra,
        retention_ms: Option<u64>,
        waiting: impl Fn(&OpenError),
    ) -> Result<Self, OpenError> {
        let store = cassandra.open_when_there(&SCHEMA, waiting).await?;
        let statements = Statements::prepare(&store).await.map_err(|failure| OpenError::Failed {
            doing: "preparing the statements of storage".to_owned(),
            failure,
        })?;
        let ttl_s = retention_ms.map_or(0, |kept_ms| i32::try_from(kept_ms.div_ceil(1_000)).unwrap_or(i32::MAX));
        Ok(Self { store, statements, ttl_s, known_days: KnownDays::default() })
    }
}

#[async_trait]
impl SeriesStore for Scylla {
    async fn store(&self, batch: Arc<Vec<Entry>>) -> Result<(), StoreError> {
        self.write(&batch).await
    }

    async fn newest(&self, device: &DeviceKey, from: &str, limit: Limit) -> Result<Page<Point, Field>, StoreError> {
        let (tenant, name) = (device.tenant.as_str(), device.device.as_str());
        let rows =
            self.store.stream::<(String, Vec<u8>)>(&self.statements.newest, (tenant, name, from, one_more(limit.rows)));
        let mut rows = rows.await.map_err(store_error)?;
        let mut page = Filling::new(limit);
        while let Some((field, row)) = rows.try_next().await.map_err(store_error)? {
            let point = rows::read_newest(rows::read_field(field.as_bytes())?, &row)?;
            if !page.push(point.bytes(), point.field.clone(), point) {
                break;
            }
        }
        Ok(page.done())
    }

    async fn points(
        &self,
        series: &Series,
        from: Place,
        to_ms: u64,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError> {
        let (to_ms, mut page) = (to_ms.min(TIME_MS_MAX + 1), Filling::new(limit));
        if from.time_ms >= to_ms {
            return Ok(page.done());
        }
        let (tenant, device) = (series.device.tenant.as_str(), series.device.device.as_str());
        let span = (tenant, device, day(from.time_ms), day(to_ms - 1));
        let days = self.store.stream::<(i32,)>(&self.statements.days_up, span).await.map_err(store_error)?;
        let mut days = days.map_err(store_error);
        while let Some((day,)) = days.try_next().await? {
            let (from_ms, end_ms) = (from.time_ms.cast_signed(), to_ms.cast_signed());
            let (from_id, end_id) = (from.id.0.as_slice(), [0u8; 16].as_slice());
            let field = series.field.as_str();
            let span = (tenant, device, field, day, from_ms, from_id, end_ms, end_id, one_more(page.left()));
            let rows = self.store.stream::<(i64, Vec<u8>, Vec<u8>)>(&self.statements.points, span).await;
            let mut rows = rows.map_err(store_error)?;
            while let Some((time_ms, id, row)) = rows.try_next().await.map_err(store_error)? {
                let point = rows::read_point(series.field.clone(), place(time_ms, &id)?, &row)?;
                if !page.push(point.bytes(), point.at, point) {
                    return Ok(page.done());
                }
            }
        }
        Ok(page.done())
    }

    async fn messages(
        &self,
        device: &DeviceKey,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Message, Place>, StoreError> {
        let (last, mut page) = (last.min(Place::last_of(TIME_MS_MAX)), Filling::new(limit));
        if last.time_ms < from_ms {
            return Ok(page.done());
        }
        let (tenant, name) = (device.tenant.as_str(), device.device.as_str());
        let span = (tenant, name, day(from_ms), day(last.time_ms));
        let days = self.store.stream::<(i32,)>(&self.statements.days_down, span).await.map_err(store_error)?;
        let mut days = days.map_err(store_error);
        while let Some((day,)) = days.try_next().await? {
            let (from_ms, last_ms) = (from_ms.cast_signed(), last.time_ms.cast_signed());
            let (from_id, last_id) = ([0u8; 16].as_slice(), last.id.0.as_slice());
            let span = (tenant, name, day, from_ms, from_id, last_ms, last_id, one_more(page.left()));
            let rows = self.store.stream::<(i64, Vec<u8>, Vec<u8>)>(&self.statements.messages, span).await;
            let mut rows = rows.map_err(store_error)?;
            while let Some((time_ms, id, row)) = rows.try_next().await.map_err(store_error)? {
                let message = rows::read_message(place(time_ms, &id)?, &row)?;
                if !page.push(message.bytes(), message.at, message) {
                    return Ok(page.done());
                }
            }
        }
        Ok(page.done())
    }

    async fn heard(&self, device: &DeviceKey) -> Result<Option<u64>, StoreError> {
        let names = (device.tenant.as_str(), device.device.as_str());
        let row = self.store.row::<(i64,)>(&self.statements.heard, names).await.map_err(store_error)?;
        row.map(|(time_ms,)| u64::try_from(time_ms).map_err(rows::corrupt)).transpose()
    }

    async fn expire(&self, _before_ms: u64, _from: Option<Vec<u8>>) -> Result<Expired, StoreError> {
        Ok(Expired::default())
    }
}

/// A page that fills up to its limit.
struct Filling<T, N> {
    limit: Limit,
    bytes: usize,
    page: Page<T, N>,
}

impl<T, N> Filling<T, N> {
    fn new(limit: Limit) -> Self {
        Self { limit, bytes: 0, page: Page { rows: Vec::new(), next: None } }
    }

    /// Rows that may still come.
    fn left(&self) -> usize {
        self.limit.rows.saturating_sub(self.page.rows.len())
    }

    /// Adds a row that stands at `at`. False: there was no room for it.
    fn push(&mut self, bytes: usize, at: N, row: T) -> bool {
        let full = self.page.rows.len() >= self.limit.rows || self.bytes >= self.limit.bytes;
        if full && !self.page.rows.is_empty() {
            self.page.next = Some(at);
            return false;
        }
        self.bytes += bytes;
        self.page.rows.push(row);
        true
    }

    fn done(self) -> Page<T, N> {
        self.page
    }
}

/// The `LIMIT` that shows whether there are more than `rows`.
fn one_more(rows: usize) -> i32 {
    i32::try_from(rows.saturating_add(1)).unwrap_or(i32::MAX)
}

/// The partition of a time.
fn day(time_ms: u64) -> i32 {
    i32::try_from(time_ms / DAY_MS).unwrap_or(i32::MAX)
}

fn place(time_ms: i64, id: &[u8]) -> Result<Place, StoreError> {
    let id = id.try_into().map_err(|_| rows::corrupt("an id has 16 bytes"))?;
    Ok(Place { time_ms: u64::try_from(time_ms).map_err(rows::corrupt)?, id: RecordId(id) })
}

fn store_error(failure: Failure) -> StoreError {
    match failure {
        Failure::Unavailable { reason } | Failure::Refused { reason } => StoreError::Unavailable { reason },
        Failure::Unreadable { reason } => StoreError::Corrupt { reason },
    }
}
