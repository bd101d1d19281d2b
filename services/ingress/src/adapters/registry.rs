//! Who somebody is, asked of the registry over gRPC, and kept for a short time.
//!
//! Adapter of [`Authenticator`]. An answer is kept only if nothing was revoked while it was on its way, and used only
//! while the change feed is heard: a node that may have missed a revocation asks again each time (P5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::registry::v1::authenticate_request::Proof as WireProof;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{
    AnonymousProof, ApiKeyProof, AuthenticateRequest, BehalfProof, CertificateProof, KnownProof, TokenProof,
};
use drover_proto::types::v1 as wire;
use drover_types::object::Statement;
use drover_types::{ApiError, Clock, DeviceId, ErrorCode, TenantId};
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::changes::Freshness;
use crate::domain::authorize::Policy;
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::reverify::Affected;
use crate::ports::Authenticator;

/// Questions on their way at the same time; more wait within their deadline.
const QUESTIONS_MAX: usize = 256;
/// Identities kept; when there are more, all are forgotten and asked for again.
const KEPT_MAX: usize = 50_000;
/// Sets of statements kept compiled; when there are more, all are compiled again as they come.
const POLICIES_MAX: usize = 1_024;

/// The registry, asked over gRPC.
pub struct Registry {
    client: RegistryClient<grpc::Client>,
    questions: Semaphore,
    deadline: Duration,
    keep: Duration,
    feed: Arc<Freshness>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
    policies: Policies,
}

/// Compiled statements by their encoding: most devices have the same ones, and share them.
#[derive(Default)]
struct Policies(Mutex<HashMap<Vec<u8>, Policy>>);

#[derive(Default)]
struct Kept {
    /// By the digest of the proof: no secret stays in memory.
    identities: HashMap<[u8; 32], (Instant, Arc<Identity>)>,
    /// How often something was forgotten.
    forgotten: u64,
}

impl Registry {
    /// Connects when first asked. Answers come within `deadline` and are kept for `keep`, or until their credential
    /// ends by `clock`.
    pub fn new(
        network: &Network,
        deadline: Duration,
        keep: Duration,
        feed: Arc<Freshness>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client: RegistryClient::new(network.client("registry")),
            questions: Semaphore::new(QUESTIONS_MAX),
            deadline,
            keep,
            feed,
            clock,
            kept: Mutex::default(),
            policies: Policies::default(),
        }
    }

    fn kept(&self, digest: &[u8; 32]) -> Option<Arc<Identity>> {
        if !self.feed.is_fresh() {
            return None;
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, identity) = kept.identities.get(digest)?;
        let ended = identity.lasts_ms(self.clock.now_ms()) == Some(0);
        (since.elapsed() < self.keep && !ended).then(|| identity.clone())
    }

    fn keep(&self, digest: [u8; 32], identity: &Arc<Identity>, forgotten: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.forgotten != forgotten {
            return; // it may be one of those
        }
        if kept.identities.len() >= KEPT_MAX {
            kept.identities.clear();
        }
        kept.identities.insert(digest, (Instant::now(), identity.clone()));
    }

    async fn ask(&self, proof: Proof) -> Result<wire::Identity, AuthenticateError> {
        let unavailable = |reason: String| AuthenticateError::Unavailable { reason };
        let question = async {
            let _turn = self.questions.acquire().await.expect("the semaphore is never closed");
            self.client.clone().authenticate(AuthenticateRequest { proof: Some(to_wire(proof)) }).await
        };
        let answer = tokio::time::timeout(self.deadline, question)
            .await
            .map_err(|_| unavailable(format!("no answer within {:?}", self.deadline)))?
            .map_err(|status| refusal(drover_proto::from_status(&status)))?;
        answer.into_inner().identity.ok_or_else(|| unavailable("the answer names nobody".to_owned()))
    }
}

#[async_trait]
impl Authenticator for Registry {
    async fn authenticate(&self, proof: Proof, generation: u64) -> Result<Arc<Identity>, AuthenticateError> {
        let digest = digest(&proof);
        if let Some(identity) = digest.and_then(|digest| self.kept(&digest)) {
            return Ok(identity);
        }
        let forgotten = self.kept.lock().unwrap_or_else(PoisonError::into_inner).forgotten;
        let answer = self.ask(proof).await?;
        let identity = from_wire(&answer, generation, &self.policies).map_err(|error| {
            AuthenticateError::Unavailable { reason: format!("the answer is not an identity: {error}") }
        })?;
        let identity = Arc::new(identity);
        if let Some(digest) = digest {
            self.keep(digest, &identity, forgotten);
        }
        Ok(identity)
    }

