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
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use drover_types::{ApiError, ErrorCode, TenantId};
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::domain::Queries;
pub use answer::{Answer, Column};
pub use devices::{DeviceList, Registered};
use errors::told;
use scan::{Kind, Scanned};
use threads::Threads;

/// Questions answered at the same time; further ones wait, within their deadline.
const AT_ONCE: usize = 4;
/// How long a question may wait and be worked on.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Memory of all questions under way for what they group, sort and join, in bytes.
const MEMORY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Rows that pass through a question at a time: few, for each may have a payload of 256 KiB.
const BATCH_ROWS: usize = 1_024;
/// Name of the table of the registry's devices.
const DEVICES: &str = "devices";
/// The catalog's name: that of the database.
const DATABASE: &str = "drover";

/// Answers questions.
pub struct Sql {
    queries: Arc<Queries>,
    devices: Arc<dyn DeviceList>,
    turns: Semaphore,
    runtime: Arc<RuntimeEnv>,
    threads: Threads,
}

impl Sql {
    /// Over what `queries` shows, and the devices of the registry.
    pub fn new(queries: Arc<Queries>, devices: Arc<dyn DeviceList>) -> anyhow::Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_BYTES_MAX)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()?;
        Ok(Self { queries, devices, turns: Semaphore::new(AT_ONCE), runtime, threads: Threads::start()? })
    }

    /// The rows of one statement that reads. Errors: `invalid_argument` names what is wrong with the SQL, `resource_exhausted`
    /// a bound that the question passes, `deadline_exceeded` after [`DEADLINE`].
    pub async fn query(self: &Arc<Self>, tenant: TenantId, sql: String) -> Result<Answer, ApiError> {
        statement::check(&sql)?;
        let engine = Arc::clone(self);
        // A task of its own: a panic of the engine ends the question and nothing else. Dropped, it ends.
        let mut task = JoinSet::new();
        let working = async move {
            let _turn = engine.turns.acquire().await.map_err(|e| ApiError::new(ErrorCode::Internal, e.to_string()))?;
            engine.run(tenant, &sql).await
        };
        task.spawn_on(working, self.threads.handle());
        match timeout(DEADLINE, task.join_next()).await {
            Ok(Some(Ok(answer))) => answer,
            Ok(Some(Err(error))) => Err(ApiError::new(ErrorCode::Internal, format!("the question failed: {error}"))),
            Ok(None) => Err(ApiError::new(ErrorCode::Internal, "the question was not asked")),
            Err(_) => {
                let message = format!(
                    "not answered within {} s: name a device, a field, or a shorter span of time",
                    DEADLINE.as_secs()
                );
                Err(ApiError::new(ErrorCode::DeadlineExceeded, message))
            }
        }
    }

    async fn run(&self, tenant: TenantId, sql: &str) -> Result<Answer, ApiError> {
        let context = self.context(&tenant).map_err(told)?;
        let state = context.state();
        let statement = state.sql_to_statement(sql, &Dialect::PostgreSQL).map_err(told)?;
        let tables = state.resolve_table_references(&statement).map_err(told)?;
        if tables.iter().any(|table| table.table() == DEVICES) {
            let table = devices::table(&*self.devices, &tenant).await?;
            context.register_table(DEVICES, Arc::new(table)).map_err(told)?;
        }
        let plan = context.state().statement_to_plan(statement).await.map_err(told)?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads.verify_plan(&plan).map_err(told)?;
        let frame = context.execute_logical_plan(plan).await.map_err(told)?;
        let mut batches = frame.execute_stream().await.map_err(told)?;
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
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_default_features()
            .build();
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
