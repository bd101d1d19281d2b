//! Who is it? Every wrong proof gets one and the same answer, so that nobody learns which devices there are; of a JWT the
//! nodes are told why, for their logs.
//!
//! Proofs are judged together, in rounds: each says what it has to know next, all of that is looked up in one call of the
//! store, and those that know enough have their answer. One proof is as many as a hundred.

mod notes;

use std::sync::{Arc, LazyLock};

use drover_types::object::{DEFAULT_POLICY, Statement};
use drover_types::{ApiError, DEFAULT_TENANT, DeviceId, DeviceKey, ErrorCode, TenantId};
use futures::{StreamExt, stream};
use subtle::ConstantTimeEq;

use super::credentials::digest;
use super::devices::{disabled, is_enabled};
use super::{Domain, checks, jwt};
use crate::object::{CredentialKind, Digest, Kind, Object, ObjectKey};
use notes::{Notes, Pause};

/// Most proofs of one call: their look-ups are one read of the embedded store, and some dozens of Cassandra at a time.
pub const PROOFS_MAX: usize = 256;

/// Devices of one call that are being registered at the same time.
const REGISTRATIONS_AT_ONCE: usize = 32;

/// Policies of a device that is not registered.
static UNREGISTERED: LazyLock<[String; 1]> = LazyLock::new(|| [DEFAULT_POLICY.to_owned()]);

/// The name of JWTs in metrics.
const JWT: &str = "jwt";

/// How somebody says who they are.
#[derive(Clone)]
pub enum Proof {
    /// A user name, `TENANT/DEVICE` or `DEVICE`, and a token, or a JWT that vouches for this device.
    Token { user_name: String, token: String },
    /// SHA-256 of a client certificate whose key the handshake has seen used. `chain`: DER forms of it and of those between
    /// it and its authority, by which its device is registered if it is not yet.
    Certificate { fingerprint: Vec<u8>, chain: Vec<Vec<u8>> },
    /// Nothing but a client id.
    Anonymous { client_id: String },
    /// A token alone, or a JWT.
    ApiKey { token: String },
    /// One of the others, verified before: `credential_id` is what it was known by, `None` for an anonymous device.
    Known { device: DeviceKey, credential_id: Option<String> },
    /// None of its own: a device that may speak for this one hands in its messages.
    Behalf(DeviceKey),
}

/// Who it is, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub device: DeviceKey,
    /// `None`: anonymous.
    pub credential_id: Option<String>,
    /// Shared by those of one call that have the same policies.
    pub rights: Arc<Rights>,
    /// When the credential ends, milliseconds since the Unix epoch; `None`: never.
    pub expires_ms: Option<u64>,
}

/// What somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Names of the policies the statements are from.
    pub policies: Vec<String>,
    pub statements: Vec<Statement>,
}

/// What a proof comes to before anything is looked up.
enum Lead {
    /// Whoever has the credential with this digest; with `named`, only if it is that one.
    Secret {
        kind: CredentialKind,
        digest: Digest,
        named: Option<DeviceKey>,
    },
    /// The device, if the credential of this id is still its own.
    Credential {
        device: DeviceKey,
        id: String,
    },
    /// A device for which an issuer vouches until then.
    Vouched {
        device: DeviceKey,
        issuer: String,
        expires_ms: u64,
    },
    Anonymous(DeviceKey),
    Behalf(DeviceKey),
}

impl Domain {
    /// `unauthenticated` if the proof does not hold, `permission_denied` if it does and the device is disabled.
    pub async fn authenticate(&self, proof: Proof) -> Result<Identity, ApiError> {
        self.authenticate_all(vec![proof]).await.pop().expect("an answer for each proof")
    }

