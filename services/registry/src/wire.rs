//! Objects in the form in which they are stored and sent: the messages of `drover.registry.v1`.
//!
//! Wire layer: checks shape only; what an object may say is the domain's to decide.

use drover_proto::Field;
use drover_proto::registry::v1 as registry;
use drover_proto::types::v1 as types;
use drover_types::object::{
    CertificateAuthoritySpec, DeviceGroupSpec, DeviceSpec, DeviceTypeSpec, FunctionSpec, PolicySpec, RuleSpec,
};
use drover_types::{ApiError, DeviceId, TenantId};

use crate::audit::{Action, Entry};
use crate::object::{
    ApiToken, Credential, CredentialKind, Digest, Kind, Meta, NONCE_BYTES, Object, Role, Sealed, Spec,
};
use crate::ports::Change;

impl TryFrom<&types::Meta> for Meta {
    type Error = ApiError;

    fn try_from(meta: &types::Meta) -> Result<Self, ApiError> {
        Ok(Self {
            tenant: tenant("metadata.namespace", &meta.tenant)?,
            name: meta.name.clone(),
            labels: meta.labels.clone().into_iter().collect(),
            generation: meta.generation,
            revision: meta.revision,
            created_ms: meta.created_ms,
            updated_ms: meta.updated_ms,
            owner: meta.owner.clone(),
        })
    }
}

impl From<Meta> for types::Meta {
    fn from(meta: Meta) -> Self {
        Self {
            tenant: meta.tenant.into(),
            name: meta.name,
            labels: meta.labels.into_iter().collect(),
            generation: meta.generation,
            revision: meta.revision,
            created_ms: meta.created_ms,
            updated_ms: meta.updated_ms,
            owner: meta.owner,
        }
    }
}

/// The tenant a field names; an empty field means the tenant `default`.
pub fn tenant(field: &str, text: &str) -> Result<TenantId, ApiError> {
    if text.is_empty() {
        return Ok(TenantId::default_tenant());
    }
    TenantId::new(text).map_err(|e| ApiError::invalid(field, e.to_string()))
}

/// The device id a field holds.
pub fn device(field: &str, text: &str) -> Result<DeviceId, ApiError> {
    DeviceId::new(text).map_err(|e| ApiError::invalid(field, e.to_string()))
}

/// A credential object as sent: what is sealed of it stays in the store.
pub fn credential(meta: &Meta, credential: &Credential) -> types::Credential {
    let kind = match credential.kind {
        CredentialKind::Token => types::CredentialKind::Token,
        CredentialKind::Certificate => types::CredentialKind::Certificate,
        CredentialKind::PreSharedKey => types::CredentialKind::PreSharedKey,
    };
    types::Credential {
        id: meta.name.clone(),
        tenant: meta.tenant.to_string(),
        device: credential.device.to_string(),
        kind: kind.into(),
        created_ms: meta.created_ms,
        expires_ms: credential.expires_ms.unwrap_or(0),
        digest: credential.digest.to_vec(),
        owner: meta.owner.clone(),
        sealed: None,
    }
}

/// A credential object as stored.
fn stored_credential(meta: &Meta, spec: &Credential) -> types::Credential {
    let sealed = spec.sealed.as_ref().map(|sealed| types::SealedSecret {
        master_key: sealed.master_key.clone(),
        nonce: sealed.nonce.to_vec(),
        secret: sealed.secret.clone(),
    });
    types::Credential { sealed, ..credential(meta, spec) }
}

/// An object as sent, on the change feed for example.
fn sent(object: &Object) -> registry::Object {
    match &object.spec {
        Spec::Credential(spec) => {
            let credential = credential(&object.meta, spec);
            registry::Object { object: Some(registry::object::Object::Credential(credential)) }
        }
        Spec::Device(_)
        | Spec::Policy(_)
        | Spec::Rule(_)
        | Spec::ApiToken(_)
        | Spec::Function(_)
        | Spec::CertificateAuthority(_)
        | Spec::DeviceType(_)
        | Spec::DeviceGroup(_) => encode(object),
    }
}

