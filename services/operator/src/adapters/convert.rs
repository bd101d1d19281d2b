//! Between messages of the registry and what the ports say.

use drover_proto::Field;
use drover_proto::registry::v1 as registry;
use drover_proto::types::v1 as types;
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, ErrorCode};

use crate::ports::{Credential, CredentialKind, Found, FoundDevice, Presence, Refusal, Wanted};

/// Metadata of an object that is to replace the one of `revision`.
pub fn meta<S>(wanted: &Wanted<S>, revision: u64) -> types::Meta {
    types::Meta {
        tenant: wanted.tenant.to_string(),
        name: wanted.name.clone(),
        labels: wanted.labels.clone().into_iter().collect(),
        revision,
        owner: wanted.owner.clone(),
        ..types::Meta::default()
    }
}

pub fn found<S>(meta: &Option<types::Meta>, spec: S) -> Result<Found<S>, ApiError> {
    let meta = meta.as_ref().required("meta")?;
    Ok(Found {
        labels: meta.labels.clone().into_iter().collect(),
        spec,
        owner: meta.owner.clone(),
        revision: meta.revision,
        generation: meta.generation,
    })
}

pub fn device(device: &types::Device) -> Result<Found<DeviceSpec>, ApiError> {
    found(&device.meta, DeviceSpec::from(device))
}

pub fn seen(answer: &registry::GetDeviceResponse) -> Result<FoundDevice, ApiError> {
    let sent = answer.device.as_ref().required("device")?;
    let presence = answer.presence.unwrap_or_default();
    Ok(FoundDevice {
        name: sent.meta.as_ref().required("meta")?.name.clone(),
        object: device(sent)?,
        presence: Presence {
            ever_seen: presence.ever_seen,
            connected: presence.connected,
            changed_ms: presence.changed_ms,
        },
    })
}

pub fn credential(credential: types::Credential) -> Result<Credential, ApiError> {
    let kind = match credential.kind() {
        types::CredentialKind::Token => CredentialKind::Token,
        types::CredentialKind::Certificate => CredentialKind::Certificate,
        types::CredentialKind::PreSharedKey | types::CredentialKind::Unspecified => {
            return Err(ApiError::invalid("kind", "is not one that the operator issues"));
        }
    };
    Ok(Credential {
        id: credential.id,
        kind,
        owner: credential.owner,
        created_ms: credential.created_ms,
        expires_ms: Some(credential.expires_ms).filter(|ms| *ms > 0),
    })
}

pub fn refusal(refusal: registry::DeviceRefusal) -> Refusal {
    let code = ErrorCode::from_grpc(i32::try_from(refusal.code).unwrap_or_default());
    let field = Some(refusal.field).filter(|field| !field.is_empty());
    Refusal { name: refusal.name, error: ApiError { field, ..ApiError::new(code, refusal.message) } }
}
