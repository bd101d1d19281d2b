//! The store as tables: a scan reads the devices, fields and times that a question wants, page by page, as it is drained.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use drover_types::{DeviceId, DeviceKey, TenantId};
use tokio::sync::mpsc::Sender;

use super::asker::Asker;
use super::columns::{self, Columns};
use super::errors::exhausted;
use super::wanted::Wanted;
use crate::domain::Queries;
use crate::ports::{Limit, Page, StoreError};
use crate::series::{Field, Place, Series};

/// What one read brings.
const PAGE: Limit = Limit { rows: 1_000, bytes: 512 * 1024 };
/// Devices of one page of their list, and fields of one page of theirs.
const NAMES: usize = 1_000;
/// Batches that are read ahead.
const READ_AHEAD: usize = 2;

/// What all tables of one question have in common.
#[derive(Debug)]
pub struct Question {
    asker: Asker,
    rows_read: AtomicU64,
    rows_read_max: u64,
}

impl Question {
    /// That has read nothing, and may read so many rows.
    pub const fn new(asker: Asker, rows_read_max: u64) -> Self {
        Self { asker, rows_read: AtomicU64::new(0), rows_read_max }
    }

    /// Counts further rows. The error: they are too many, or nobody waits for them.
    fn read(&self, rows: usize) -> Result<()> {
        self.asker.check()?;
        let rows_read = self.rows_read.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        let limit = self.rows_read_max;
        if rows_read <= limit {
            return Ok(());
        }
        let message = format!("reads more than {limit} rows: name a device, a field, or a shorter span of time");
        Err(DataFusionError::External(Box::new(exhausted(message, limit, rows_read))))
    }
}

/// What rows are.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Telemetry,
    Points,
}

impl Kind {
    /// The table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Points => "points",
        }
    }

    fn schema(self) -> SchemaRef {
        Arc::clone(match self {
            Self::Telemetry => columns::TELEMETRY.schema(),
            Self::Points => columns::POINTS.schema(),
        })
    }
}

/// A table over the store.
#[derive(Clone)]
pub struct Table {
    kind: Kind,
    tenant: TenantId,
    queries: Arc<Queries>,
    question: Arc<Question>,
}

impl Table {
    /// Of the rows of one tenant, for one question.
    pub fn new(kind: Kind, tenant: TenantId, queries: Arc<Queries>, question: Arc<Question>) -> Self {
        Self { kind, tenant, queries, question }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())
    }
}

#[async_trait]
impl TableProvider for Table {
    fn schema(&self) -> SchemaRef {
        self.kind.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema().fields().len()).collect());
        let schema = Arc::new(self.schema().project(&columns)?);
        let (table, wanted) = (self.clone(), Wanted::by(filters));
        let scan = Scan { table, wanted, columns, schema: Arc::clone(&schema) };
        let ordering = scan.ordering();
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, ordering, false, limit)?))
    }
}

/// One reading of a table.
#[derive(Clone, Debug)]
struct Scan {
    table: Table,
    wanted: Wanted,
    /// Numbers of those asked for.
    columns: Vec<usize>,
    /// Of these.
    schema: SchemaRef,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), READ_AHEAD);
        let (scan, rows) = (self.clone(), stream.tx());
        stream.spawn(async move {
            match scan.read(&rows).await {
                Err(Ended::Failed(error)) => Err(error),
                Ok(()) | Err(Ended::NoLongerAsked) => Ok(()),
            }
        });
        stream.build()
    }
}

/// Why a reading ended before its end.
enum Ended {
    NoLongerAsked,
    Failed(DataFusionError),
}

impl From<DataFusionError> for Ended {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Failed(DataFusionError::External(Box::new(error)))
    }
}

type Rows = Sender<Result<RecordBatch>>;
type Reading = std::result::Result<(), Ended>;