/// An object as stored.
pub fn encode(object: &Object) -> registry::Object {
    use registry::object::Object as Wire;
    let meta = || object.meta.clone().into();
    let wire = match &object.spec {
        Spec::Device(spec) => Wire::Device(types::Device::of(meta(), spec.clone())),
        Spec::Credential(spec) => Wire::Credential(stored_credential(&object.meta, spec)),
        Spec::Policy(spec) => Wire::Policy(types::Policy::of(meta(), spec.clone())),
        Spec::Rule(spec) => Wire::Rule(types::Rule::of(meta(), (**spec).clone())),
        Spec::ApiToken(spec) => Wire::ApiToken(api_token(meta(), spec)),
        Spec::Function(spec) => Wire::Function(types::Function::of(meta(), spec.clone())),
        Spec::CertificateAuthority(spec) => {
            Wire::CertificateAuthority(types::CertificateAuthority::of(meta(), spec.clone()))
        }
        Spec::DeviceType(spec) => Wire::DeviceType(types::DeviceType::of(meta(), spec.clone())),
        Spec::DeviceGroup(spec) => Wire::DeviceGroup(types::DeviceGroup::of(meta(), spec.clone())),
    };
    registry::Object { object: Some(wire) }
}

/// The object of a stored message. A credential's message has no revision; its row has.
pub fn decode(object: &registry::Object) -> Result<Object, ApiError> {
    use registry::object::Object as Wire;
    let meta = |meta: &Option<types::Meta>| Meta::try_from(meta.as_ref().required("meta")?);
    Ok(match object.object.as_ref().required("object")? {
        Wire::Device(device) => Object { meta: meta(&device.meta)?, spec: Spec::Device(DeviceSpec::from(device)) },
        Wire::Credential(credential) => decode_credential(credential)?,
        Wire::Policy(policy) => Object { meta: meta(&policy.meta)?, spec: Spec::Policy(PolicySpec::try_from(policy)?) },
        Wire::Rule(rule) => Object { meta: meta(&rule.meta)?, spec: Spec::Rule(Box::new(RuleSpec::try_from(rule)?)) },
        Wire::Function(function) => {
            Object { meta: meta(&function.meta)?, spec: Spec::Function(FunctionSpec::try_from(function)?) }
        }
        Wire::ApiToken(token) => Object { meta: meta(&token.meta)?, spec: Spec::ApiToken(decode_api_token(token)?) },
        Wire::CertificateAuthority(authority) => {
            let spec = Spec::CertificateAuthority(CertificateAuthoritySpec::try_from(authority)?);
            Object { meta: meta(&authority.meta)?, spec }
        }
        Wire::DeviceType(device_type) => {
            let spec = Spec::DeviceType(DeviceTypeSpec::try_from(device_type)?);
            Object { meta: meta(&device_type.meta)?, spec }
        }
        Wire::DeviceGroup(group) => {
            Object { meta: meta(&group.meta)?, spec: Spec::DeviceGroup(DeviceGroupSpec::try_from(group)?) }
        }
    })
}

fn decode_credential(credential: &types::Credential) -> Result<Object, ApiError> {
    let kind = match credential.kind() {
        types::CredentialKind::Token => CredentialKind::Token,
        types::CredentialKind::Certificate => CredentialKind::Certificate,
        types::CredentialKind::PreSharedKey => CredentialKind::PreSharedKey,
        types::CredentialKind::Unspecified => return Err(ApiError::invalid("kind", "is not a known kind")),
    };
    let spec = Credential {
        device: device("device", &credential.device)?,
        kind,
        expires_ms: Some(credential.expires_ms).filter(|ms| *ms > 0),
        digest: digest(&credential.digest)?,
        sealed: credential.sealed.as_ref().map(decode_sealed).transpose()?,
    };
    let meta = Meta {
        tenant: tenant("tenant", &credential.tenant)?,
        name: credential.id.clone(),
        labels: Default::default(),
        generation: 1,
        revision: 0,
        created_ms: credential.created_ms,
        updated_ms: credential.created_ms,
        owner: credential.owner.clone(),
    };
    Ok(Object { meta, spec: Spec::Credential(spec) })
}

fn decode_sealed(sealed: &types::SealedSecret) -> Result<Sealed, ApiError> {
    let types::SealedSecret { master_key, nonce, secret } = sealed.clone();
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|nonce: Vec<u8>| {
        ApiError::invalid("sealed.nonce", "has not 12 bytes").over(NONCE_BYTES, nonce.len())
    })?;
    Ok(Sealed { master_key, nonce, secret })
}

