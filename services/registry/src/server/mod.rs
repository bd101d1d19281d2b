//! The gRPC service: decodes, calls the domain, encodes. No decisions.

mod decode;
mod encode;

use std::sync::Arc;

use drover_host::actor;
use drover_proto::registry::v1::api_tokens_server::ApiTokens;
use drover_proto::registry::v1::audit_server::Audit;
use drover_proto::registry::v1::certificate_authorities_server::CertificateAuthorities;
use drover_proto::registry::v1::functions_server::Functions;
use drover_proto::registry::v1::pre_shared_keys_server::PreSharedKeys;
use drover_proto::registry::v1::registry_server::Registry;
use drover_proto::registry::v1::topics_server::Topics;
use drover_proto::registry::v1::*;
use drover_proto::to_status;
use drover_types::ApiError;
use tonic::{Request, Response, Status};

use crate::audit::UNKNOWN;
use crate::domain::Domain;
use crate::domain::bulk::Bulk;
use crate::domain::devices::Revoked;
use crate::domain::pre_shared_keys::FoundKey;
use crate::wire;

/// Serves one domain.
pub struct Server {
    pub domain: Arc<Domain>,
}

/// Carries a request out in the name of who asks.
async fn in_the_name_of<Q, T, F: Future<Output = Result<T, ApiError>>>(
    request: Request<Q>,
    carry_out: impl FnOnce(Q) -> F,
) -> Result<Response<T>, Status> {
    let actor = actor::of(request.metadata()).unwrap_or(UNKNOWN).to_owned();
    let outcome = actor::acting(&actor, carry_out(request.into_inner())).await;
    outcome.map(Response::new).map_err(|error| to_status(&error))
}

/// The methods of a service; each is one line, for each is one of the functions beside it, done in the name of who asks.
macro_rules! serve {
    ($service:ident: $($method:ident($request:ty) -> $response:ty = $function:ident;)*) => {
        #[tonic::async_trait]
        impl $service for Server {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                in_the_name_of(request, |request| self.$function(request)).await
            })*
        }
    };
}

mod kinds;

impl Server {
    async fn created(&self, request: CreateDeviceRequest) -> Result<CreateDeviceResponse, ApiError> {
        let device = self.domain.create_device(decode::device(request.device.as_ref())?).await?;
        Ok(CreateDeviceResponse { device: Some(encode::device(device)) })
    }

    async fn updated(&self, request: UpdateDeviceRequest) -> Result<UpdateDeviceResponse, ApiError> {
        let device = decode::device(request.device.as_ref())?;
        let Revoked { object, unconfirmed_nodes } = self.domain.update_device(device).await?;
        Ok(UpdateDeviceResponse { device: Some(encode::device(object)), unconfirmed_nodes })
    }

    async fn device(&self, request: GetDeviceRequest) -> Result<GetDeviceResponse, ApiError> {
        let key = decode::device_key("name", &request.tenant, &request.name)?;
        Ok(encode::seen(self.domain.get_device(&key).await?))
    }

    async fn devices(&self, request: ListDevicesRequest) -> Result<ListDevicesResponse, ApiError> {
        let choice = decode::choice(&request)?;
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_devices(&page, &choice).await?;
        let devices = page.items.into_iter().map(encode::seen).collect();
        Ok(ListDevicesResponse { devices, next_page_token: page.next })
    }

    async fn deleted(&self, request: DeleteDeviceRequest) -> Result<DeleteDeviceResponse, ApiError> {
        let key = decode::device_key("name", &request.tenant, &request.name)?;
        Ok(DeleteDeviceResponse { unconfirmed_nodes: self.domain.delete_device(&key).await? })
    }

    async fn devices_put(&self, request: PutDevicesRequest) -> Result<PutDevicesResponse, ApiError> {
        let tenant = decode::tenant(&request.tenant)?;
        let devices = request.devices.iter().map(|device| decode::device_of(&tenant, device)).collect();
        let Bulk { done, refusals } = self.domain.put_devices(devices).await?;
        Ok(PutDevicesResponse { written: done, refusals: refusals.into_iter().map(encode::refusal).collect() })
    }

    async fn devices_deleted(&self, request: DeleteDevicesRequest) -> Result<DeleteDevicesResponse, ApiError> {
        let tenant = decode::tenant(&request.tenant)?;
        let Bulk { done, refusals } = self.domain.delete_devices(&tenant, &request.owner, request.names).await?;
        Ok(DeleteDevicesResponse { deleted: done, refusals: refusals.into_iter().map(encode::refusal).collect() })
    }