impl Scan {
    /// The order of its rows: by time, the newest first, where they are messages of one device or points of one of its fields.
    fn ordering(&self) -> Option<LexOrdering> {
        let is_one = |names: &Option<BTreeSet<String>>| names.as_ref().is_some_and(|names| names.len() == 1);
        let is_ordered = match self.table.kind {
            Kind::Telemetry => is_one(&self.wanted.devices),
            Kind::Points => is_one(&self.wanted.devices) && is_one(&self.wanted.fields),
        };
        let time = self.schema.index_of(columns::TIME).ok().filter(|_| is_ordered)?;
        let newest_first = SortOptions { descending: true, nulls_first: true };
        LexOrdering::new([PhysicalSortExpr::new(Arc::new(Column::new(columns::TIME, time)), newest_first)])
    }

    async fn read(&self, rows: &Rows) -> Reading {
        if let Some(names) = &self.wanted.devices {
            // What is no name of a device has sent nothing.
            for device in names.iter().filter_map(|name| DeviceId::new(name.as_str()).ok()) {
                self.device(device, rows).await?;
            }
            return Ok(());
        }
        let mut from = None;
        loop {
            let page = self.table.queries.store.devices(&self.table.tenant, from, NAMES).await?;
            for device in page.rows {
                self.device(device, rows).await?;
            }
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn device(&self, device: DeviceId, rows: &Rows) -> Reading {
        let device = DeviceKey { tenant: self.table.tenant.clone(), device };
        match self.table.kind {
            Kind::Telemetry => self.messages(&device, rows).await,
            Kind::Points => self.fields(&device, rows).await,
        }
    }

    /// Newest first.
    async fn messages(&self, device: &DeviceKey, rows: &Rows) -> Reading {
        let (from_ms, mut last) = self.span();
        while let Some(at) = last {
            let page = self.table.queries.store.messages(device, from_ms, at, PAGE).await?;
            self.send(&columns::TELEMETRY, &device.device, &page.rows, rows).await?;
            last = page.next;
        }
        Ok(())
    }

    async fn fields(&self, device: &DeviceKey, rows: &Rows) -> Reading {
        if let Some(names) = &self.wanted.fields {
            for field in names.iter().filter_map(|name| Field::new(name.as_str()).ok()) {
                self.points(Series { device: device.clone(), field }, rows).await?;
            }
            return Ok(());
        }
        let mut from = String::new();
        loop {
            let limit = Limit { rows: NAMES, ..PAGE };
            let Page { rows: newest, next } = self.table.queries.store.newest(device, &from, limit).await?;
            for point in newest {
                self.points(Series { device: device.clone(), field: point.field }, rows).await?;
            }
            match next {
                Some(next) => from = next.as_str().to_owned(),
                None => return Ok(()),
            }
        }
    }

    /// Newest first.
    async fn points(&self, series: Series, rows: &Rows) -> Reading {
        let (from_ms, mut last) = self.span();
        while let Some(at) = last {
            let page = self.table.queries.store.points_back(&series, from_ms, at, PAGE).await?;
            self.send(&columns::POINTS, &series.device.device, &page.rows, rows).await?;
            last = page.next;
        }
        Ok(())
    }

    /// When what is wanted begins, and its last place; `None`: there is none. What is older than the retention is not shown,
    /// whether it is removed already or not.
    fn span(&self) -> (u64, Option<Place>) {
        let from_ms = self.wanted.from_ms.max(self.table.queries.horizon_ms());
        let last_ms = self.wanted.to_ms.checked_sub(1).filter(|last_ms| *last_ms >= from_ms);
        (from_ms, last_ms.map(Place::last_of))
    }

    async fn send<R: Sync>(&self, of: &Columns<R>, device: &DeviceId, found: &[R], rows: &Rows) -> Reading {
        if found.is_empty() {
            return Ok(());
        }
        self.table.question.read(found.len())?;
        let batch = of.batch(device, found, &self.columns, &self.schema)?;
        rows.send(Ok(batch)).await.map_err(|_| Ended::NoLongerAsked)
    }
}
