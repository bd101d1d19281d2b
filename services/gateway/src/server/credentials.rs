//! `devices/{device}/credentials`: secrets leave in the answer that made them, and never again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_proto::Field;
use drover_proto::registry::v1::{
    GetDeviceRequest, IssueCertificateRequest, IssuePreSharedKeyRequest, IssueTokenRequest, IssueTokenResponse,
    ListCredentialsRequest, RevokeCredentialRequest,
};
use drover_proto::types::v1 as wire;
use drover_types::{ApiError, DeviceId, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::objects::{Answer, List, Revoked};
use super::path::{At, DeviceParam};
use crate::domain::declared::{iso, typed};
use drover_host::http::Failure;

/// What kind of proof a credential is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Token,
    Certificate,
    PreSharedKey,
}

/// What is wanted.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    kind: Kind,
    /// Seconds until it ends; absent: a token or a key does not, a certificate does in a year.
    #[serde(default)]
    duration_s: u64,
}

/// What is known of a credential.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    id: String,
    device: String,
    kind: Kind,
    creation_timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<String>,
}

/// Everything a device needs to connect.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    #[schema(value_type = String)]
    tenant: TenantId,
    #[schema(value_type = String)]
    device: DeviceId,
    #[serde(flatten)]
    secret: Secret,
    endpoints: Endpoints,
}

/// The proof itself.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", untagged)]
pub enum Secret {
    Token {
        credential: String,
        token: String,
    },
    Certificate {
        credential: String,
        certificate_pem: String,
        private_key_pem: String,
        ca_pem: String,
    },
    /// For DTLS: the identity, and the key, of which each character is a byte.
    PreSharedKey {
        credential: String,
        identity: String,
        pre_shared_key: String,
    },
}

/// Where devices connect, `host:port`.
#[derive(Serialize, ToSchema)]
pub struct Endpoints {
    mqtt: String,
    mqtts: String,
    http: String,
}

/// Credentials of a device, without their secrets.
#[utoipa::path(get, path = "/devices/{device}/credentials", operation_id = "listCredentials", tag = "devices",
    params(DeviceParam), responses((status = 200, body = List<Credential>, description = "All of them.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At) -> Answer<List<Credential>> {
    let items = listed(&api, &at).await?.iter().map(Credential::try_from).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: String::new() }))
}

/// Issues a credential; its secret is shown this once.
#[utoipa::path(post, path = "/devices/{device}/credentials", operation_id = "issueCredential", tag = "devices",
    params(DeviceParam), request_body = Order,
    responses((status = 201, body = Access, description = "The secret, and where to connect with it.")))]
pub async fn issue(
    State(api): State<Arc<Api>>,
    at: At,
    Body(body): Body,
) -> Result<(StatusCode, Json<Access>), Failure> {
    let order: Order = typed("", body)?;
    let device = at.device()?;
    let access = match order.kind {
        Kind::Token => token(&api, &at.tenant, &device, order.duration_s).await?,
        Kind::Certificate => certificate(&api, &at.tenant, &device, order.duration_s).await?,
        Kind::PreSharedKey => pre_shared_key(&api, &at.tenant, &device, order.duration_s).await?,
    };
    Ok((StatusCode::CREATED, Json(access)))
}

/// Revokes a credential; connections that used it are closed.
#[utoipa::path(delete, path = "/devices/{device}/credentials/{credential}", operation_id = "revokeCredential",
    tag = "devices", params(DeviceParam, ("credential" = String, Path, description = "Its id.")),
    responses((status = 200, body = Revoked, description = "It is revoked.")))]
pub async fn revoke(State(api): State<Arc<Api>>, at: At) -> Answer<Revoked> {
    let id = at.name("credential")?;
    if !listed(&api, &at).await?.iter().any(|credential| credential.id == id) {
        let message = format!("device {} has no credential {id}", at.device()?);
        return Err(ApiError::new(ErrorCode::NotFound, message).into());
    }
    let request = RevokeCredentialRequest { tenant: at.tenant.to_string(), id: id.to_owned() };
    let revoked = api.registry.call(async |mut client| client.revoke_credential(request).await).await?;
    Ok(Json(Revoked { unconfirmed_nodes: revoked.unconfirmed_nodes }))
}

