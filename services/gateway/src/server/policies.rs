//! `policies` and `policies/{policy}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_proto::Field;
use drover_proto::registry::v1::{DeletePolicyRequest, GetPolicyRequest, ListPoliciesRequest, PutPolicyRequest};
use drover_proto::types::v1 as wire;
use drover_types::ApiError;
use drover_types::object::PolicySpec;

use super::Api;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::{At, PolicyParam};
use crate::domain::declared::{Declared, Metadata};
use drover_host::http::Failure;

type Policy = Declared<PolicySpec>;

/// Policies, in the order of their names; the built-in one among them.
#[utoipa::path(get, path = "/policies", operation_id = "listPolicies", tag = "policies", params(Page),
    responses((status = 200, body = List<Declared<PolicySpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<Policy>> {
    let request = ListPoliciesRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.registry.call(async |mut client| client.list_policies(request).await).await?;
    let items = listed.policies.iter().map(shown).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One policy.
#[utoipa::path(get, path = "/policies/{policy}", operation_id = "getPolicy", tag = "policies", params(PolicyParam),
    responses((status = 200, body = Declared<PolicySpec>, description = "The policy.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Policy> {
    let request = GetPolicyRequest { tenant: at.tenant.to_string(), name: at.name("policy")?.to_owned() };
    let found = api.registry.call(async |mut client| client.get_policy(request).await).await?;
    Ok(Json(shown(found.policy.as_ref().required("policy")?)?))
}

/// Makes or replaces a policy.
#[utoipa::path(put, path = "/policies/{policy}", operation_id = "putPolicy", tag = "policies", params(PolicyParam),
    request_body = Declared<PolicySpec>, responses((status = 200, body = Declared<PolicySpec>, description = "The policy as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<Policy> {
    let object = Policy::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("policy")?))?;
    let request = PutPolicyRequest { policy: Some(wire::Policy::of(meta, object.spec)) };
    let kept = api.registry.call(async |mut client| client.put_policy(request).await).await?;
    Ok(Json(shown(kept.policy.as_ref().required("policy")?)?))
}

/// Deletes a policy; devices that name it lose what it allowed and what it denied.
#[utoipa::path(delete, path = "/policies/{policy}", operation_id = "deletePolicy", tag = "policies",
    params(PolicyParam), responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let request = DeletePolicyRequest { tenant: at.tenant.to_string(), name: at.name("policy")?.to_owned() };
    api.registry.call(async |mut client| client.delete_policy(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(policy: &wire::Policy) -> Result<Policy, ApiError> {
    let metadata = Metadata::from(policy.meta.as_ref().required("policy.meta")?);
    Ok(Declared::new(metadata, PolicySpec::try_from(policy)?, None))
}
