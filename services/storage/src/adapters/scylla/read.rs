//! Rows of a span of time, in order, from all the slices they lie in.
//!
//! The slices of one width follow each other, so their rows are in order; rows of several widths, and those that
//! versions before slices have kept, are merged by place. Only slices that are listed are read.

use std::mem;

use drover_types::DeviceKey;
use futures::future::try_join_all;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::slices::{DAYS, Kind, WIDTHS, Width};
use super::{DAY_MS, Scylla, day, one_more, place, store_error};
use crate::adapters::rows;
use crate::ports::{Limit, StoreError};
use crate::series::{Field, Place};

/// Where a row stands, and its value.
type Row = (Place, Vec<u8>);
type Rows<'s> = BoxStream<'s, Result<Row, StoreError>>;
/// Times, milliseconds since the Unix epoch.
type Times<'s> = BoxStream<'s, Result<u64, StoreError>>;

/// What is read.
#[derive(Clone, Copy)]
pub struct Span<'s> {
    pub device: &'s DeviceKey,
    /// Of points; `None`: messages.
    pub field: Option<&'s Field>,
    pub first: Place,
    /// Belongs to the span.
    pub last: Place,
    /// From the last to the first; messages always.
    pub backwards: bool,
    /// Of the page that the rows are for: no slice is asked for more.
    pub limit: Limit,
}

impl Span<'_> {
    const fn kind(&self) -> Kind {
        if self.field.is_some() { Kind::Points } else { Kind::Messages }
    }

    /// The `LIMIT` of one slice: as many of its rows as fill the page, and one that shows that there are more.
    fn rows_max(&self, width: Width) -> i32 {
        let filling = (self.limit.bytes / width.row_bytes_min.max(1)).saturating_add(1);
        one_more(self.limit.rows.min(filling))
    }
}

impl Scylla {
    /// The rows of a span.
    pub(super) async fn span<'s>(&'s self, span: Span<'s>) -> Result<Merged<'s>, StoreError> {
        let widths = WIDTHS.into_iter().chain([DAYS]);
        let sources = widths.map(|width| self.rows_of_width(span, width)).collect();
        Merged::new(sources, span.backwards).await
    }

    fn rows_of_width<'s>(&'s self, span: Span<'s>, width: Width) -> Rows<'s> {
        let slices = if width == DAYS { self.days(span, width) } else { self.slices(span, width) };
        let opening = slices.map(move |start_ms| async move { self.slice(span, width, start_ms?).await });
        opening.buffered(width.read_ahead).try_flatten().boxed()
    }

    /// When the slices of the span begin that have something.
    fn slices<'s>(&'s self, span: Span<'s>, width: Width) -> Times<'s> {
        let of_day = move |day_ms| stream::once(self.slices_of_day(span, width, day_ms)).try_flatten();
        self.days(span, width).map_ok(of_day).try_flatten().boxed()
    }

    /// When the days of the span begin that have something.
    fn days<'s>(&'s self, span: Span<'s>, width: Width) -> Times<'s> {
        stream::once(self.listed_days(span, width)).try_flatten().boxed()
    }