    /// As [`Domain::authenticate`], each proof by itself; as many answers as proofs, in their order.
    pub async fn authenticate_all(&self, proofs: Vec<Proof>) -> Vec<Result<Identity, ApiError>> {
        let _under_way = self.telemetry.authenticating(proofs.len());
        let kinds: Vec<&'static str> = proofs.iter().map(Proof::name).collect();
        let mut leads = Vec::with_capacity(proofs.len());
        let mut chains = Vec::new();
        for (mut proof, kind) in proofs.into_iter().zip(&kinds) {
            if let Proof::Certificate { chain, .. } = &mut proof
                && !chain.is_empty()
            {
                chains.push((leads.len(), std::mem::take(chain)));
            }
            leads.push(self.lead(proof));
            if *kind == JWT {
                tokio::task::yield_now().await; // hundreds of signatures in one go would hold up everybody else
            }
        }
        let mut outcomes: Vec<Option<Result<Identity, ApiError>>> = vec![None; leads.len()];
        let mut notes = Notes::default();
        self.register_unknown(chains, &mut leads, &mut notes).await;
        loop {
            for (lead, outcome) in leads.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
                *outcome = match lead {
                    Ok(lead) => self.judge(lead, &mut notes),
                    Err(refused) => Some(Err(refused.clone())),
                };
            }
            if !notes.lacks_any() {
                break;
            }
            notes.look_up(&*self.store).await;
        }
        let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.expect("nothing is lacking")).collect();
        for (kind, outcome) in kinds.into_iter().zip(&outcomes) {
            self.telemetry.authenticated(kind, outcome.as_ref().map(drop).map_err(|e| e.code));
        }
        outcomes
    }

    /// Registers the devices of certificates that nobody has; each chain with the place of its lead, which is refused where
    /// that fails.
    async fn register_unknown(
        &self,
        chains: Vec<(usize, Vec<Vec<u8>>)>,
        leads: &mut [Result<Lead, ApiError>],
        notes: &mut Notes,
    ) {
        let mut shown = Vec::with_capacity(chains.len());
        for (place, chain) in chains {
            let digest = digest(&chain[0]);
            // A chain that is another certificate's is not looked at.
            if matches!(&leads[place], Ok(Lead::Secret { digest: said, .. }) if *said == digest) {
                drop(notes.by_digest(&digest)); // lacking at first
                shown.push((place, digest, chain));
            }
        }
        if notes.lacks_any() {
            notes.look_up(&*self.store).await;
        }
        let mut registrations = Vec::new();
        for (place, digest, chain) in shown {
            if matches!(notes.by_digest(&digest), Ok(None)) {
                registrations.push(async move { (place, digest, self.register(&digest, chain).await) });
            }
        }
        let outcomes = stream::iter(registrations).buffer_unordered(REGISTRATIONS_AT_ONCE);
        for (place, digest, outcome) in outcomes.collect::<Vec<_>>().await {
            match outcome {
                Ok(credential) => notes.found(digest, credential),
                Err(error) => leads[place] = Err(error),
            }
        }
    }

    fn lead(&self, proof: Proof) -> Result<Lead, ApiError> {
        let secret = |token: &str, named| {
            let (kind, digest) = (CredentialKind::Token, digest(token.as_bytes()));
            Lead::Secret { kind, digest, named }
        };
        match proof {
            Proof::Token { user_name, token } => match named(&user_name) {
                Some(named) if jwt::is_one(&token) => self.vouched(Some(&named), &token),
                Some(named) => Ok(secret(&token, Some(named))),
                None => Err(refused()),
            },
            Proof::ApiKey { token } if jwt::is_one(&token) => self.vouched(None, &token),
            Proof::ApiKey { token } => Ok(secret(&token, None)),
            Proof::Certificate { fingerprint, chain: _ } => {
                let digest = Digest::try_from(fingerprint).map_err(|_| refused())?;
                Ok(Lead::Secret { kind: CredentialKind::Certificate, digest, named: None })
            }
            Proof::Anonymous { client_id } => self.anonymous(&client_id),
            Proof::Known { device, credential_id: Some(id) } => match jwt::read_known_id(&id) {
                Some((issuer, expires_ms)) => self.still_vouched(device, issuer, expires_ms),
                None => Ok(Lead::Credential { device, id }),
            },
            Proof::Known { device, credential_id: None } if device.tenant == TenantId::default_tenant() => {
                self.anonymous(device.device.as_str())
            }
            Proof::Known { .. } => Err(refused()),
            Proof::Behalf(device) => Ok(Lead::Behalf(device)),
        }
    }

    /// A device for which an issuer vouches.
    fn vouched(&self, named: Option<&DeviceKey>, token: &str) -> Result<Lead, ApiError> {
        let issuers = self.issuers.current();
        let vouched = jwt::verify(&issuers, named, token, self.clock.now_ms()).map_err(not_vouched)?;
        Ok(Lead::Vouched { device: vouched.device, issuer: vouched.issuer, expires_ms: vouched.expires_ms })
    }

    /// A device that showed a token before, as long as that lasts and its issuer is one.
    fn still_vouched(&self, device: DeviceKey, issuer: &str, expires_ms: u64) -> Result<Lead, ApiError> {
        let is_it = |known: &jwt::Issuer| known.tenant == device.tenant && known.name == issuer;
        if expires_ms <= self.clock.now_ms() || !self.issuers.current().iter().any(is_it) {
            return Err(refused());
        }
        Ok(Lead::Vouched { device, issuer: issuer.to_owned(), expires_ms })
    }

    /// A device of the tenant `default` under its client id.
    fn anonymous(&self, client_id: &str) -> Result<Lead, ApiError> {
        if !self.settings.anonymous {
            return Err(refused());
        }
        let device = checks::device_name(client_id).map_err(|_| refused())?;
        Ok(Lead::Anonymous(DeviceKey { tenant: TenantId::default_tenant(), device }))
    }

    /// The answer; `None`: not before what was noted as lacking is looked up.
    fn judge(&self, lead: &Lead, notes: &mut Notes) -> Option<Result<Identity, ApiError>> {
        let identity = match lead {
            Lead::Secret { kind, digest, named } => self.by_secret(*kind, digest, named.as_ref(), notes),
            Lead::Credential { device, id } => self.by_id(device, id, notes),
            Lead::Vouched { device, issuer, expires_ms } => Self::by_issuer(device, issuer, *expires_ms, notes),
            Lead::Anonymous(device) => self.without_credentials(device, notes),
            Lead::Behalf(device) => Self::spoken_for(device, notes),
        };
        match identity {
            Ok(identity) => Some(Ok(identity)),
            Err(Pause::Refused(error)) => Some(Err(error)),
            Err(Pause::Lacking) => None,
        }
    }

    fn by_secret(
        &self,
        kind: CredentialKind,
        digest: &Digest,
        named: Option<&DeviceKey>,
        notes: &mut Notes,
    ) -> Result<Identity, Pause> {
        let found = notes.by_digest(digest)?.ok_or_else(refused)?;
        let (credential, device) = found.credential().ok_or_else(refused)?;
        let same = bool::from(credential.digest.ct_eq(digest)) && credential.kind == kind;
        if !same || named.is_some_and(|named| *named != device) {
            return Err(refused().into());
        }
        self.by_credential(&found, notes)
    }

    /// A credential that was shown before, if it is still the device's.
    fn by_id(&self, known: &DeviceKey, id: &str, notes: &mut Notes) -> Result<Identity, Pause> {
        let found = notes.object(ObjectKey::new(Kind::Credential, &known.tenant, id))?.ok_or_else(refused)?;
        match found.credential() {
            Some((_, device)) if device == *known => self.by_credential(&found, notes),
            Some(_) | None => Err(refused().into()),
        }
    }

    fn by_credential(&self, found: &Object, notes: &mut Notes) -> Result<Identity, Pause> {
        let (credential, device) = found.credential().ok_or_else(refused)?;
        if credential.has_ended(self.clock.now_ms()) {
            return Err(refused().into());
        }
        let object = notes.object(ObjectKey::device(&device))?.ok_or_else(refused)?;
        identity(device, &object, Some(found.meta.name.clone()), credential.expires_ms, notes)
    }

    /// It must be registered: a token says who somebody is, not that the tenant wants them.
    fn by_issuer(device: &DeviceKey, issuer: &str, expires_ms: u64, notes: &mut Notes) -> Result<Identity, Pause> {
        let object = notes.object(ObjectKey::device(device))?;
        let object = object.ok_or_else(|| not_vouched(jwt::Refusal::NotRegistered))?;
        let known_by = jwt::known_id(issuer, expires_ms);
        identity(device.clone(), &object, Some(known_by), Some(expires_ms), notes)
    }

    /// Never one that has or had credentials of its own: whoever lost them must not come back without, not even under a
    /// device deleted and made anew. Where an issuer vouches for the tenant's devices, every registered one has its
    /// tokens. One that is not registered has the built-in policy, and no row is made for it.
    fn without_credentials(&self, device: &DeviceKey, notes: &mut Notes) -> Result<Identity, Pause> {
        let object = notes.object(ObjectKey::device(device)); // both are lacking at first
        if notes.had_credentials(device)? {
            return Err(refused().into());
        }
        match object? {
            Some(object) if !is_enabled(&object) || self.issuers.serve(&device.tenant) => Err(refused().into()),
            Some(object) => identity(device.clone(), &object, None, None, notes),
            None => unregistered(device.clone(), notes),
        }
    }

    /// A device that somebody else vouches for. One that is disabled is refused: who it speaks through makes no
    /// difference.
    fn spoken_for(device: &DeviceKey, notes: &mut Notes) -> Result<Identity, Pause> {
        match notes.object(ObjectKey::device(device))? {
            Some(object) => identity(device.clone(), &object, None, None, notes),
            None => unregistered(device.clone(), notes),
        }
    }
}