fn api_token(meta: types::Meta, token: &ApiToken) -> types::ApiToken {
    let role = match token.role {
        Role::Viewer => types::ApiTokenRole::Viewer,
        Role::Editor => types::ApiTokenRole::Editor,
        Role::Admin => types::ApiTokenRole::Admin,
    };
    types::ApiToken {
        meta: Some(meta),
        role: role.into(),
        expires_ms: token.expires_ms.unwrap_or(0),
        created_by: token.created_by.clone(),
        digest: token.digest.to_vec(),
    }
}

/// The role a message names.
pub fn role(role: types::ApiTokenRole) -> Result<Role, ApiError> {
    match role {
        types::ApiTokenRole::Viewer => Ok(Role::Viewer),
        types::ApiTokenRole::Editor => Ok(Role::Editor),
        types::ApiTokenRole::Admin => Ok(Role::Admin),
        types::ApiTokenRole::Unspecified => Err(ApiError::invalid("role", "is not viewer, editor or admin")),
    }
}

fn decode_api_token(token: &types::ApiToken) -> Result<ApiToken, ApiError> {
    Ok(ApiToken {
        role: role(token.role())?,
        expires_ms: Some(token.expires_ms).filter(|ms| *ms > 0),
        created_by: token.created_by.clone(),
        digest: digest(&token.digest)?,
    })
}

fn digest(bytes: &[u8]) -> Result<Digest, ApiError> {
    bytes.try_into().map_err(|_| ApiError::invalid("digest", "has not 32 bytes").over(32, bytes.len()))
}

/// A change as stored in the outbox and sent on the feed.
pub fn encode_change(change: &Change) -> registry::Change {
    registry::Change {
        before: change.before.as_ref().map(sent),
        after: change.after.as_ref().map(sent),
        time_ms: change.time_ms,
        actor: change.actor.clone(),
        revision: change.revision,
    }
}

/// The change of a stored message.
pub fn decode_change(change: &registry::Change) -> Result<Change, ApiError> {
    let before = change.before.as_ref().map(decode).transpose()?;
    let after = change.after.as_ref().map(decode).transpose()?;
    let object = after.as_ref().or(before.as_ref()).required("after")?;
    // A change by an older version has no revision of its own.
    let (key, revision) = (object.key(), if change.revision == 0 { object.meta.revision } else { change.revision });
    Ok(Change { key, before, after, time_ms: change.time_ms, actor: change.actor.clone(), revision })
}

/// An entry of the audit trail as stored and sent.
pub fn encode_entry(entry: &Entry) -> registry::AuditEntry {
    let action = match entry.action {
        Action::Created => registry::AuditAction::Created,
        Action::Updated => registry::AuditAction::Updated,
        Action::Deleted => registry::AuditAction::Deleted,
    };
    registry::AuditEntry {
        id: entry.position().to_string(),
        tenant: entry.tenant.to_string(),
        time_ms: entry.time_ms,
        actor: entry.actor.clone(),
        action: action.into(),
        kind: entry.kind.as_str().to_owned(),
        name: entry.name.clone(),
        device: entry.device.clone().unwrap_or_default(),
        revision: entry.revision,
        changed: entry.changed.clone(),
    }
}

/// The entry of a stored message.
pub fn decode_entry(entry: &registry::AuditEntry) -> Result<Entry, ApiError> {
    let action = match entry.action() {
        registry::AuditAction::Created => Action::Created,
        registry::AuditAction::Updated => Action::Updated,
        registry::AuditAction::Deleted => Action::Deleted,
        registry::AuditAction::Unspecified => return Err(ApiError::invalid("action", "is not a known action")),
    };
    Ok(Entry {
        tenant: tenant("tenant", &entry.tenant)?,
        time_ms: entry.time_ms,
        actor: entry.actor.clone(),
        action,
        kind: kind("kind", &entry.kind)?,
        name: entry.name.clone(),
        device: Some(entry.device.clone()).filter(|device| !device.is_empty()),
        revision: entry.revision,
        changed: entry.changed.clone(),
    })
}

/// The kind a field names, as keys of the change feed do.
pub fn kind(field: &str, text: &str) -> Result<Kind, ApiError> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        ApiError::invalid(field, format!("{text:?} is none of {known}"))
    })
}
