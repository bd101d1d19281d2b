//! Functions: asked of the registry for every call, and called in the processes of the pool.
//!
//! Adapter of [`Functions`]. Foreign bodies come by the minute rather than by the millisecond, so nothing is kept.

use std::time::Duration;

use async_trait::async_trait;
use drover_functions::{CallError, Pool};
use drover_host::{Network, grpc};
use drover_proto::registry::v1::GetFunctionRequest;
use drover_proto::registry::v1::functions_client::FunctionsClient;
use drover_proto::{Field, from_status};
use drover_types::object::FunctionSpec;
use drover_types::{ApiError, ErrorCode, TenantId};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use crate::ports::Functions;

/// Calls under way or waiting for the pool, each with a thread that waits; more are refused.
const CALLS_MAX: usize = 16;

/// The registry's functions.
pub struct RegisteredFunctions {
    client: FunctionsClient<grpc::Client>,
    pool: Pool,
    /// Of the registry.
    deadline: Duration,
    calls: Semaphore,
}

impl RegisteredFunctions {
    /// Connects when first asked.
    pub fn new(network: &Network, pool: Pool, deadline: Duration) -> Self {
        let client = FunctionsClient::new(network.client("registry"));
        Self { client, pool, deadline, calls: Semaphore::new(CALLS_MAX) }
    }

    async fn find(&self, tenant: &TenantId, name: &str) -> Result<FunctionSpec, ApiError> {
        let request = GetFunctionRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let mut client = self.client.clone();
        let late =
            || ApiError::new(ErrorCode::Unavailable, format!("the registry did not answer within {:?}", self.deadline));
        let answer = tokio::time::timeout(self.deadline, client.get_function(request)).await.map_err(|_| late())?;
        let found = answer.map_err(|status| from_status(&status))?.into_inner().function;
        FunctionSpec::try_from(&found.required("function")?)
    }
}

#[async_trait]
impl Functions for RegisteredFunctions {
    async fn call(&self, tenant: &TenantId, name: &str, input: Box<RawValue>) -> Result<Option<String>, ApiError> {
        let function = self.find(tenant, name).await?;
        let Ok(_call) = self.calls.try_acquire() else {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "too many functions are being called");
            return Err(error.over(CALLS_MAX, CALLS_MAX + 1));
        };
        let pool = self.pool.clone();
        let calling =
            tokio::task::spawn_blocking(move || pool.call(&function.source, &function.routine, &[&input])).await;
        let outcome = calling.map_err(|panic| ApiError::new(ErrorCode::Internal, panic.to_string()))?;
        outcome.map_err(|error| match error {
            CallError::Failed(_) | CallError::Slow(_) => {
                ApiError::new(ErrorCode::FailedPrecondition, format!("function {name}: {error}"))
            }
            CallError::Busy | CallError::Unavailable(_) => ApiError::new(ErrorCode::Unavailable, error.to_string()),
        })
    }
}
