//! From requests to what the domain takes; checks shape only.

use drover_proto::Field;
use drover_proto::registry::v1::{
    AuthenticateRequest, CreateApiTokenRequest, ListAuditRequest, ListDevicesRequest, authenticate_request,
};
use drover_proto::types::v1 as types;
use drover_types::object::{
    CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, LabelSelector, PolicySpec,
    RuleSpec,
};
use drover_types::{ApiError, DeviceKey, TenantId};

use crate::domain::api_tokens::Wanted;
use crate::domain::audit::Query;
use crate::domain::authenticate::{PROOFS_MAX, Proof};
use crate::domain::members::Choice;
use crate::domain::{Declared, PageRequest};
use crate::object::Spec;
use crate::wire;

pub fn tenant(text: &str) -> Result<TenantId, ApiError> {
    wire::tenant("tenant", text)
}

/// `field` names the part of the request that holds the device.
pub fn device_key(field: &str, tenant: &str, device: &str) -> Result<DeviceKey, ApiError> {
    Ok(DeviceKey { tenant: wire::tenant("tenant", tenant)?, device: wire::device(field, device)? })
}

pub fn page(tenant: &str, size: u32, token: String) -> Result<PageRequest, ApiError> {
    Ok(PageRequest { tenant: wire::tenant("tenant", tenant)?, size, after: token })
}

/// Which devices a list is to have.
pub fn choice(request: &ListDevicesRequest) -> Result<Choice, ApiError> {
    let named = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    Ok(Choice {
        selector: LabelSelector::parse("labelSelector", &request.label_selector)?,
        device_type: named(&request.r#type),
        group: named(&request.group),
    })
}

pub fn device(device: Option<&types::Device>) -> Result<Declared, ApiError> {
    let device = device.required("device")?;
    declared(&device.meta, Spec::Device(DeviceSpec::from(device)))
}

/// A device of a bulk call: its name, and what it is to be unless that cannot be read.
pub fn device_of(tenant: &TenantId, device: &types::Device) -> (String, Result<Declared, ApiError>) {
    let name = device.meta.as_ref().map(|meta| meta.name.clone()).unwrap_or_default();
    let declared = declared(&device.meta, Spec::Device(DeviceSpec::from(device)));
    (name, declared.map(|declared| Declared { tenant: tenant.clone(), ..declared }))
}

pub fn policy(policy: Option<&types::Policy>) -> Result<Declared, ApiError> {
    let policy = policy.required("policy")?;
    declared(&policy.meta, Spec::Policy(PolicySpec::try_from(policy)?))
}

pub fn rule(rule: Option<&types::Rule>) -> Result<Declared, ApiError> {
    let rule = rule.required("rule")?;
    declared(&rule.meta, Spec::Rule(Box::new(RuleSpec::try_from(rule)?)))
}

pub fn function(function: Option<&types::Function>) -> Result<Declared, ApiError> {
    let function = function.required("function")?;
    declared(&function.meta, Spec::Function(FunctionSpec::try_from(function)?))
}

pub fn certificate_authority(authority: Option<&types::CertificateAuthority>) -> Result<Declared, ApiError> {
    let authority = authority.required("certificate_authority")?;
    declared(&authority.meta, Spec::CertificateAuthority(CertificateAuthoritySpec::try_from(authority)?))
}

pub fn device_type(device_type: Option<&types::DeviceType>) -> Result<Declared, ApiError> {
    let device_type = device_type.required("device_type")?;
    declared(&device_type.meta, Spec::DeviceType(DeviceTypeSpec::try_from(device_type)?))
}

pub fn device_group(group: Option<&types::DeviceGroup>) -> Result<Declared, ApiError> {
    let group = group.required("device_group")?;
    declared(&group.meta, Spec::DeviceGroup(DeviceGroupSpec::try_from(group)?))
}

pub fn api_token(request: CreateApiTokenRequest) -> Result<Wanted, ApiError> {
    let (tenant, role) = (wire::tenant("tenant", &request.tenant)?, wire::role(request.role())?);
    let CreateApiTokenRequest { name, duration_s, created_by, .. } = request;
    Ok(Wanted { tenant, name, role, duration_s, created_by })
}

pub fn audit(request: ListAuditRequest) -> Result<Query, ApiError> {
    let page = page(&request.tenant, request.page_size, request.page_token)?;
    let kind = Some(request.kind.as_str()).filter(|kind| !kind.is_empty());
    let kind = kind.map(|kind| wire::kind("kind", kind)).transpose()?;
    let ListAuditRequest { from_ms, to_ms, name, actor, .. } = request;
    Ok(Query { page, from_ms, to_ms, kind, name, actor })
}

fn declared(meta: &Option<types::Meta>, spec: Spec) -> Result<Declared, ApiError> {
    let meta = meta.as_ref().required("meta")?;
    Ok(Declared {
        tenant: wire::tenant("metadata.namespace", &meta.tenant)?,
        name: meta.name.clone(),
        labels: meta.labels.clone().into_iter().collect(),
        revision: meta.revision,
        owner: meta.owner.clone(),
        spec,
    })
}

pub fn proof(proof: Option<authenticate_request::Proof>) -> Result<Proof, ApiError> {
    use authenticate_request::Proof as Wire;
    Ok(match proof.required("proof")? {
        Wire::Token(token) => Proof::Token { user_name: token.user_name, token: token.token },
        Wire::Certificate(certificate) => {
            Proof::Certificate { fingerprint: certificate.fingerprint, chain: certificate.chain }
        }
        Wire::Anonymous(anonymous) => Proof::Anonymous { client_id: anonymous.client_id },
        Wire::ApiKey(key) => Proof::ApiKey { token: key.token },
        Wire::Known(known) => Proof::Known {
            device: device_key("proof.known.device", &known.tenant, &known.device)?,
            credential_id: Some(known.credential_id).filter(|id| !id.is_empty()),
        },
        Wire::Behalf(behalf) => Proof::Behalf(device_key("proof.behalf.device", &behalf.tenant, &behalf.device)?),
    })
}

/// The proofs of a call, each unless it cannot be read.
pub fn proofs(questions: Vec<AuthenticateRequest>) -> Result<Vec<Result<Proof, ApiError>>, ApiError> {
    if questions.len() > PROOFS_MAX {
        return Err(ApiError::invalid("questions", "too many questions").over(PROOFS_MAX, questions.len()));
    }
    Ok(questions.into_iter().map(|question| proof(question.proof)).collect())
}
