//! `functions` and `functions/{function}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::Field;
use drover_proto::registry::v1::{DeleteFunctionRequest, GetFunctionRequest, ListFunctionsRequest, PutFunctionRequest};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use drover_types::object::FunctionSpec;

use super::Api;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::{At, FunctionParam};
use crate::domain::declared::{Declared, Metadata};

type Function = Declared<FunctionSpec>;

/// Functions, in the order of their names.
#[utoipa::path(get, path = "/functions", operation_id = "listFunctions", tag = "functions", params(Page),
    responses((status = 200, body = List<Declared<FunctionSpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<Function>> {
    let request = ListFunctionsRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.functions.call(async |mut client| client.list_functions(request).await).await?;
    let items = listed.functions.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One function. Its generation is its version.
#[utoipa::path(get, path = "/functions/{function}", operation_id = "getFunction", tag = "functions",
    params(FunctionParam), responses((status = 200, body = Declared<FunctionSpec>, description = "The function.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Function> {
    let request = GetFunctionRequest { tenant: at.tenant.to_string(), name: at.name("function")?.to_owned() };
    let found = api.functions.call(async |mut client| client.get_function(request).await).await?;
    Ok(Json(shown(found.function.as_ref().required("function")?)?))
}

/// Makes or replaces a function. Its examples are tried: one that answers otherwise is refused, and names the example.
#[utoipa::path(put, path = "/functions/{function}", operation_id = "putFunction", tag = "functions",
    params(FunctionParam), request_body = Declared<FunctionSpec>,
    responses((status = 200, body = Declared<FunctionSpec>, description = "The function as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<Function> {
    let object = Function::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("function")?))?;
    object.spec.check()?;
    let request = PutFunctionRequest { function: Some(wire::Function::of(meta, object.spec)) };
    let kept = api.functions.call(async |mut client| client.put_function(request).await).await?;
    Ok(Json(shown(kept.function.as_ref().required("function")?)?))
}

/// Deletes a function; rows of rules that call it fail from now on.
#[utoipa::path(delete, path = "/functions/{function}", operation_id = "deleteFunction", tag = "functions",
    params(FunctionParam), responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let request = DeleteFunctionRequest { tenant: at.tenant.to_string(), name: at.name("function")?.to_owned() };
    api.functions.call(async |mut client| client.delete_function(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(function: &wire::Function) -> Result<Function, ApiError> {
    let metadata = Metadata::from(function.meta.as_ref().required("function.meta")?);
    Ok(Declared::new(metadata, FunctionSpec::try_from(function)?, None))
}
