//! SQL over what is kept: questions of one tenant, answered by DataFusion from the store.
//!
//! `statement` and `plan` say what a question may be, `turns` when it is worked on, `asker` until when. `scan` reads the store as
//! tables, `wanted` tells it what a question leaves out and `columns` makes columns of rows; `devices` makes a table of the
//! registry's devices, `answer` turns rows into JSON, `errors` tells what was wrong. Nothing here writes.

mod answer;
mod asker;
mod columns;
mod devices;
mod errors;
mod functions;
mod plan;
mod scan;
mod statement;
#[cfg(test)]
mod tests;
mod threads;
mod turns;
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
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::domain::Queries;
use crate::ports::DeviceList;
pub use answer::{Answer, Column};
use asker::{Asker, Waiting};
use errors::told;
use scan::{Kind, Question};
use threads::Threads;
use turns::Turns;

/// Memory of one question for what it groups, sorts and joins, in bytes.
const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Rows that pass through a question at a time: few, for each may have a payload of 256 KiB.
pub const BATCH_ROWS: usize = 64;
/// Name of the table of the registry's devices.
const DEVICES: &str = "devices";
/// The catalog's name: that of the database.
const DATABASE: &str = "drover";

/// What one question may take; tests have less.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long it may wait and be worked on.
    deadline: Duration,
    /// Rows that it may read from the store.
    rows_read_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30), rows_read_max: 5_000_000 }
    }
}

/// Answers questions.
pub struct Sql {
    queries: Arc<Queries>,
    devices: Arc<dyn DeviceList>,
    bounds: Bounds,
    turns: Turns,
    threads: Threads,
}

impl Sql {
    /// Over what `queries` shows, and the devices of the registry.
    pub fn new(queries: Arc<Queries>, devices: Arc<dyn DeviceList>, bounds: Bounds) -> anyhow::Result<Self> {
        Ok(Self { queries, devices, bounds, turns: Turns::default(), threads: Threads::start()? })
    }

    /// The rows of one statement that reads. Errors: `invalid_argument` names what is wrong with the SQL, `resource_exhausted`
    /// a bound that the question passes, `deadline_exceeded` after the time that it may take. Dropped, the question ends.
    pub async fn query(self: &Arc<Self>, tenant: TenantId, sql: String) -> Result<Answer, ApiError> {
        statement::check(&sql)?;
        let (engine, waiting) = (Arc::clone(self), Waiting::default());
        let asker = waiting.asker();
        // A task of its own: a panic of the engine ends the question and nothing else. It is given up when this is dropped: by
        // the task where it gives way, by the asker where it does not.
        let mut task = JoinSet::new();
        let working = async move {
            let _turn = engine.turns.take(&tenant).await?;
            engine.run(tenant, &sql, asker).await
        };
        task.spawn_on(working, self.threads.handle());
        match timeout(self.bounds.deadline, task.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "a question in SQL failed");
                Err(ApiError::new(ErrorCode::Internal, "the engine failed at this question; the log says how"))
            }
            Ok(None) => Err(ApiError::new(ErrorCode::Internal, "the question was not asked")),
            Err(_) => {
                let limit = self.bounds.deadline.as_secs();
                let message =
                    format!("not answered within {limit} s: name a device, a field, or a shorter span of time");
                Err(ApiError::new(ErrorCode::DeadlineExceeded, message).over(format!("{limit}s"), "more"))
            }
        }
    }

    async fn run(&self, tenant: TenantId, sql: &str, asker: Asker) -> Result<Answer, ApiError> {
        let context = self.context(&tenant, &asker).map_err(told)?;
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
        let work = plan::giving_way(frame.create_physical_plan().await.map_err(told)?, &asker)?;
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
    fn context(&self, tenant: &TenantId, asker: &Asker) -> datafusion::error::Result<SessionContext> {
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
        let question = Arc::new(Question::new(asker.clone(), self.bounds.rows_read_max));
        for kind in [Kind::Telemetry, Kind::Points] {
            let table = scan::Table::new(kind, tenant.clone(), Arc::clone(&self.queries), Arc::clone(&question));
            let table: Arc<dyn TableProvider> = Arc::new(table);
            context.register_table(kind.name(), table)?;
        }
        Ok(context)
    }
}
