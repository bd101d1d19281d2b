//! A registry and a rules service in memory, behind the real gRPC code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use drover_host::SystemClock;
use drover_proto::registry::v1::registry_server::Registry;
use drover_proto::registry::v1::*;
use drover_proto::rules::v1::rules_server::Rules;
use drover_proto::rules::v1::{
    EvaluateRequest, EvaluateResponse, GetStatusRequest, GetStatusResponse, ReplayRequest, ReplayResponse, RuleStatus,
};
use drover_proto::to_status;
use drover_proto::types::v1::{Credential, CredentialKind, Device, Meta, Policy, Rule};
use drover_types::object::LabelSelector;
use drover_types::{ApiError, Clock, ErrorCode};
use tonic::{Request, Response, Status};

type Key = (String, String);
type Answer<T> = Result<Response<T>, Status>;

/// Devices named `cut…` and `late…` do not get their first token at the first attempt; only `cut…` are made now.
#[derive(Default)]
pub struct FakeRegistry {
    devices: Mutex<BTreeMap<Key, Device>>,
    policies: Mutex<BTreeMap<Key, Policy>>,
    rules: Mutex<BTreeMap<Key, Rule>>,
    credentials: Mutex<Vec<Credential>>,
    /// Those that have had it.
    cut: Mutex<BTreeSet<String>>,
}

/// Says that it has seen the rules named `seen…`, and nothing of others.
pub struct FakeRules;

fn missing(what: &str, name: &str) -> Status {
    to_status(&ApiError::new(ErrorCode::NotFound, format!("{what} {name} does not exist")))
}

fn key(meta: &Meta) -> Key {
    (meta.tenant.clone(), meta.name.clone())
}

fn kept(mut meta: Meta, former: Option<&Meta>) -> Meta {
    meta.generation = former.map_or(1, |former| former.generation + 1);
    meta.revision = former.map_or(1, |former| former.revision + 1);
    meta.created_ms = 1_700_000_000_000;
    meta
}

fn page<T: Clone>(all: &BTreeMap<Key, T>, tenant: &str, size: u32, token: &str) -> (Vec<T>, String) {
    let of_tenant = all.iter().filter(|((t, name), _)| t == tenant && name.as_str() > token);
    let items: Vec<_> = of_tenant.take(size as usize).map(|((_, name), item)| (name.clone(), item.clone())).collect();
    let full = items.len() == size as usize;
    let next = items.last().filter(|_| full).map_or(String::new(), |(name, _)| name.clone());
    (items.into_iter().map(|(_, item)| item).collect(), next)
}