    async fn listed_days(&self, span: Span<'_>, width: Width) -> Result<Times<'static>, StoreError> {
        let (tenant, name) = (span.device.tenant.as_str(), span.device.device.as_str());
        let (first, last) = (day(span.first.time_ms), day(span.last.time_ms));
        let (kind, reads) = (span.kind().name(), self.statements.of(span.kind(), span.backwards));
        let days = if width == DAYS {
            self.store.stream::<(i32,)>(&reads.old_days, (tenant, name, first, last)).await
        } else {
            let values = (tenant, name, kind, width.slice_ms.cast_signed(), first, last);
            self.store.stream::<(i32,)>(&reads.days, values).await
        };
        let day_ms = |(day,): (i32,)| u64::try_from(day).map(|day| day * DAY_MS).map_err(rows::corrupt);
        let days = days.map_err(store_error)?.map_err(store_error);
        Ok(days.map(move |day| day.and_then(day_ms)).boxed())
    }

    async fn slices_of_day(&self, span: Span<'_>, width: Width, day_ms: u64) -> Result<Times<'static>, StoreError> {
        let (tenant, name) = (span.device.tenant.as_str(), span.device.device.as_str());
        let first_ms = width.start_ms(span.first.time_ms).cast_signed();
        let last_ms = span.last.time_ms.cast_signed();
        let (kind, reads) = (span.kind().name(), self.statements.of(span.kind(), span.backwards));
        let values = (tenant, name, kind, width.slice_ms.cast_signed(), day(day_ms), first_ms, last_ms);
        let slices = self.store.stream::<(i64,)>(&reads.slices, values).await;
        let start_ms = |(start_ms,): (i64,)| u64::try_from(start_ms).map_err(rows::corrupt);
        let slices = slices.map_err(store_error)?.map_err(store_error);
        Ok(slices.map(move |slice| slice.and_then(start_ms)).boxed())
    }

    /// The rows of one slice.
    async fn slice(&self, span: Span<'_>, width: Width, start_ms: u64) -> Result<Rows<'static>, StoreError> {
        let (tenant, name) = (span.device.tenant.as_str(), span.device.device.as_str());
        let (slice_ms, start, day) = (width.slice_ms.cast_signed(), start_ms.cast_signed(), day(start_ms));
        let (from, from_id) = (span.first.time_ms.cast_signed(), span.first.id.0.as_slice());
        let (to, to_id) = (span.last.time_ms.cast_signed(), span.last.id.0.as_slice());
        let (limit, reads) = (span.rows_max(width), self.statements.of(span.kind(), span.backwards));
        let (store, rows, old) = (&self.store, &reads.rows, &reads.old_rows);
        let found = match (span.field.map(Field::as_str), width == DAYS) {
            (Some(field), false) => {
                let values = (tenant, name, field, slice_ms, start, from, from_id, to, to_id, limit);
                store.stream::<(i64, Vec<u8>, Vec<u8>)>(rows, values).await
            }
            (None, false) => {
                let values = (tenant, name, slice_ms, start, from, from_id, to, to_id, limit);
                store.stream::<(i64, Vec<u8>, Vec<u8>)>(rows, values).await
            }
            (Some(field), true) => {
                let values = (tenant, name, field, day, from, from_id, to, to_id, limit);
                store.stream::<(i64, Vec<u8>, Vec<u8>)>(old, values).await
            }
            (None, true) => {
                let values = (tenant, name, day, from, from_id, to, to_id, limit);
                store.stream::<(i64, Vec<u8>, Vec<u8>)>(old, values).await
            }
        };
        let read = |(time_ms, id, row): (i64, Vec<u8>, Vec<u8>)| place(time_ms, &id).map(|at| (at, row));
        let found = found.map_err(store_error)?.map_err(store_error);
        Ok(found.map(move |row| row.and_then(read)).boxed())
    }
}

/// Rows of several sources, each of which is in order, as one; what several have comes once.
pub struct Merged<'s> {
    sources: Vec<Rows<'s>>,
    /// The next row of each source.
    heads: Vec<Option<Row>>,
    /// From the last to the first.
    backwards: bool,
}

impl<'s> Merged<'s> {
    async fn new(mut sources: Vec<Rows<'s>>, backwards: bool) -> Result<Self, StoreError> {
        let first: Vec<_> = sources.iter_mut().map(|source| source.try_next()).collect();
        let heads = try_join_all(first).await?;
        Ok(Self { sources, heads, backwards })
    }

    /// The next row; `None`: there are no more.
    pub async fn next(&mut self) -> Result<Option<Row>, StoreError> {
        let places = self.heads.iter().flatten().map(|(at, _)| *at);
        let next = if self.backwards { places.max() } else { places.min() };
        let Some(next) = next else { return Ok(None) };
        let mut found = None;
        for (head, source) in self.heads.iter_mut().zip(&mut self.sources) {
            if head.as_ref().is_some_and(|(at, _)| *at == next) {
                let following = source.try_next().await?;
                found = mem::replace(head, following);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use drover_types::{DeviceId, RecordId, TenantId};

    use super::*;

    fn row(time_ms: u64, id: u8) -> Row {
        (Place { time_ms, id: RecordId([id; 16]) }, vec![id])
    }

    fn source(rows: Vec<Row>) -> Rows<'static> {
        stream::iter(rows.into_iter().map(Ok)).boxed()
    }

    async fn all(mut merged: Merged<'_>) -> Vec<Row> {
        let mut found = Vec::new();
        while let Some(row) = merged.next().await.expect("readable") {
            found.push(row);
        }
        found
    }

    #[tokio::test]
    async fn rows_of_several_sources_come_in_order_and_once() {
        let all_rows = vec![row(1, 1), row(2, 2), row(2, 3), row(3, 1), row(9, 9)];
        let mut sources = [vec![row(2, 2), row(9, 9)], vec![], vec![row(1, 1), row(2, 3), row(3, 1)], vec![row(2, 2)]];
        let merged = Merged::new(sources.clone().into_iter().map(source).collect(), false).await.expect("readable");
        assert_eq!(all(merged).await, all_rows);
        sources.iter_mut().for_each(|rows| rows.reverse());
        let merged = Merged::new(sources.into_iter().map(source).collect(), true).await.expect("readable");
        assert_eq!(all(merged).await, all_rows.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_slice_is_asked_for_what_fills_a_page_and_one_more() {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        let rows_max = |rows, bytes, width| {
            let limit = Limit { rows, bytes };
            let (first, last) = (row(0, 0).0, row(9, 9).0);
            Span { device: &device, field: None, first, last, backwards: true, limit }.rows_max(width)
        };
        let [small, .., large] = WIDTHS;
        assert_eq!((rows_max(10, usize::MAX, small), rows_max(10, 3, small)), (11, 5));
        assert_eq!((rows_max(1_000, 3 << 20, small), rows_max(1_000, 3 << 20, large)), (1_001, 49));
        assert_eq!(rows_max(usize::MAX, usize::MAX, DAYS), i32::MAX);
    }
}
