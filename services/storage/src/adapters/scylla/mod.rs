//! The store in Cassandra or Scylla, shared by any number of processes.
//!
//! Adapter layer. Every write sets whole rows at a timestamp that is the time of its message, in milliseconds: storing
//! again changes nothing, and of the newest points the later one stays whichever arrives last. A newest point is one
//! cell that begins with time and id, for among writes of one timestamp the greater value stays. What is too old goes
//! by its time to live. Rows lie in slices of time (`slices`), which are listed by device and day.

mod devices;
mod listed;
mod read;
mod schema;
mod slices;
mod write;

use std::sync::Arc;

use async_trait::async_trait;
use drover_scylla_kit::{Cassandra, Failure, OpenError, Store};
use drover_types::{DeviceId, DeviceKey, RecordId, TenantId};
use futures::TryStreamExt;
use tokio::time::Instant;

use super::rows;
use crate::ports::{Expired, Limit, Page, SeriesStore, StoreError};
use crate::series::{Entry, Field, Message, Place, Point, Series};
use listed::Listed;
use read::Span;
use schema::{DAY_MS, SCHEMA, Statements};

/// Latest time there is, milliseconds since the Unix epoch: the end of the year 9999.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// The store.
pub struct Scylla {
    store: Store,
    statements: Statements,
    /// Time to live of rows, seconds; 0: for ever.
    ttl_s: i32,
    listed: Listed,
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
        Ok(Self { store, statements, ttl_s, listed: Listed::new(Instant::now()) })
    }

    /// A page of the points of a span, which are of `field`.
    async fn points_of(&self, field: &Field, span: Span<'_>) -> Result<Page<Point, Place>, StoreError> {
        let mut page = Filling::new(span.limit);
        if span.last < span.first {
            return Ok(page.done());
        }
        let mut found = self.span(span).await?;
        while let Some((at, row)) = found.next().await? {
            let point = rows::read_point(field.clone(), at, &row)?;
            if !page.push(point.bytes(), at, point) {
                break;
            }
        }
        Ok(page.done())
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
        let Some(last_ms) = to_ms.min(TIME_MS_MAX + 1).checked_sub(1) else { return Ok(Filling::new(limit).done()) };
        let (Series { device, field }, last) = (series, Place::last_of(last_ms));
        self.points_of(field, Span { device, field: Some(field), first: from, last, backwards: false, limit }).await
    }

    async fn points_back(
        &self,
        series: &Series,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError> {
        let Series { device, field } = series;
        let (first, last) = (Place::first_of(from_ms), last.min(Place::last_of(TIME_MS_MAX)));
        self.points_of(field, Span { device, field: Some(field), first, last, backwards: true, limit }).await
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
        let first = Place::first_of(from_ms);
        let mut found = self.span(Span { device, field: None, first, last, backwards: true, limit }).await?;
        while let Some((at, row)) = found.next().await? {
            let message = rows::read_message(at, &row)?;
            if !page.push(message.bytes(), at, message) {
                break;
            }
        }
        Ok(page.done())
    }

    async fn heard(&self, device: &DeviceKey) -> Result<Option<u64>, StoreError> {
        let names = (device.tenant.as_str(), device.device.as_str());
        let row = self.store.row::<(i64,)>(&self.statements.heard, names).await.map_err(store_error)?;
        row.map(|(time_ms,)| u64::try_from(time_ms).map_err(rows::corrupt)).transpose()
    }

    async fn devices(
        &self,
        tenant: &TenantId,
        from: Option<Vec<u8>>,
        rows: usize,
    ) -> Result<Page<DeviceId, Vec<u8>>, StoreError> {
        let mut at = from.as_deref().map_or_else(|| Ok(devices::Cursor::default()), devices::Cursor::read)?;
        let mut found = Vec::new();
        loop {
            // The first that is left out says where the next page begins.
            let asked = (tenant.as_str(), i32::from(at.shard), at.name.as_str(), one_more(rows - found.len()));
            let mut names =
                self.store.stream::<(String,)>(&self.statements.devices, asked).await.map_err(store_error)?;
            while let Some((name,)) = names.try_next().await.map_err(store_error)? {
                if found.len() >= rows {
                    return Ok(Page { rows: found, next: Some(devices::Cursor { name, ..at }.write()) });
                }
                found.push(DeviceId::new(name).map_err(rows::corrupt)?);
            }
            match at.next_shard() {
                Some(next) => at = next,
                None => return Ok(Page { rows: found, next: None }),
            }
        }
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

/// The day of a time, counted from the Unix epoch.
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