    async fn token(&self, request: IssueTokenRequest) -> Result<IssueTokenResponse, ApiError> {
        let key = decode::device_key("device", &request.tenant, &request.device)?;
        let (credential, token) = self.domain.issue_token(&key, request.duration_s, request.owner).await?;
        Ok(IssueTokenResponse { credential: encode::credential(&credential), token })
    }

    async fn certificate(&self, request: IssueCertificateRequest) -> Result<IssueCertificateResponse, ApiError> {
        let key = decode::device_key("device", &request.tenant, &request.device)?;
        let (credential, issued) = self.domain.issue_certificate(&key, request.duration_s, request.owner).await?;
        Ok(IssueCertificateResponse {
            credential: encode::credential(&credential),
            certificate_pem: issued.certificate_pem,
            private_key_pem: issued.private_key_pem,
            ca_pem: issued.ca_pem,
        })
    }

    async fn key(&self, request: IssuePreSharedKeyRequest) -> Result<IssuePreSharedKeyResponse, ApiError> {
        let device = decode::device_key("device", &request.tenant, &request.device)?;
        let (credential, key) = self.domain.issue_pre_shared_key(&device, request.duration_s, request.owner).await?;
        Ok(IssuePreSharedKeyResponse { credential: encode::credential(&credential), key })
    }

    async fn credentials(&self, request: ListCredentialsRequest) -> Result<ListCredentialsResponse, ApiError> {
        let key = decode::device_key("device", &request.tenant, &request.device)?;
        let credentials = self.domain.list_credentials(&key).await?;
        Ok(ListCredentialsResponse { credentials: credentials.iter().filter_map(encode::credential).collect() })
    }

    async fn revoked(&self, request: RevokeCredentialRequest) -> Result<RevokeCredentialResponse, ApiError> {
        let tenant = decode::tenant(&request.tenant)?;
        let unconfirmed_nodes = self.domain.revoke_credential(&tenant, &request.id).await?;
        Ok(RevokeCredentialResponse { unconfirmed_nodes })
    }

    async fn policy_put(&self, request: PutPolicyRequest) -> Result<PutPolicyResponse, ApiError> {
        let policy = self.domain.put_policy(decode::policy(request.policy.as_ref())?).await?;
        Ok(PutPolicyResponse { policy: Some(encode::policy(policy)) })
    }

    async fn policy(&self, request: GetPolicyRequest) -> Result<GetPolicyResponse, ApiError> {
        let policy = self.domain.get_policy(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(GetPolicyResponse { policy: Some(encode::policy(policy)) })
    }

    async fn policies(&self, request: ListPoliciesRequest) -> Result<ListPoliciesResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_policies(&page).await?;
        let policies = page.items.into_iter().map(encode::policy).collect();
        Ok(ListPoliciesResponse { policies, next_page_token: page.next })
    }

    async fn policy_deleted(&self, request: DeletePolicyRequest) -> Result<DeletePolicyResponse, ApiError> {
        self.domain.delete_policy(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeletePolicyResponse {})
    }

    async fn rule_put(&self, request: PutRuleRequest) -> Result<PutRuleResponse, ApiError> {
        let rule = self.domain.put_rule(decode::rule(request.rule.as_ref())?).await?;
        Ok(PutRuleResponse { rule: Some(encode::rule(rule)) })
    }

    async fn rule(&self, request: GetRuleRequest) -> Result<GetRuleResponse, ApiError> {
        let rule = self.domain.get_rule(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(GetRuleResponse { rule: Some(encode::rule(rule)) })
    }

    async fn rules(&self, request: ListRulesRequest) -> Result<ListRulesResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_rules(&page).await?;
        let rules = page.items.into_iter().map(encode::rule).collect();
        Ok(ListRulesResponse { rules, next_page_token: page.next })
    }

    async fn rule_deleted(&self, request: DeleteRuleRequest) -> Result<DeleteRuleResponse, ApiError> {
        self.domain.delete_rule(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeleteRuleResponse {})
    }

    async fn identity(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, ApiError> {
        let identity = self.domain.authenticate(decode::proof(request.proof)?).await?;
        Ok(AuthenticateResponse { identity: Some(encode::identity(identity)) })
    }

    async fn identities(&self, request: AuthenticateAllRequest) -> Result<AuthenticateAllResponse, ApiError> {
        let proofs = decode::proofs(request.questions)?;
        let mut readable = Vec::with_capacity(proofs.len());
        let shapes: Vec<_> = proofs.into_iter().map(|proof| proof.map(|proof| readable.push(proof))).collect();
        let mut judged = self.domain.authenticate_all(readable).await.into_iter();
        let outcomes = shapes.into_iter().map(|shape| shape.and_then(|()| judged.next().expect("one for each proof")));
        Ok(encode::verdicts(outcomes))
    }
}

impl Server {
    async fn api_token_made(&self, request: CreateApiTokenRequest) -> Result<CreateApiTokenResponse, ApiError> {
        let (made, token) = self.domain.create_api_token(decode::api_token(request)?).await?;
        Ok(CreateApiTokenResponse { api_token: Some(encode::api_token(made)), token })
    }

