//! The registry over gRPC.

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::Field;
use drover_proto::registry::v1::certificate_authorities_client::CertificateAuthoritiesClient;
use drover_proto::registry::v1::functions_client::FunctionsClient;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1 as types;
use drover_types::object::{CertificateAuthoritySpec, DeviceSpec, FunctionSpec, PolicySpec, RuleSpec};
use drover_types::{ApiError, DeviceKey, TenantId};

use super::backend::{Backend, unless_gone};
use super::convert;
use crate::ports::{
    Credential, CredentialKind, DevicePage, Found, FoundDevice, Issued, IssuedSecret, Refusal, Registry, Wanted,
};

/// Devices of one page of a list; the registry ends a page earlier where it would not fit into a message.
const PAGE_SIZE: u32 = 100;

/// The registry of the network.
pub struct GrpcRegistry {
    registry: Backend<RegistryClient<grpc::Client>>,
    functions: Backend<FunctionsClient<grpc::Client>>,
    authorities: Backend<CertificateAuthoritiesClient<grpc::Client>>,
}

impl GrpcRegistry {
    /// Connects when first used.
    pub fn new(network: &Network) -> Self {
        Self {
            registry: Backend::new("registry", RegistryClient::new(network.client("registry"))),
            functions: Backend::new("registry", FunctionsClient::new(network.client("registry"))),
            authorities: Backend::new("registry", CertificateAuthoritiesClient::new(network.client("registry"))),
        }
    }

    async fn issue_token(&self, device: &DeviceKey, duration_s: u64, owner: &str) -> Result<Issued, ApiError> {
        let (tenant, device, owner) = (device.tenant.to_string(), device.device.to_string(), owner.to_owned());
        let request = IssueTokenRequest { tenant, device, duration_s, owner };
        let made = self.registry.call(async |mut client| client.issue_token(request).await).await?;
        let credential = convert::credential(made.credential.required("credential")?)?;
        Ok(Issued { credential, secret: IssuedSecret::Token(made.token) })
    }

    async fn issue_certificate(&self, device: &DeviceKey, duration_s: u64, owner: &str) -> Result<Issued, ApiError> {
        let (tenant, device, owner) = (device.tenant.to_string(), device.device.to_string(), owner.to_owned());
        let request = IssueCertificateRequest { tenant, device, duration_s, owner };
        let made = self.registry.call(async |mut client| client.issue_certificate(request).await).await?;
        let credential = convert::credential(made.credential.required("credential")?)?;
        let (certificate, private_key, authority) = (made.certificate_pem, made.private_key_pem, made.ca_pem);
        Ok(Issued { credential, secret: IssuedSecret::Certificate { certificate, private_key, authority } })
    }
}

#[async_trait]
impl Registry for GrpcRegistry {
    async fn device(&self, key: &DeviceKey) -> Result<Option<FoundDevice>, ApiError> {
        let request = GetDeviceRequest { tenant: key.tenant.to_string(), name: key.device.to_string() };
        let answer = self.registry.call(async |mut client| client.get_device(request).await).await;
        unless_gone(answer)?.as_ref().map(convert::seen).transpose()
    }

    async fn put_device(&self, wanted: &Wanted<DeviceSpec>, revision: u64) -> Result<Found<DeviceSpec>, ApiError> {
        let device = Some(types::Device::of(convert::meta(wanted, revision), wanted.spec.clone()));
        let written = if revision == 0 {
            let request = CreateDeviceRequest { device };
            self.registry.call(async |mut client| client.create_device(request).await).await?.device
        } else {
            let request = UpdateDeviceRequest { device };
            self.registry.call(async |mut client| client.update_device(request).await).await?.device
        };
        convert::device(&written.required("device")?)
    }

    async fn delete_device(&self, key: &DeviceKey) -> Result<Vec<String>, ApiError> {
        let request = DeleteDeviceRequest { tenant: key.tenant.to_string(), name: key.device.to_string() };
        let answer = self.registry.call(async |mut client| client.delete_device(request).await).await;
        Ok(unless_gone(answer)?.map(|answer| answer.unconfirmed_nodes).unwrap_or_default())
    }

    async fn credentials(&self, device: &DeviceKey) -> Result<Vec<Credential>, ApiError> {
        let request = ListCredentialsRequest { tenant: device.tenant.to_string(), device: device.device.to_string() };
        let listed = self.registry.call(async |mut client| client.list_credentials(request).await).await?;
        // Keys are in no Secret: they are not the operator's.
        let own = listed.credentials.into_iter().filter(|sent| sent.kind() != types::CredentialKind::PreSharedKey);
        own.map(convert::credential).collect()
    }

