//! Functions in memory, behind the real gRPC code. They are not tried.

use std::collections::BTreeMap;
use std::sync::Mutex;

use drover_proto::registry::v1::functions_server::Functions;
use drover_proto::registry::v1::*;
use drover_proto::to_status;
use drover_proto::types::v1::Function;
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// By tenant and name.
#[derive(Default)]
pub struct FakeFunctions(Mutex<BTreeMap<(String, String), Function>>);

fn missing(name: &str) -> Status {
    to_status(&ApiError::new(ErrorCode::NotFound, format!("function {name} does not exist")))
}

#[tonic::async_trait]
impl Functions for FakeFunctions {
    async fn put_function(&self, request: Request<PutFunctionRequest>) -> Answer<PutFunctionResponse> {
        let mut function = request.into_inner().function.unwrap_or_default();
        let mut meta = function.meta.take().unwrap_or_default();
        (meta.generation, meta.revision, meta.created_ms) = (1, 1, 1_700_000_000_000);
        function.meta = Some(meta.clone());
        self.0.lock().unwrap().insert((meta.tenant, meta.name), function.clone());
        Ok(Response::new(PutFunctionResponse { function: Some(function) }))
    }

    async fn get_function(&self, request: Request<GetFunctionRequest>) -> Answer<GetFunctionResponse> {
        let GetFunctionRequest { tenant, name } = request.into_inner();
        let found = self.0.lock().unwrap().get(&(tenant, name.clone())).cloned();
        Ok(Response::new(GetFunctionResponse { function: Some(found.ok_or_else(|| missing(&name))?) }))
    }

    async fn list_functions(&self, request: Request<ListFunctionsRequest>) -> Answer<ListFunctionsResponse> {
        let tenant = request.into_inner().tenant;
        let functions = self.0.lock().unwrap();
        let of_tenant = functions.iter().filter(|((owner, _), _)| *owner == tenant);
        let functions = of_tenant.map(|(_, function)| function.clone()).collect();
        Ok(Response::new(ListFunctionsResponse { functions, next_page_token: String::new() }))
    }

    async fn delete_function(&self, request: Request<DeleteFunctionRequest>) -> Answer<DeleteFunctionResponse> {
        let DeleteFunctionRequest { tenant, name } = request.into_inner();
        let removed = self.0.lock().unwrap().remove(&(tenant, name.clone()));
        removed.map(|_| Response::new(DeleteFunctionResponse {})).ok_or_else(|| missing(&name))
    }
}