    async fn api_tokens(&self, request: ListApiTokensRequest) -> Result<ListApiTokensResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_api_tokens(&page).await?;
        let api_tokens = page.items.into_iter().map(encode::api_token).collect();
        Ok(ListApiTokensResponse { api_tokens, next_page_token: page.next })
    }

    async fn api_token_deleted(&self, request: DeleteApiTokenRequest) -> Result<DeleteApiTokenResponse, ApiError> {
        self.domain.delete_api_token(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeleteApiTokenResponse {})
    }

    async fn api_token(&self, request: VerifyApiTokenRequest) -> Result<VerifyApiTokenResponse, ApiError> {
        let known = self.domain.verify_api_token(&request.token).await?;
        Ok(VerifyApiTokenResponse { api_token: Some(encode::api_token(known)) })
    }
}

impl Server {
    async fn topic_owners(&self, request: FindTopicOwnersRequest) -> Result<FindTopicOwnersResponse, ApiError> {
        let owners = self.domain.topic_owners(&request.topics).await?;
        let tenants = owners.into_iter().map(|owner| owner.map(String::from).unwrap_or_default());
        Ok(FindTopicOwnersResponse { tenants: tenants.collect() })
    }
}

impl Server {
    async fn function_put(&self, request: PutFunctionRequest) -> Result<PutFunctionResponse, ApiError> {
        let function = self.domain.put_function(decode::function(request.function.as_ref())?).await?;
        Ok(PutFunctionResponse { function: Some(encode::function(function)) })
    }

    async fn function(&self, request: GetFunctionRequest) -> Result<GetFunctionResponse, ApiError> {
        let function = self.domain.get_function(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(GetFunctionResponse { function: Some(encode::function(function)) })
    }

    async fn functions(&self, request: ListFunctionsRequest) -> Result<ListFunctionsResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_functions(&page).await?;
        let functions = page.items.into_iter().map(encode::function).collect();
        Ok(ListFunctionsResponse { functions, next_page_token: page.next })
    }

    async fn function_deleted(&self, request: DeleteFunctionRequest) -> Result<DeleteFunctionResponse, ApiError> {
        self.domain.delete_function(&decode::tenant(&request.tenant)?, &request.name).await?;
        Ok(DeleteFunctionResponse {})
    }
}

impl Server {
    async fn authority_put(
        &self,
        request: PutCertificateAuthorityRequest,
    ) -> Result<PutCertificateAuthorityResponse, ApiError> {
        let authority = decode::certificate_authority(request.certificate_authority.as_ref())?;
        let authority = self.domain.put_certificate_authority(authority).await?;
        let certificate_authority = Some(encode::certificate_authority(authority));
        Ok(PutCertificateAuthorityResponse { certificate_authority })
    }

    async fn authority(
        &self,
        request: GetCertificateAuthorityRequest,
    ) -> Result<GetCertificateAuthorityResponse, ApiError> {
        let tenant = decode::tenant(&request.tenant)?;
        let authority = self.domain.get_certificate_authority(&tenant, &request.name).await?;
        let certificate_authority = Some(encode::certificate_authority(authority));
        Ok(GetCertificateAuthorityResponse { certificate_authority })
    }

    async fn authorities(
        &self,
        request: ListCertificateAuthoritiesRequest,
    ) -> Result<ListCertificateAuthoritiesResponse, ApiError> {
        let page = decode::page(&request.tenant, request.page_size, request.page_token)?;
        let page = self.domain.list_certificate_authorities(&page).await?;
        let certificate_authorities = page.items.into_iter().map(encode::certificate_authority).collect();
        Ok(ListCertificateAuthoritiesResponse { certificate_authorities, next_page_token: page.next })
    }

    async fn authority_deleted(
        &self,
        request: DeleteCertificateAuthorityRequest,
    ) -> Result<DeleteCertificateAuthorityResponse, ApiError> {
        let tenant = decode::tenant(&request.tenant)?;
        self.domain.delete_certificate_authority(&tenant, &request.name).await?;
        Ok(DeleteCertificateAuthorityResponse {})
    }
}