/// Devices are in the groups that their label `group` names.
fn is_chosen(device: &Device, selector: &LabelSelector, request: &ListDevicesRequest) -> bool {
    let labels: BTreeMap<_, _> = device.meta.iter().flat_map(|meta| meta.labels.clone()).collect();
    let in_group = request.group.is_empty() || labels.get("group") == Some(&request.group);
    in_group && (request.r#type.is_empty() || request.r#type == device.r#type) && selector.matches(&labels)
}

impl FakeRegistry {
    fn issue(&self, tenant: String, device: String, kind: CredentialKind) -> Credential {
        let mut credentials = self.credentials.lock().unwrap();
        let id = format!("c{}", credentials.len());
        let made = Credential { id, tenant, device, kind: kind.into(), created_ms: 1_000, ..Credential::default() };
        credentials.push(made.clone());
        made
    }
}

#[tonic::async_trait]
impl Registry for FakeRegistry {
    async fn create_device(&self, request: Request<CreateDeviceRequest>) -> Answer<CreateDeviceResponse> {
        let mut device = request.into_inner().device.unwrap_or_default();
        let mut meta = kept(device.meta.take().unwrap_or_default(), None);
        if meta.name.starts_with("cut") {
            meta.created_ms = SystemClock.now_ms();
        }
        let mut devices = self.devices.lock().unwrap();
        if devices.contains_key(&key(&meta)) {
            let taken = ApiError::new(ErrorCode::AlreadyExists, format!("device {} exists", meta.name));
            return Err(to_status(&taken));
        }
        device.meta = Some(meta.clone());
        devices.insert(key(&meta), device.clone());
        Ok(Response::new(CreateDeviceResponse { device: Some(device) }))
    }

    async fn update_device(&self, request: Request<UpdateDeviceRequest>) -> Answer<UpdateDeviceResponse> {
        let mut device = request.into_inner().device.unwrap_or_default();
        let meta = device.meta.take().unwrap_or_default();
        let mut devices = self.devices.lock().unwrap();
        let former = devices.get(&key(&meta)).ok_or_else(|| missing("device", &meta.name))?;
        device.meta = Some(kept(meta.clone(), former.meta.as_ref()));
        devices.insert(key(&meta), device.clone());
        // As the registry does: nodes are told of a device that is disabled, and one of them hangs.
        let unconfirmed_nodes = if device.enabled { vec![] } else { vec!["node-2".into()] };
        Ok(Response::new(UpdateDeviceResponse { device: Some(device), unconfirmed_nodes }))
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Answer<GetDeviceResponse> {
        let GetDeviceRequest { tenant, name } = request.into_inner();
        let found = self.devices.lock().unwrap().get(&(tenant, name.clone())).cloned();
        let device = Some(found.ok_or_else(|| missing("device", &name))?);
        Ok(Response::new(GetDeviceResponse { device, presence: None }))
    }

    async fn list_devices(&self, request: Request<ListDevicesRequest>) -> Answer<ListDevicesResponse> {
        let request = request.into_inner();
        let selector = LabelSelector::parse("labelSelector", &request.label_selector);
        let selector = selector.map_err(|error| to_status(&error))?;
        let mut devices = self.devices.lock().unwrap().clone();
        devices.retain(|_, device| is_chosen(device, &selector, &request));
        let (devices, next_page_token) = page(&devices, &request.tenant, request.page_size, &request.page_token);
        let known = |device| GetDeviceResponse { device: Some(device), presence: None };
        Ok(Response::new(ListDevicesResponse { devices: devices.into_iter().map(known).collect(), next_page_token }))
    }

    async fn delete_device(&self, request: Request<DeleteDeviceRequest>) -> Answer<DeleteDeviceResponse> {
        let DeleteDeviceRequest { tenant, name } = request.into_inner();
        let removed = self.devices.lock().unwrap().remove(&(tenant, name.clone()));
        removed.ok_or_else(|| missing("device", &name))?;
        Ok(Response::new(DeleteDeviceResponse { unconfirmed_nodes: vec!["node-2".into()] }))
    }

    async fn put_devices(&self, _: Request<PutDevicesRequest>) -> Answer<PutDevicesResponse> {
        Err(Status::unimplemented("not asked by the gateway"))
    }

    async fn delete_devices(&self, _: Request<DeleteDevicesRequest>) -> Answer<DeleteDevicesResponse> {
        Err(Status::unimplemented("not asked by the gateway"))
    }

    async fn issue_token(&self, request: Request<IssueTokenRequest>) -> Answer<IssueTokenResponse> {
        let request = request.into_inner();
        let fails = request.device.starts_with("cut") || request.device.starts_with("late");
        if fails && self.cut.lock().unwrap().insert(request.device.clone()) {
            return Err(to_status(&ApiError::new(ErrorCode::Unavailable, "the store is away")));
        }
        let credential = Some(self.issue(request.tenant, request.device, CredentialKind::Token));
        Ok(Response::new(IssueTokenResponse { credential, token: "once".into() }))
    }

    async fn issue_certificate(&self, request: Request<IssueCertificateRequest>) -> Answer<IssueCertificateResponse> {
        let request = request.into_inner();
        let credential = Some(self.issue(request.tenant, request.device, CredentialKind::Certificate));
        Ok(Response::new(IssueCertificateResponse {
            credential,
            certificate_pem: "CERTIFICATE".into(),
            private_key_pem: "KEY".into(),
            ca_pem: "CA".into(),
        }))
    }

    async fn issue_pre_shared_key(
        &self,
        request: Request<IssuePreSharedKeyRequest>,
    ) -> Answer<IssuePreSharedKeyResponse> {
        let request = request.into_inner();
        let credential = Some(self.issue(request.tenant, request.device, CredentialKind::PreSharedKey));
        Ok(Response::new(IssuePreSharedKeyResponse { credential, key: "KEY".into() }))
    }

    async fn list_credentials(&self, request: Request<ListCredentialsRequest>) -> Answer<ListCredentialsResponse> {
        let ListCredentialsRequest { tenant, device } = request.into_inner();
        let credentials = self.credentials.lock().unwrap();
        let own = credentials.iter().filter(|c| c.tenant == tenant && c.device == device);
        Ok(Response::new(ListCredentialsResponse { credentials: own.cloned().collect() }))
    }

    async fn revoke_credential(&self, request: Request<RevokeCredentialRequest>) -> Answer<RevokeCredentialResponse> {
        let RevokeCredentialRequest { tenant, id } = request.into_inner();
        self.credentials.lock().unwrap().retain(|c| c.tenant != tenant || c.id != id);
        Ok(Response::new(RevokeCredentialResponse { unconfirmed_nodes: vec![] }))
    }

    async fn put_policy(&self, request: Request<PutPolicyRequest>) -> Answer<PutPolicyResponse> {
        let mut policy = request.into_inner().policy.unwrap_or_default();
        let meta = policy.meta.take().unwrap_or_default();
        let mut policies = self.policies.lock().unwrap();
        let former = policies.get(&key(&meta)).and_then(|p| p.meta.as_ref());
        policy.meta = Some(kept(meta.clone(), former));
        policies.insert(key(&meta), policy.clone());
        Ok(Response::new(PutPolicyResponse { policy: Some(policy) }))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Answer<GetPolicyResponse> {
        let GetPolicyRequest { tenant, name } = request.into_inner();
        let found = self.policies.lock().unwrap().get(&(tenant, name.clone())).cloned();
        Ok(Response::new(GetPolicyResponse { policy: Some(found.ok_or_else(|| missing("policy", &name))?) }))
    }

    async fn list_policies(&self, request: Request<ListPoliciesRequest>) -> Answer<ListPoliciesResponse> {
        let request = request.into_inner();
        let policies = self.policies.lock().unwrap();
        let (policies, next_page_token) = page(&policies, &request.tenant, request.page_size, &request.page_token);
        Ok(Response::new(ListPoliciesResponse { policies, next_page_token }))
    }

    async fn delete_policy(&self, request: Request<DeletePolicyRequest>) -> Answer<DeletePolicyResponse> {
        let DeletePolicyRequest { tenant, name } = request.into_inner();
        let removed = self.policies.lock().unwrap().remove(&(tenant, name.clone()));
        removed.ok_or_else(|| missing("policy", &name))?;
        Ok(Response::new(DeletePolicyResponse {}))
    }

    async fn put_rule(&self, request: Request<PutRuleRequest>) -> Answer<PutRuleResponse> {
        let mut rule = request.into_inner().rule.unwrap_or_default();
        if !rule.sql.contains("FROM") {
            let refused = ApiError::invalid("spec.sql", "line 1, column 8: expected FROM");
            return Err(to_status(&refused));
        }
        let meta = rule.meta.take().unwrap_or_default();
        let mut rules = self.rules.lock().unwrap();
        let former = rules.get(&key(&meta)).and_then(|r| r.meta.as_ref());
        rule.meta = Some(kept(meta.clone(), former));
        rules.insert(key(&meta), rule.clone());
        Ok(Response::new(PutRuleResponse { rule: Some(rule) }))
    }

    async fn get_rule(&self, request: Request<GetRuleRequest>) -> Answer<GetRuleResponse> {
        let GetRuleRequest { tenant, name } = request.into_inner();
        let found = self.rules.lock().unwrap().get(&(tenant, name.clone())).cloned();
        Ok(Response::new(GetRuleResponse { rule: Some(found.ok_or_else(|| missing("rule", &name))?) }))
    }

    async fn list_rules(&self, request: Request<ListRulesRequest>) -> Answer<ListRulesResponse> {
        let request = request.into_inner();
        let rules = self.rules.lock().unwrap();
        let (rules, next_page_token) = page(&rules, &request.tenant, request.page_size, &request.page_token);
        Ok(Response::new(ListRulesResponse { rules, next_page_token }))
    }

    async fn delete_rule(&self, request: Request<DeleteRuleRequest>) -> Answer<DeleteRuleResponse> {
        let DeleteRuleRequest { tenant, name } = request.into_inner();
        let removed = self.rules.lock().unwrap().remove(&(tenant, name.clone()));
        removed.ok_or_else(|| missing("rule", &name))?;
        Ok(Response::new(DeleteRuleResponse {}))
    }

    async fn authenticate(&self, _: Request<AuthenticateRequest>) -> Answer<AuthenticateResponse> {
        Err(Status::unimplemented("the gateway never asks this"))
    }

    async fn authenticate_all(&self, _: Request<AuthenticateAllRequest>) -> Answer<AuthenticateAllResponse> {
        Err(Status::unimplemented("the gateway never asks this"))
    }
}

#[tonic::async_trait]
impl Rules for FakeRules {
    async fn get_status(&self, request: Request<GetStatusRequest>) -> Answer<GetStatusResponse> {
        let name = request.into_inner().name;
        if !name.starts_with("seen") {
            return Err(missing("rule", &name));
        }
        let status = RuleStatus { observed_generation: 1, matched: 7, ..RuleStatus::default() };
        Ok(Response::new(GetStatusResponse { status: Some(status) }))
    }

    async fn evaluate(&self, _: Request<EvaluateRequest>) -> Answer<EvaluateResponse> {
        Err(Status::unimplemented("the gateway never asks this"))
    }

    /// Two parts, of what it was asked for.
    async fn replay(&self, request: Request<ReplayRequest>) -> Answer<ReplayResponse> {
        let request = request.into_inner();
        let (read, next) = if request.cursor.is_empty() { (1_000, "0:1000:1500") } else { (500, "") };
        let (replayed, emitted) = (u64::from(request.errors), request.since_ms);
        let next = next.to_owned();
        Ok(Response::new(ReplayResponse { read, replayed, emitted, next, ..ReplayResponse::default() }))
    }
}