/// What a registered device may do, unless it is disabled.
fn identity(
    device: DeviceKey,
    object: &Object,
    credential_id: Option<String>,
    expires_ms: Option<u64>,
    notes: &mut Notes,
) -> Result<Identity, Pause> {
    if !is_enabled(object) {
        return Err(disabled().into());
    }
    let rights = notes.rights(&device.tenant, &object.spec.device().policies)?;
    Ok(Identity { device, credential_id, rights, expires_ms })
}

fn unregistered(device: DeviceKey, notes: &mut Notes) -> Result<Identity, Pause> {
    let rights = notes.rights(&device.tenant, UNREGISTERED.as_slice())?;
    Ok(Identity { device, credential_id: None, rights, expires_ms: None })
}

impl Proof {
    /// The name in metrics.
    fn name(&self) -> &'static str {
        match self {
            Proof::Token { token, .. } | Proof::ApiKey { token } if jwt::is_one(token) => JWT,
            Proof::Token { .. } => "token",
            Proof::Certificate { .. } => "certificate",
            Proof::Anonymous { .. } => "anonymous",
            Proof::ApiKey { .. } => "api_key",
            Proof::Known { .. } => "known",
            Proof::Behalf(_) => "behalf",
        }
    }
}

/// The device that a user name or an identity names: `TENANT/DEVICE` or `DEVICE`.
pub(super) fn named(user_name: &str) -> Option<DeviceKey> {
    let (tenant, device) = user_name.split_once('/').unwrap_or((DEFAULT_TENANT, user_name));
    Some(DeviceKey { tenant: TenantId::new(tenant).ok()?, device: DeviceId::new(device).ok()? })
}

/// The reason is for the node's log; whoever showed the token gets the same answer as to every wrong proof.
fn not_vouched(why: jwt::Refusal) -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, format!("the JWT is not valid: {why}"))
}

pub(super) fn refused() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid")
}
