//! SQL over what is kept: questions of one tenant, answered by DataFusion from the store.
//!
//! `statement` says what a question may be, `scan` reads the store as tables and `wanted` tells it what a question leaves out;
//! `devices` makes a table of the registry's devices, `answer` turns rows into JSON, `errors` tells what was wrong. Nothing
//! here writes.

mod answer;
mod columns;
mod devices;
mod errors;
mod functions;
mod plan;
mod scan;
mod statement;
mod threads;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::common::config::Dialect;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SessionConfig, SessionContext};
use drover_types::{ApiError, ErrorCode, TenantId};
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::domain::Queries;
pub use answer::{Answer, Column};
pub use devices::{DeviceList, Registered};
use errors::{exhausted, told};
use scan::{Kind, Scanned};
use threads::Threads;

/// Questions answered at the same time; further ones wait, within their deadline.
const AT_ONCE: usize = 4;
/// How long a question may wait and be worked on.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Questions that wait for their turn; further ones are refused.
const WAITING_MAX: usize = 64;
/// Memory of one question for what it groups, sorts and joins, in bytes.
const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rows that pass through a question at a time: few, for each may have a payload of 256 KiB.
pub const BATCH_ROWS: usize = 64;
/// Name of the table of the registry's devices.
const DEVICES: &str = "devices";
/// The catalog's name: that of the database.
const DATABASE: &str = "drover";

/// Answers questions.
pub struct Sql {
    queries: Arc<Queries>,
    devices: Arc<dyn DeviceList>,
    turns: Semaphore,
    /// Of those that wait or are worked on.
    places: Semaphore,
    threads: Threads,
}

impl Sql {
    /// Over what `queries` shows, and the devices of the registry.
    pub fn new(queries: Arc<Queries>, devices: Arc<dyn DeviceList>) -> anyhow::Result<Self> {
        Ok(Self {
            queries,
            devices,
            turns: Semaphore::new(AT_ONCE),
            places: Semaphore::new(AT_ONCE + WAITING_MAX),
            threads: Threads::start()?,
        })
    }

    /// The rows of one statement that reads. Errors: `invalid_argument` names what is wrong with the SQL, `resource_exhausted`
    /// a bound that the question passes, `deadline_exceeded` after [`DEADLINE`].
    pub async fn query(self: &Arc<Self>, tenant: TenantId, sql: String) -> Result<Answer, ApiError> {
        statement::check(&sql)?;
        let engine = Arc::clone(self);
        // A task of its own: a panic of the engine ends the question and nothing else. Dropped, it ends.
        let mut task = JoinSet::new();
        let working = async move {
            let Ok(_place) = engine.places.try_acquire() else {
                let message = format!("{WAITING_MAX} questions wait already, which is their limit: ask again later");
                return Err(exhausted(message, WAITING_MAX, WAITING_MAX + 1));
            };
            let _turn = engine.turns.acquire().await.map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
            engine.run(tenant, &sql).await
        };
        task.spawn_on(working, self.threads.handle());
        match timeout(DEADLINE, task.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "a question in SQL failed");
                Err(ApiError::new(ErrorCode::Internal, "the engine failed at this question; the log says how"))
            }
            Ok(None) => Err(ApiError::new(ErrorCode::Internal, "the question was not asked")),
            Err(_) => {
                let limit = DEADLINE.as_secs();
                let message =
                    format!("not answered within {limit} s: name a device, a field, or a shorter span of time");
                Err(ApiError::new(ErrorCode::DeadlineExceeded, message).over(format!("{limit}s"), "more"))
            }
        }
    }

    async fn run(&self, tenant: TenantId, sql: &str) -> Result<Answer, ApiError> {
        let context = self.context(&tenant).map_err(told)?;
        let state = context.state();
        let statement = state.sql_to_statement(sql, &Dialect::PostgreSQL).map_err(told)?;
        statement::check_names(&statement)?;
        let tables = state.resolve_table_references(&statement).map_err(told)?;
        if tables.iter().any(|table| table.table() == DEVICES) {
            let table = devices::table(&*self.devices, &tenant).await?;
            context.register_table(DEVICES, Arc::new(table)).map_err(told)?;
        }
        let plan = state.statement_to_plan(statement).await.map_err(told)?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        plan::check(&plan)?;
        reads.verify_plan(&plan).map_err(told)?;
        let frame = context.execute_logical_plan(plan).await.map_err(told)?;
        let work = plan::giving_way(frame.create_physical_plan().await.map_err(told)?)?;
        let mut batches = execute_stream(work, context.task_ctx()).map_err(told)?;
        let mut answer = Answer::of(&batches.schema());
        while let Some(batch) = batches.next().await {
            if !answer.take(&batch.map_err(told)?)? {
                break;
            }
        }
        Ok(answer)
    }

    /// The tables of a tenant, and nothing else.
    fn context(&self, tenant: &TenantId) -> datafusion::error::Result<SessionContext> {
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(DATABASE, "public")
            .with_information_schema(true)
            .with_batch_size(BATCH_ROWS)
            // One core: devices are served at the same time.
            .with_target_partitions(1);
        config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_BYTES_MAX)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        let state =
            SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let context = SessionContext::new_with_state(state);
        functions::leave_out(&context);
        let scanned = Arc::new(Scanned::default());
        for kind in [Kind::Telemetry, Kind::Points] {
            let table = scan::Table::new(kind, tenant.clone(), Arc::clone(&self.queries), Arc::clone(&scanned));
            let table: Arc<dyn TableProvider> = Arc::new(table);
            context.register_table(kind.name(), table)?;
        }
        Ok(context)
    }
}
