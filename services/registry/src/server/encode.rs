//! From what the domain answers to responses.

use std::sync::Arc;

use drover_proto::registry::v1::{self as registry, object::Object as Wire};
use drover_proto::types::v1 as types;
use drover_types::ApiError;
use prost::Message;

use crate::domain::authenticate::{Identity, Rights};
use crate::domain::devices::Presence;
use crate::object::Object;
use crate::wire;

/// Bytes of the rights in one answer to many; with those of one more, and 256 identities, it is less than the 4 MiB that a
/// message may have.
const RIGHTS_BYTES_MAX: usize = 2 * 1024 * 1024;

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
    certificate_authority -> CertificateAuthority;
    device_type -> DeviceType;
    device_group -> DeviceGroup;
    whole_api_token -> ApiToken;
}

/// An API token without its digest, which is nobody's to see outside the store and the change feed.
pub fn api_token(object: Object) -> types::ApiToken {
    types::ApiToken { digest: Vec::new(), ..whole_api_token(object) }
}

/// A credential; nothing of other kinds.
pub fn credential(object: &Object) -> Option<types::Credential> {
    object.credential().map(|(credential, _)| wire::credential(&object.meta, credential))
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
    let registry::Rights { policies, statements } = rights(&identity.rights);
    types::Identity { policies, statements, ..bare_identity(identity) }
}

/// Without policies and statements.
fn bare_identity(identity: Identity) -> types::Identity {
    types::Identity {
        tenant: identity.device.tenant.into(),
        device: identity.device.device.into(),
        credential_id: identity.credential_id.unwrap_or_default(),
        expires_ms: identity.expires_ms.unwrap_or(0),
        ..types::Identity::default()
    }
}

fn rights(rights: &Rights) -> registry::Rights {
    registry::Rights {
        policies: rights.policies.clone(),
        statements: rights.statements.iter().cloned().map(Into::into).collect(),
    }
}

/// Verdicts in the order of the outcomes, until what those have may do is more than [`RIGHTS_BYTES_MAX`]; rights that are
/// shared are sent once.
pub fn verdicts(outcomes: impl Iterator<Item = Result<Identity, ApiError>>) -> registry::AuthenticateAllResponse {
    let mut answer = registry::AuthenticateAllResponse::default();
    let mut places: Vec<Arc<Rights>> = Vec::new();
    let mut bytes = 0;
    for outcome in outcomes {
        let verdict = match outcome {
            Ok(identity) => {
                let known = places.iter().position(|known| Arc::ptr_eq(known, &identity.rights));
                let place = known.unwrap_or(places.len());
                if known.is_none() {
                    let new = rights(&identity.rights);
                    bytes += new.encoded_len();
                    if bytes > RIGHTS_BYTES_MAX && !answer.verdicts.is_empty() {
                        break;
                    }
                    places.push(Arc::clone(&identity.rights));
                    answer.rights.push(new);
                }
                let place = u32::try_from(place).expect("as many as proofs at most");
                registry::Verdict { identity: Some(bare_identity(identity)), rights: place, ..Default::default() }
            }
            Err(error) => {
                let code = error.code.grpc().unsigned_abs();
                registry::Verdict { code, message: error.message, ..Default::default() }
            }
        };
        answer.verdicts.push(verdict);
    }
    answer
}

#[cfg(test)]
mod tests {
    use drover_types::object::{Effect, PolicyAction, Statement};
    use drover_types::{DeviceId, DeviceKey, ErrorCode, TenantId};

    use super::*;

    fn identity_with(rights: &Arc<Rights>) -> Result<Identity, ApiError> {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        Ok(Identity { device, credential_id: None, rights: Arc::clone(rights), expires_ms: None })
    }

    fn rights_of(bytes: usize) -> Arc<Rights> {
        let (effect, actions, resources) = (Effect::Allow, vec![PolicyAction::Publish], vec!["t".repeat(bytes)]);
        Arc::new(Rights { policies: vec!["p".into()], statements: vec![Statement { effect, actions, resources }] })
    }

    #[test]
    fn rights_are_sent_once_and_an_error_stands_in_its_place() {
        let (one, other) = (rights_of(1), rights_of(2));
        let refused = Err(ApiError::new(ErrorCode::Unauthenticated, "no"));
        let outcomes = [identity_with(&one), refused, identity_with(&other), identity_with(&one)];
        let answer = verdicts(outcomes.into_iter());
        assert_eq!(answer.rights, [rights(&one), rights(&other)]);
        assert_eq!(answer.verdicts.iter().map(|verdict| verdict.rights).collect::<Vec<_>>(), [0, 0, 1, 0]);
        assert_eq!((answer.verdicts[1].code, answer.verdicts[1].message.as_str()), (16, "no"));
        assert_eq!(answer.verdicts.iter().filter(|verdict| verdict.identity.is_some()).count(), 3);
    }

    #[test]
    fn an_answer_ends_before_it_is_too_large_and_has_at_least_one_verdict() {
        let large = [rights_of(RIGHTS_BYTES_MAX + 1), rights_of(1), rights_of(RIGHTS_BYTES_MAX / 2)];
        let sent = |which: &[usize]| verdicts(which.iter().map(|i| identity_with(&large[*i]))).verdicts.len();
        assert_eq!(sent(&[0, 1]), 1);
        assert_eq!(sent(&[1, 2, 1, 0]), 3);
        assert_eq!(sent(&[1, 2, 1]), 3);
    }
}