    async fn issue(
        &self,
        device: &DeviceKey,
        kind: CredentialKind,
        duration_s: u64,
        owner: &str,
    ) -> Result<Issued, ApiError> {
        match kind {
            CredentialKind::Token => self.issue_token(device, duration_s, owner).await,
            CredentialKind::Certificate => self.issue_certificate(device, duration_s, owner).await,
        }
    }

    async fn revoke(&self, tenant: &TenantId, id: &str) -> Result<(), ApiError> {
        let request = RevokeCredentialRequest { tenant: tenant.to_string(), id: id.to_owned() };
        unless_gone(self.registry.call(async |mut client| client.revoke_credential(request).await).await).map(drop)
    }

    async fn rule(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<RuleSpec>>, ApiError> {
        let request = GetRuleRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let answer = unless_gone(self.registry.call(async |mut client| client.get_rule(request).await).await)?;
        answer.and_then(|answer| answer.rule).as_ref().map(rule_found).transpose()
    }

    async fn put_rule(&self, wanted: &Wanted<RuleSpec>, revision: u64) -> Result<Found<RuleSpec>, ApiError> {
        let rule = Some(types::Rule::of(convert::meta(wanted, revision), wanted.spec.clone()));
        let request = PutRuleRequest { rule };
        let written = self.registry.call(async |mut client| client.put_rule(request).await).await?;
        rule_found(&written.rule.required("rule")?)
    }

    async fn delete_rule(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let request = DeleteRuleRequest { tenant: tenant.to_string(), name: name.to_owned() };
        unless_gone(self.registry.call(async |mut client| client.delete_rule(request).await).await).map(drop)
    }

    async fn policy(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<PolicySpec>>, ApiError> {
        let request = GetPolicyRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let answer = unless_gone(self.registry.call(async |mut client| client.get_policy(request).await).await)?;
        answer.and_then(|answer| answer.policy).as_ref().map(policy_found).transpose()
    }

    async fn put_policy(&self, wanted: &Wanted<PolicySpec>, revision: u64) -> Result<Found<PolicySpec>, ApiError> {
        let policy = Some(types::Policy::of(convert::meta(wanted, revision), wanted.spec.clone()));
        let request = PutPolicyRequest { policy };
        let written = self.registry.call(async |mut client| client.put_policy(request).await).await?;
        policy_found(&written.policy.required("policy")?)
    }

    async fn delete_policy(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let request = DeletePolicyRequest { tenant: tenant.to_string(), name: name.to_owned() };
        unless_gone(self.registry.call(async |mut client| client.delete_policy(request).await).await).map(drop)
    }

    async fn function(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<FunctionSpec>>, ApiError> {
        let request = GetFunctionRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let answer = unless_gone(self.functions.call(async |mut client| client.get_function(request).await).await)?;
        answer.and_then(|answer| answer.function).as_ref().map(function_found).transpose()
    }

    async fn put_function(
        &self,
        wanted: &Wanted<FunctionSpec>,
        revision: u64,
    ) -> Result<Found<FunctionSpec>, ApiError> {
        let function = Some(types::Function::of(convert::meta(wanted, revision), wanted.spec.clone()));
        let request = PutFunctionRequest { function };
        let written = self.functions.call(async |mut client| client.put_function(request).await).await?;
        function_found(&written.function.required("function")?)
    }

    async fn delete_function(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let request = DeleteFunctionRequest { tenant: tenant.to_string(), name: name.to_owned() };
        unless_gone(self.functions.call(async |mut client| client.delete_function(request).await).await).map(drop)
    }

    async fn certificate_authority(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<Found<CertificateAuthoritySpec>>, ApiError> {
        let request = GetCertificateAuthorityRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let answer = self.authorities.call(async |mut client| client.get_certificate_authority(request).await).await;
        let authority = unless_gone(answer)?.and_then(|answer| answer.certificate_authority);
        authority.as_ref().map(authority_found).transpose()
    }

    async fn put_certificate_authority(
        &self,
        wanted: &Wanted<CertificateAuthoritySpec>,
        revision: u64,
    ) -> Result<Found<CertificateAuthoritySpec>, ApiError> {
        let authority = types::CertificateAuthority::of(convert::meta(wanted, revision), wanted.spec.clone());
        let request = PutCertificateAuthorityRequest { certificate_authority: Some(authority) };
        let written = self.authorities.call(async |mut client| client.put_certificate_authority(request).await).await?;
        authority_found(&written.certificate_authority.required("certificate_authority")?)
    }

    async fn delete_certificate_authority(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let request = DeleteCertificateAuthorityRequest { tenant: tenant.to_string(), name: name.to_owned() };
        let answer = self.authorities.call(async |mut client| client.delete_certificate_authority(request).await).await;
        unless_gone(answer).map(drop)
    }

    async fn devices(&self, tenant: &TenantId, after: &str) -> Result<DevicePage, ApiError> {
        let (tenant, page_token) = (tenant.to_string(), after.to_owned());
        let request = ListDevicesRequest { tenant, page_size: PAGE_SIZE, page_token, ..Default::default() };
        let listed = self.registry.call(async |mut client| client.list_devices(request).await).await?;
        let devices = listed.devices.iter().map(convert::seen).collect::<Result<_, _>>()?;
        Ok(DevicePage { devices, next: listed.next_page_token })
    }

    async fn put_devices(&self, wanted: &[Wanted<DeviceSpec>]) -> Result<Vec<Refusal>, ApiError> {
        let Some(request) = bulk(wanted) else { return Ok(Vec::new()) };
        let answer = self.registry.call(async |mut client| client.put_devices(request).await).await?;
        Ok(answer.refusals.into_iter().map(convert::refusal).collect())
    }

    async fn delete_devices(&self, tenant: &TenantId, owner: &str, names: &[String]) -> Result<Vec<Refusal>, ApiError> {
        let (tenant, owner) = (tenant.to_string(), owner.to_owned());
        let request = DeleteDevicesRequest { tenant, owner, names: names.to_vec() };
        let answer = self.registry.call(async |mut client| client.delete_devices(request).await).await?;
        Ok(answer.refusals.into_iter().map(convert::refusal).collect())
    }
}

/// The call that writes devices of one tenant.
fn bulk(wanted: &[Wanted<DeviceSpec>]) -> Option<PutDevicesRequest> {
    let tenant = wanted.first()?.tenant.to_string();
    let of = |wanted: &Wanted<DeviceSpec>| types::Device::of(convert::meta(wanted, 0), wanted.spec.clone());
    Some(PutDevicesRequest { tenant, devices: wanted.iter().map(of).collect() })
}

fn rule_found(rule: &types::Rule) -> Result<Found<RuleSpec>, ApiError> {
    convert::found(&rule.meta, RuleSpec::try_from(rule)?)
}

fn policy_found(policy: &types::Policy) -> Result<Found<PolicySpec>, ApiError> {
    convert::found(&policy.meta, PolicySpec::try_from(policy)?)
}

fn authority_found(authority: &types::CertificateAuthority) -> Result<Found<CertificateAuthoritySpec>, ApiError> {
    convert::found(&authority.meta, CertificateAuthoritySpec::try_from(authority)?)
}

fn function_found(function: &types::Function) -> Result<Found<FunctionSpec>, ApiError> {
    convert::found(&function.meta, FunctionSpec::try_from(function)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;

    use super::*;
    use crate::domain::fleet::parts;
    use crate::ports::BULK_BYTES_MAX;

    #[test]
    fn a_bulk_call_of_devices_with_many_short_texts_is_within_its_bytes_too() {
        let attributes: BTreeMap<_, _> = (0..1_000).map(|i| (format!("a{i:04}"), "1".to_owned())).collect();
        let wanted = |number: usize| Wanted {
            tenant: TenantId::default_tenant(),
            name: format!("d{number}"),
            labels: BTreeMap::new(),
            spec: DeviceSpec { attributes: attributes.clone(), ..DeviceSpec::default() },
            owner: "kubernetes/fleets/f".to_owned(),
        };
        let devices: Vec<_> = (0..200).map(wanted).collect();
        let sizes: Vec<_> = parts(&devices).into_iter().filter_map(bulk).map(|call| call.encoded_len()).collect();
        assert!(sizes.iter().sum::<usize>() > BULK_BYTES_MAX, "{sizes:?}");
        assert!(sizes.iter().all(|bytes| *bytes <= BULK_BYTES_MAX), "{sizes:?}");
    }
}
