//! Requests over an open keyspace: prepared once, each of a kind that says how it may be repeated.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::BatchType;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};

use crate::Failure;
use crate::options::Options;

/// Rows that travel in one answer of [`Store::stream`].
const PAGE_ROWS: i32 = 1_000;
/// Statements in one batch; servers warn beyond a few kilobytes, and a batch holds up its coordinator.
const BATCH_STATEMENTS_MAX: usize = 100;
/// The column by which a compare-and-set answers; the others differ between servers.
const APPLIED: &str = "[applied]";

/// A keyspace with its schema in place. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    session: Arc<Session>,
    options: Arc<Options>,
}

/// Reads; repeated on another node when one fails.
#[derive(Clone)]
pub struct Read(PreparedStatement);

/// A write that may be repeated: it sets or deletes, it never counts or appends.
#[derive(Clone)]
pub struct Write(PreparedStatement);

/// A compare-and-set; sent once.
#[derive(Clone)]
pub struct Conditional(PreparedStatement);

/// Writes that all happen once one of them has.
#[derive(Default)]
pub struct Batch {
    statements: Vec<PreparedStatement>,
    values: Vec<Box<dyn SerializeRow + Send + Sync>>,
}

impl Batch {
    /// Adds a write.
    pub fn push(&mut self, write: &Write, values: impl SerializeRow + Send + Sync + 'static) {
        self.statements.push(write.0.clone());
        self.values.push(Box::new(values));
    }
}

impl Store {
    pub(crate) fn new(session: Arc<Session>, options: Arc<Options>) -> Self {
        Self { session, options }
    }

    /// How long one request may take.
    pub fn request_timeout(&self) -> Duration {
        self.options.request_timeout
    }

    /// A read that sees every write that was answered.
    pub async fn prepare_read(&self, cql: &str) -> Result<Read, Failure> {
        let mut statement = self.prepare(cql).await?;
        statement.set_consistency(self.options.consistency.of_reads());
        statement.set_is_idempotent(true);
        Ok(Read(statement))
    }

    /// A read of one partition that moreover brings a compare-and-set that was cut off to its end: what it does not
    /// show then, only a request that is still on its way can bring.
    pub async fn prepare_settling_read(&self, cql: &str) -> Result<Read, Failure> {
        let mut statement = self.prepare(cql).await?;
        statement.set_consistency(self.options.serial_consistency.of_reads());
        statement.set_is_idempotent(true);
        Ok(Read(statement))
    }

    /// A write that may be repeated.
    pub async fn prepare_write(&self, cql: &str) -> Result<Write, Failure> {
        let mut statement = self.prepare(cql).await?;
        statement.set_is_idempotent(true);
        Ok(Write(statement))
    }

    /// A write with an `IF`.
    pub async fn prepare_conditional(&self, cql: &str) -> Result<Conditional, Failure> {
        let mut statement = self.prepare(cql).await?;
        statement.set_is_idempotent(false);
        statement.set_retry_policy(Some(Arc::new(FallthroughRetryPolicy::new())));
        Ok(Conditional(statement))
    }

    async fn prepare(&self, cql: &str) -> Result<PreparedStatement, Failure> {
        let timeout = self.request_timeout();
        match tokio::time::timeout(timeout, self.session.prepare(cql)).await {
            Ok(prepared) => Ok(prepared?),
            Err(_) => Err(Failure::Unavailable { reason: format!("preparing took longer than {timeout:?}") }),
        }
    }

