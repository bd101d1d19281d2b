//! Proofs and identities as the registry's protocol has them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use drover_proto::registry::v1::authenticate_request::Proof as WireProof;
use drover_proto::registry::v1::{
    AnonymousProof, ApiKeyProof, AuthenticateRequest, BehalfProof, CertificateProof, KnownProof, Rights, TokenProof,
    Verdict,
};
use drover_proto::types::v1 as wire;
use drover_types::object::Statement;
use drover_types::{ApiError, DeviceId, ErrorCode, InvalidId, TenantId};
use prost::Message;

use crate::domain::authorize::Policy;
use crate::domain::identity::{AuthenticateError, Certificate, Identity, Proof};

/// Sets of statements kept compiled; when there are more, all are compiled again as they come.
const POLICIES_MAX: usize = 1_024;
/// Names of tenants kept, likewise.
const TENANTS_MAX: usize = 1_024;

/// An identity as it came, and what it may do.
#[derive(Clone, Debug)]
pub struct Answer {
    identity: wire::Identity,
    policy: Policy,
}

/// What many identities have in common, each once: names of tenants, and compiled rights by their encoding.
#[derive(Default)]
pub struct Common {
    rights: Mutex<HashMap<Vec<u8>, Policy>>,
    tenants: Mutex<HashMap<String, TenantId>>,
}

impl Common {
    /// The tenant of this name.
    fn tenant(&self, name: &str) -> Result<TenantId, InvalidId> {
        let mut known = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = known.get(name) {
            return Ok(tenant.clone());
        }
        let tenant = TenantId::new(name)?;
        if known.len() >= TENANTS_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), tenant.clone());
        Ok(tenant)
    }

    /// What `rights` allow, ready to be asked.
    pub fn compile(&self, rights: &Rights) -> Result<Policy, ApiError> {
        let key = rights.encode_to_vec();
        let mut known = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = known.get(&key) {
            return Ok(policy.clone());
        }
        let statements = rights.statements.iter().map(Statement::try_from).collect::<Result<Vec<_>, _>>()?;
        let names = rights.policies.iter().map(|name| name.as_str().into()).collect();
        let policy = Policy::compile(names, &statements);
        if known.len() >= POLICIES_MAX {
            known.clear();
        }
        known.insert(key, policy.clone());
        Ok(policy)
    }
}

impl Answer {
    /// What a verdict says; `rights` are those of its answer, in their places.
    pub fn of(verdict: Verdict, rights: &[Result<Policy, ApiError>]) -> Result<Self, AuthenticateError> {
        let Some(identity) = verdict.identity else {
            let code = ErrorCode::from_grpc(i32::try_from(verdict.code).unwrap_or_default());
            return Err(refusal(ApiError::new(code, verdict.message)));
        };
        let place = usize::try_from(verdict.rights).unwrap_or(usize::MAX);
        match rights.get(place) {
            Some(Ok(policy)) => Ok(Self { identity, policy: policy.clone() }),
            Some(Err(error)) => Err(unavailable(format!("the answer is not an identity: {error}"))),
            None => Err(unavailable(format!("the answer has {} rights and none at {place}", rights.len()))),
        }
    }

    /// The identity, as of the newest revocation `generation`.
    pub fn identity(self, common: &Common, generation: u64) -> Result<Identity, ApiError> {
        let invalid = |field: &'static str| move |e: InvalidId| ApiError::invalid(field, e.to_string());
        let Self { identity, policy } = self;
        Ok(Identity {
            tenant: common.tenant(&identity.tenant).map_err(invalid("tenant"))?,
            device: DeviceId::new(&identity.device).map_err(invalid("device"))?,
            credential: identity.credential_id.into(),
            policy,
            expires_ms: identity.expires_ms,
            generation,
        })
    }
}

/// Nobody can tell.
pub fn unavailable(reason: impl Into<String>) -> AuthenticateError {
    AuthenticateError::Unavailable { reason: reason.into() }
}

/// Why somebody is not who they say, or cannot be known.
pub fn refusal(error: ApiError) -> AuthenticateError {
    let reason = error.message;
    match error.code {
        ErrorCode::Unauthenticated | ErrorCode::NotFound | ErrorCode::InvalidArgument => {
            AuthenticateError::Wrong { reason }
        }
        ErrorCode::PermissionDenied | ErrorCode::FailedPrecondition => AuthenticateError::Refused { reason },
        ErrorCode::Cancelled
        | ErrorCode::Unknown
        | ErrorCode::DeadlineExceeded
        | ErrorCode::AlreadyExists
        | ErrorCode::ResourceExhausted
        | ErrorCode::Aborted
        | ErrorCode::OutOfRange
        | ErrorCode::Unimplemented
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::DataLoss => AuthenticateError::Unavailable { reason },
    }
}

/// The question of a proof.
pub fn question(proof: Proof) -> AuthenticateRequest {
    let proof = match proof {
        Proof::Token { user_name, token } => WireProof::Token(TokenProof { user_name, token }),
        Proof::ApiKey { token } => WireProof::ApiKey(ApiKeyProof { token }),
        Proof::Certificate(Certificate { fingerprint, chain }) => {
            WireProof::Certificate(CertificateProof { fingerprint: fingerprint.to_vec(), chain })
        }
        Proof::Anonymous { client } => WireProof::Anonymous(AnonymousProof { client_id: client.to_string() }),
        // That the key is known was shown to this node.
        Proof::Known { tenant, device, credential } | Proof::PreSharedKey { tenant, device, credential } => {
            let (tenant, device) = (tenant.to_string(), device.to_string());
            WireProof::Known(KnownProof { tenant, device, credential_id: credential })
        }
        Proof::Behalf { tenant, device } => {
            WireProof::Behalf(BehalfProof { tenant: tenant.to_string(), device: device.to_string() })
        }
    };
    AuthenticateRequest { proof: Some(proof) }
}
