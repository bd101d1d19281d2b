//! From what the domain answers to responses.

use drover_proto::registry::v1::{self as registry, object::Object as Wire};
use drover_proto::types::v1 as types;
use drover_types::ApiError;

use crate::domain::authenticate::Identity;
use crate::domain::devices::Presence;
use crate::object::{Object, Spec};
use crate::wire;

/// Declares one function a kind: the object of that kind as sent.
macro_rules! object_of_kind {
    ($($function:ident -> $kind:ident;)*) => {
        $(pub fn $function(object: Object) -> types::$kind {
            match wire::encode(&object).object {
                Some(Wire::$kind(sent)) => sent,
                other => unreachable!("the domain answers with the kind it was asked for, not {other:?}"),
            }
        })*
    };
}

object_of_kind! {
    device -> Device;
    policy -> Policy;
    rule -> Rule;
    function -> Function;
    whole_api_token -> ApiToken;
}

/// An API token without its digest, which is nobody's to see outside the store and the change feed.
pub fn api_token(object: Object) -> types::ApiToken {
    types::ApiToken { digest: Vec::new(), ..whole_api_token(object) }
}

/// A credential; nothing of other kinds.
pub fn credential(object: &Object) -> Option<types::Credential> {
    match &object.spec {
        Spec::Credential(credential) => Some(wire::credential(&object.meta, credential)),
        Spec::Device(_) | Spec::Policy(_) | Spec::Rule(_) | Spec::ApiToken(_) | Spec::Function(_) => None,
    }
}

pub fn seen((object, presence): (Object, Presence)) -> registry::GetDeviceResponse {
    let Presence { ever_seen, connected, changed_ms, epoch } = presence;
    registry::GetDeviceResponse {
        device: Some(device(object)),
        presence: Some(registry::Presence { ever_seen, connected, changed_ms, epoch }),
    }
}

pub fn refusal((name, error): (String, ApiError)) -> registry::DeviceRefusal {
    let code = error.code.grpc().unsigned_abs();
    registry::DeviceRefusal { name, code, field: error.field.unwrap_or_default(), message: error.message }
}

pub fn identity(identity: Identity) -> types::Identity {
    types::Identity {
        tenant: identity.device.tenant.into(),
        device: identity.device.device.into(),
        credential_id: identity.credential_id.unwrap_or_default(),
        statements: identity.statements.into_iter().map(Into::into).collect(),
        expires_ms: identity.expires_ms.unwrap_or(0),
        policies: identity.policies,
    }
}