    fn forget(&self, affected: &Affected) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forgotten += 1;
        kept.identities.retain(|_, (_, identity)| !affected.concerns(identity));
    }
}

fn refusal(error: ApiError) -> AuthenticateError {
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

fn to_wire(proof: Proof) -> WireProof {
    match proof {
        Proof::Token { user_name, token } => WireProof::Token(TokenProof { user_name, token }),
        Proof::ApiKey { token } => WireProof::ApiKey(ApiKeyProof { token }),
        Proof::Certificate { fingerprint } => {
            WireProof::Certificate(CertificateProof { fingerprint: fingerprint.to_vec() })
        }
        Proof::Anonymous { client } => WireProof::Anonymous(AnonymousProof { client_id: client.to_string() }),
        Proof::Known { tenant, device, credential } => WireProof::Known(KnownProof {
            tenant: tenant.to_string(),
            device: device.to_string(),
            credential_id: credential,
        }),
        Proof::Behalf { tenant, device } => {
            WireProof::Behalf(BehalfProof { tenant: tenant.to_string(), device: device.to_string() })
        }
    }
}

impl Policies {
    fn compile(&self, identity: &wire::Identity) -> Result<Policy, ApiError> {
        let key = identity.statements.iter().flat_map(Message::encode_length_delimited_to_vec).collect::<Vec<u8>>();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = known.get(&key) {
            return Ok(policy.of(&identity.device));
        }
        let statements = identity.statements.iter().map(Statement::try_from).collect::<Result<Vec<_>, _>>()?;
        let policy = Policy::compile(&statements, &identity.device);
        if known.len() >= POLICIES_MAX {
            known.clear();
        }
        known.insert(key, policy.clone());
        Ok(policy)
    }
}

fn from_wire(identity: &wire::Identity, generation: u64, policies: &Policies) -> Result<Identity, ApiError> {
    let invalid = |field: &'static str| move |e: drover_types::InvalidId| ApiError::invalid(field, e.to_string());
    Ok(Identity {
        tenant: TenantId::new(&identity.tenant).map_err(invalid("tenant"))?,
        device: DeviceId::new(&identity.device).map_err(invalid("device"))?,
        credential: identity.credential_id.clone(),
        policies: identity.policies.iter().map(|name| name.as_str().into()).collect(),
        policy: policies.compile(identity)?,
        expires_ms: identity.expires_ms,
        generation,
    })
}

/// What an answer is kept by; `None`: it is not, for who asks about an open connection wants to hear it anew.
fn digest(proof: &Proof) -> Option<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    match proof {
        Proof::Token { user_name, token } => [b"token", user_name.as_bytes(), token.as_bytes()].map(&mut part),
        Proof::ApiKey { token } => [b"api key", token.as_bytes(), b""].map(&mut part),
        Proof::Certificate { fingerprint } => [b"certificate".as_slice(), fingerprint, b""].map(&mut part),
        Proof::Anonymous { client } => [b"anonymous", client.as_str().as_bytes(), b""].map(&mut part),
        Proof::Behalf { tenant, device } => {
            [b"behalf", tenant.as_str().as_bytes(), device.as_str().as_bytes()].map(&mut part)
        }
        Proof::Known { .. } => return None,
    };
    Some(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use drover_types::FixedClock;

    use super::*;

    #[tokio::test]
    async fn an_identity_is_kept_no_longer_than_its_credential_lasts() {
        let (clock, feed) = (Arc::new(FixedClock::at(1_000)), Arc::<Freshness>::default());
        let hour = Duration::from_secs(3_600);
        let registry = Registry::new(&Network::default(), hour, hour, feed.clone(), clock.clone());
        feed.hear();
        let identity = |expires_ms| {
            let wire = wire::Identity { tenant: "t".into(), device: "d".into(), expires_ms, ..Default::default() };
            Arc::new(from_wire(&wire, 0, &Policies::default()).expect("valid"))
        };
        registry.keep([1; 32], &identity(2_000), 0);
        registry.keep([2; 32], &identity(0), 0);
        let kept = || [[1; 32], [2; 32]].map(|digest| registry.kept(&digest).is_some());
        clock.advance(999);
        assert_eq!(kept(), [true, true]);
        clock.advance(1);
        assert_eq!(kept(), [false, true], "only the second lasts for ever");
    }
}