impl Server {
    async fn key_found(&self, request: FindPreSharedKeyRequest) -> Result<FindPreSharedKeyResponse, ApiError> {
        let FoundKey { device, credential_id, key } = self.domain.find_pre_shared_key(&request.identity).await?;
        Ok(FindPreSharedKeyResponse { tenant: device.tenant.into(), device: device.device.into(), credential_id, key })
    }
}

impl Server {
    async fn entries(&self, request: ListAuditRequest) -> Result<ListAuditResponse, ApiError> {
        let page = self.domain.list_audit(&decode::audit(request)?).await?;
        let entries = page.items.iter().map(wire::encode_entry).collect();
        Ok(ListAuditResponse { entries, next_page_token: page.next })
    }
}

serve! {
    Registry:
    create_device(CreateDeviceRequest) -> CreateDeviceResponse = created;
    update_device(UpdateDeviceRequest) -> UpdateDeviceResponse = updated;
    get_device(GetDeviceRequest) -> GetDeviceResponse = device;
    list_devices(ListDevicesRequest) -> ListDevicesResponse = devices;
    delete_device(DeleteDeviceRequest) -> DeleteDeviceResponse = deleted;
    put_devices(PutDevicesRequest) -> PutDevicesResponse = devices_put;
    delete_devices(DeleteDevicesRequest) -> DeleteDevicesResponse = devices_deleted;
    issue_token(IssueTokenRequest) -> IssueTokenResponse = token;
    issue_certificate(IssueCertificateRequest) -> IssueCertificateResponse = certificate;
    issue_pre_shared_key(IssuePreSharedKeyRequest) -> IssuePreSharedKeyResponse = key;
    list_credentials(ListCredentialsRequest) -> ListCredentialsResponse = credentials;
    revoke_credential(RevokeCredentialRequest) -> RevokeCredentialResponse = revoked;
    put_policy(PutPolicyRequest) -> PutPolicyResponse = policy_put;
    get_policy(GetPolicyRequest) -> GetPolicyResponse = policy;
    list_policies(ListPoliciesRequest) -> ListPoliciesResponse = policies;
    delete_policy(DeletePolicyRequest) -> DeletePolicyResponse = policy_deleted;
    put_rule(PutRuleRequest) -> PutRuleResponse = rule_put;
    get_rule(GetRuleRequest) -> GetRuleResponse = rule;
    list_rules(ListRulesRequest) -> ListRulesResponse = rules;
    delete_rule(DeleteRuleRequest) -> DeleteRuleResponse = rule_deleted;
    authenticate(AuthenticateRequest) -> AuthenticateResponse = identity;
    authenticate_all(AuthenticateAllRequest) -> AuthenticateAllResponse = identities;
}

serve! {
    PreSharedKeys:
    find_pre_shared_key(FindPreSharedKeyRequest) -> FindPreSharedKeyResponse = key_found;
}

serve! {
    ApiTokens:
    create_api_token(CreateApiTokenRequest) -> CreateApiTokenResponse = api_token_made;
    list_api_tokens(ListApiTokensRequest) -> ListApiTokensResponse = api_tokens;
    delete_api_token(DeleteApiTokenRequest) -> DeleteApiTokenResponse = api_token_deleted;
    verify_api_token(VerifyApiTokenRequest) -> VerifyApiTokenResponse = api_token;
}

serve! {
    Topics:
    find_topic_owners(FindTopicOwnersRequest) -> FindTopicOwnersResponse = topic_owners;
}

serve! {
    Audit:
    list_audit(ListAuditRequest) -> ListAuditResponse = entries;
}

serve! {
    Functions:
    put_function(PutFunctionRequest) -> PutFunctionResponse = function_put;
    get_function(GetFunctionRequest) -> GetFunctionResponse = function;
    list_functions(ListFunctionsRequest) -> ListFunctionsResponse = functions;
    delete_function(DeleteFunctionRequest) -> DeleteFunctionResponse = function_deleted;
}

serve! {
    CertificateAuthorities:
    put_certificate_authority(PutCertificateAuthorityRequest) -> PutCertificateAuthorityResponse = authority_put;
    get_certificate_authority(GetCertificateAuthorityRequest) -> GetCertificateAuthorityResponse = authority;
    list_certificate_authorities(ListCertificateAuthoritiesRequest) -> ListCertificateAuthoritiesResponse = authorities;
    delete_certificate_authority(DeleteCertificateAuthorityRequest) -> DeleteCertificateAuthorityResponse =
        authority_deleted;
}