    /// All rows of a read; for those that bound themselves by a `LIMIT` or by what a partition may hold.
    pub async fn rows<T>(&self, read: &Read, values: impl SerializeRow) -> Result<Vec<T>, Failure>
    where
        T: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        all_rows(self.session.execute_unpaged(&read.0, values).await?)
    }

    /// The first row of a read.
    pub async fn row<T>(&self, read: &Read, values: impl SerializeRow) -> Result<Option<T>, Failure>
    where
        T: for<'f, 'm> DeserializeRow<'f, 'm>,
    {
        first_row(self.session.execute_unpaged(&read.0, values).await?)
    }

    /// The rows of a read page by page, for partitions that are too large for one answer.
    pub async fn stream<T>(
        &self,
        read: &Read,
        values: impl SerializeRow,
    ) -> Result<BoxStream<'static, Result<T, Failure>>, Failure>
    where
        T: for<'f, 'm> DeserializeRow<'f, 'm> + Send + Sync + 'static,
    {
        let mut statement = read.0.clone();
        statement.set_page_size(PAGE_ROWS);
        let pager = self.session.execute_iter(statement, values).await?;
        Ok(pager.rows_stream::<T>().map_err(Failure::unreadable)?.map_err(Failure::from).boxed())
    }

    /// Writes at the time the coordinating node gives; where two writers may meet, use [`Store::write_at`].
    pub async fn write(&self, write: &Write, values: impl SerializeRow) -> Result<(), Failure> {
        Ok(self.session.execute_unpaged(&write.0, values).await.map(drop)?)
    }

    /// Writes at `timestamp`: of two writes of a cell the one with the greater timestamp stays, whichever arrives
    /// last; at the same timestamp a deletion stays. Microseconds since the Unix epoch, or any number that grows with
    /// the version of what is written and is less than that: nodes refuse timestamps far in their future.
    pub async fn write_at(&self, timestamp: i64, write: &Write, values: impl SerializeRow) -> Result<(), Failure> {
        let mut statement = write.0.clone();
        statement.set_timestamp(Some(timestamp));
        Ok(self.session.execute_unpaged(&statement, values).await.map(drop)?)
    }

    /// Writes a logged batch: once a node has taken it, all of it happens, also over partitions and tables; readers
    /// may see it in parts until then. At one `timestamp` for all of it, as [`Store::write_at`].
    ///
    /// # Panics
    /// With more than 100 statements.
    pub async fn write_all_at(&self, timestamp: i64, batch: Batch) -> Result<(), Failure> {
        let Batch { statements, values } = batch;
        assert!(statements.len() <= BATCH_STATEMENTS_MAX, "a batch has at most {BATCH_STATEMENTS_MAX} statements");
        let statements = statements.into_iter().map(Into::into).collect();
        let mut batch = scylla::statement::batch::Batch::new_with_statements(BatchType::Logged, statements);
        batch.set_is_idempotent(true);
        batch.set_timestamp(Some(timestamp));
        Ok(self.session.batch(&batch, values).await.map(drop)?)
    }

    /// Whether the condition held and the write was made. After [`Failure::Unavailable`] nobody knows, and it may
    /// still happen: read it again by [`Store::prepare_settling_read`], never guess.
    pub async fn try_write(&self, write: &Conditional, values: impl SerializeRow) -> Result<bool, Failure> {
        applied(self.session.execute_unpaged(&write.0, values).await?)
    }
}

fn rows_of(result: QueryResult) -> Result<QueryRowsResult, Failure> {
    result.into_rows_result().map_err(Failure::unreadable)
}

pub(crate) fn all_rows<T>(result: QueryResult) -> Result<Vec<T>, Failure>
where
    T: for<'f, 'm> DeserializeRow<'f, 'm>,
{
    let rows = rows_of(result)?;
    rows.rows().map_err(Failure::unreadable)?.map(|row| row.map_err(Failure::unreadable)).collect()
}

pub(crate) fn first_row<T>(result: QueryResult) -> Result<Option<T>, Failure>
where
    T: for<'f, 'm> DeserializeRow<'f, 'm>,
{
    rows_of(result)?.maybe_first_row().map_err(Failure::unreadable)
}

/// The answer of a compare-and-set, found by name.
pub(crate) fn applied(result: QueryResult) -> Result<bool, Failure> {
    let rows = rows_of(result)?;
    let Some((column, _)) = rows.column_specs().get_by_name(APPLIED) else {
        return Err(Failure::unreadable("a compare-and-set was answered without [applied]"));
    };
    let row: Row = rows.first_row().map_err(Failure::unreadable)?;
    match row.columns.get(column) {
        Some(Some(CqlValue::Boolean(applied))) => Ok(*applied),
        other => Err(Failure::unreadable(format!("a compare-and-set was answered with {other:?}"))),
    }
}