/// Issues a token that ends after `duration_s` seconds, or never if that is 0.
async fn token(api: &Api, tenant: &TenantId, device: &DeviceId, duration_s: u64) -> Result<Access, ApiError> {
    access(api, tenant, device, issue_token(api, tenant, device, duration_s).await?)
}

/// What a device needs to connect with the token that the registry has issued to it.
pub fn access(api: &Api, tenant: &TenantId, device: &DeviceId, issued: IssueTokenResponse) -> Result<Access, ApiError> {
    let credential = issued.credential.required("credential")?.id;
    Ok(Access::new(api, tenant, device, Secret::Token { credential, token: issued.token }))
}

/// As [`token`], as the registry answers it.
pub async fn issue_token(
    api: &Api,
    tenant: &TenantId,
    device: &DeviceId,
    duration_s: u64,
) -> Result<IssueTokenResponse, ApiError> {
    let request =
        IssueTokenRequest { tenant: tenant.to_string(), device: device.to_string(), duration_s, owner: String::new() };
    api.registry.call(async |mut client| client.issue_token(request).await).await
}

async fn certificate(api: &Api, tenant: &TenantId, device: &DeviceId, duration_s: u64) -> Result<Access, ApiError> {
    let request = IssueCertificateRequest {
        tenant: tenant.to_string(),
        device: device.to_string(),
        duration_s,
        owner: String::new(),
    };
    let issued = api.registry.call(async |mut client| client.issue_certificate(request).await).await?;
    let secret = Secret::Certificate {
        credential: issued.credential.required("credential")?.id,
        certificate_pem: issued.certificate_pem,
        private_key_pem: issued.private_key_pem,
        ca_pem: issued.ca_pem,
    };
    Ok(Access::new(api, tenant, device, secret))
}

async fn pre_shared_key(api: &Api, tenant: &TenantId, device: &DeviceId, duration_s: u64) -> Result<Access, ApiError> {
    let request = IssuePreSharedKeyRequest {
        tenant: tenant.to_string(),
        device: device.to_string(),
        duration_s,
        owner: String::new(),
    };
    let issued = api.registry.call(async |mut client| client.issue_pre_shared_key(request).await).await?;
    let secret = Secret::PreSharedKey {
        credential: issued.credential.required("credential")?.id,
        identity: format!("{tenant}/{device}"),
        pre_shared_key: issued.key,
    };
    Ok(Access::new(api, tenant, device, secret))
}

/// The credentials of a device that exists.
async fn listed(api: &Api, at: &At) -> Result<Vec<wire::Credential>, ApiError> {
    let (tenant, device) = (at.tenant.to_string(), at.device()?.to_string());
    let exists = GetDeviceRequest { tenant: tenant.clone(), name: device.clone() };
    api.registry.call(async |mut client| client.get_device(exists).await).await?;
    let request = ListCredentialsRequest { tenant, device };
    Ok(api.registry.call(async |mut client| client.list_credentials(request).await).await?.credentials)
}

impl Access {
    fn new(api: &Api, tenant: &TenantId, device: &DeviceId, secret: Secret) -> Self {
        let config = &api.config;
        let endpoints = Endpoints {
            mqtt: config.mqtt_endpoint.clone(),
            mqtts: config.mqtts_endpoint.clone(),
            http: config.http_endpoint.clone(),
        };
        Self { tenant: tenant.clone(), device: device.clone(), secret, endpoints }
    }
}

impl TryFrom<&wire::Credential> for Credential {
    type Error = ApiError;

    fn try_from(credential: &wire::Credential) -> Result<Self, ApiError> {
        let kind = match credential.kind() {
            wire::CredentialKind::Token => Kind::Token,
            wire::CredentialKind::Certificate => Kind::Certificate,
            wire::CredentialKind::PreSharedKey => Kind::PreSharedKey,
            wire::CredentialKind::Unspecified => {
                let message = format!("credential {} has no kind", credential.id);
                return Err(ApiError::new(ErrorCode::Internal, message));
            }
        };
        Ok(Self {
            id: credential.id.clone(),
            device: credential.device.clone(),
            kind,
            creation_timestamp: iso(credential.created_ms),
            expiration_timestamp: (credential.expires_ms > 0).then(|| iso(credential.expires_ms)),
        })
    }
}
