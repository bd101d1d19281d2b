//! Who is it? Every wrong proof gets one and the same answer, so that nobody learns which devices there are; of a JWT the
//! nodes are told why, for their logs.

use drover_types::object::{DEFAULT_POLICY, Statement};
use drover_types::{ApiError, DEFAULT_TENANT, DeviceId, DeviceKey, ErrorCode, TenantId};
use subtle::ConstantTimeEq;

use super::credentials::digest;
use super::devices::{disabled, is_enabled, spec};
use super::{Domain, checks, jwt};
use crate::object::{CredentialKind, Digest, Kind, Object, ObjectKey};

/// How somebody says who they are.
#[derive(Clone)]
pub enum Proof {
    /// A user name, `TENANT/DEVICE` or `DEVICE`, and a token, or a JWT that vouches for this device.
    Token { user_name: String, token: String },
    /// SHA-256 of a client certificate whose chain was verified in the handshake.
    Certificate { fingerprint: Vec<u8> },
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
    /// Names of the policies the statements are from.
    pub policies: Vec<String>,
    pub statements: Vec<Statement>,
    /// When the credential ends, milliseconds since the Unix epoch; `None`: never.
    pub expires_ms: Option<u64>,
}

impl Domain {
    /// `unauthenticated` if the proof does not hold, `permission_denied` if it does and the device is disabled.
    pub async fn authenticate(&self, proof: Proof) -> Result<Identity, ApiError> {
        let kind = proof.name();
        let outcome = match proof {
            Proof::Token { user_name, token } => match named(&user_name) {
                Some(named) if jwt::is_one(&token) => self.by_jwt(Some(named), &token).await,
                Some(named) => self.by_secret(CredentialKind::Token, digest(token.as_bytes()), Some(named)).await,
                None => Err(refused()),
            },
            Proof::ApiKey { token } if jwt::is_one(&token) => self.by_jwt(None, &token).await,
            Proof::ApiKey { token } => self.by_secret(CredentialKind::Token, digest(token.as_bytes()), None).await,
            Proof::Certificate { fingerprint } => match Digest::try_from(fingerprint) {
                Ok(fingerprint) => self.by_secret(CredentialKind::Certificate, fingerprint, None).await,
                Err(_) => Err(refused()),
            },
            Proof::Anonymous { client_id } => self.anonymous(&client_id).await,
            Proof::Known { device, credential_id: Some(id) } => match jwt::read_known_id(&id) {
                Some((issuer, expires_ms)) => self.by_known_jwt(device, issuer, expires_ms).await,
                None => self.by_id(device, &id).await,
            },
            Proof::Known { device, credential_id: None } if device.tenant == TenantId::default_tenant() => {
                self.anonymous(device.device.as_str()).await
            }
            Proof::Known { .. } => Err(refused()),
            Proof::Behalf(device) => self.behalf(device).await,
        };
        self.telemetry.authenticated(kind, outcome.as_ref().map(drop).map_err(|e| e.code));
        outcome
    }

    async fn by_secret(
        &self,
        kind: CredentialKind,
        digest: Digest,
        named: Option<DeviceKey>,
    ) -> Result<Identity, ApiError> {
        let found = self.store.credential_by_digest(&digest).await?.ok_or_else(refused)?;
        let (credential, device) = found.credential().ok_or_else(refused)?;
        let same = bool::from(credential.digest.ct_eq(&digest)) && credential.kind == kind;
        if !same || named.is_some_and(|named| named != device) {
            return Err(refused());
        }
        self.by_credential(&found).await
    }

    /// A credential that was shown before, if it is still the device's.
    async fn by_id(&self, known: DeviceKey, id: &str) -> Result<Identity, ApiError> {
        let key = ObjectKey::new(Kind::Credential, &known.tenant, id);
        let found = self.store.get(&key).await?.ok_or_else(refused)?;
        match found.credential() {
            Some((_, device)) if device == known => self.by_credential(&found).await,
            Some(_) | None => Err(refused()),
        }
    }

    async fn by_credential(&self, found: &Object) -> Result<Identity, ApiError> {
        let (credential, device) = found.credential().ok_or_else(refused)?;
        if credential.expires_ms.is_some_and(|ends| ends <= self.clock.now_ms()) {
            return Err(refused());
        }
        let object = self.store.get(&ObjectKey::device(&device)).await?.ok_or_else(refused)?;
        if !is_enabled(&object) {
            return Err(disabled());
        }
        let (expires_ms, id) = (credential.expires_ms, Some(found.meta.name.clone()));
        self.identity(device, &object, id, expires_ms).await
    }

    /// A device for which an issuer vouches. It must be registered: a token says who somebody is, not that the tenant
    /// wants them.
    async fn by_jwt(&self, named: Option<DeviceKey>, token: &str) -> Result<Identity, ApiError> {
        let issuers = self.issuers.current();
        let vouched = jwt::verify(&issuers, named.as_ref(), token, self.clock.now_ms()).map_err(not_vouched)?;
        self.vouched(vouched.device, &vouched.issuer, vouched.expires_ms).await
    }

    /// A device that showed a token before, as long as that lasts and its issuer is one.
    async fn by_known_jwt(&self, device: DeviceKey, issuer: &str, expires_ms: u64) -> Result<Identity, ApiError> {
        let is_it = |known: &jwt::Issuer| known.tenant == device.tenant && known.name == issuer;
        if expires_ms <= self.clock.now_ms() || !self.issuers.current().iter().any(is_it) {
            return Err(refused());
        }
        self.vouched(device, issuer, expires_ms).await
    }

    async fn vouched(&self, device: DeviceKey, issuer: &str, expires_ms: u64) -> Result<Identity, ApiError> {
        let object = self.store.get(&ObjectKey::device(&device)).await?;
        let object = object.ok_or_else(|| not_vouched(jwt::Refusal::NotRegistered))?;
        if !is_enabled(&object) {
            return Err(disabled());
        }
        self.identity(device, &object, Some(jwt::known_id(issuer, expires_ms)), Some(expires_ms)).await
    }

    /// A device of the tenant `default` under its client id, never one that has or had credentials of its own: whoever
    /// lost them must not come back without, not even under a device deleted and made anew. Where an issuer vouches for
    /// the tenant's devices, every registered one has its tokens. One that is not registered has the built-in policy,
    /// and no row is made for it.
    async fn anonymous(&self, client_id: &str) -> Result<Identity, ApiError> {
        if !self.settings.anonymous {
            return Err(refused());
        }
        let device = checks::device_name(client_id).map_err(|_| refused())?;
        let device = DeviceKey { tenant: TenantId::default_tenant(), device };
        if self.store.has_had_credentials(&device).await? {
            return Err(refused());
        }
        match self.store.get(&ObjectKey::device(&device)).await? {
            Some(object) if !is_enabled(&object) || self.issuers.serve(&device.tenant) => Err(refused()),
            Some(object) => self.identity(device, &object, None, None).await,
            None => self.unregistered(device).await,
        }
    }

    /// A device that somebody else vouches for. One that is disabled is refused: who it speaks through makes no
    /// difference.
    async fn behalf(&self, device: DeviceKey) -> Result<Identity, ApiError> {
        match self.store.get(&ObjectKey::device(&device)).await? {
            Some(object) if !is_enabled(&object) => Err(disabled()),
            Some(object) => self.identity(device, &object, None, None).await,
            None => self.unregistered(device).await,
        }
    }

    async fn unregistered(&self, device: DeviceKey) -> Result<Identity, ApiError> {
        let policies = vec![DEFAULT_POLICY.to_owned()];
        let statements = self.statements(&device.tenant, &policies).await?;
        Ok(Identity { device, credential_id: None, policies, statements, expires_ms: None })
    }

    async fn identity(
        &self,
        device: DeviceKey,
        object: &Object,
        credential_id: Option<String>,
        expires_ms: Option<u64>,
    ) -> Result<Identity, ApiError> {
        let policies = spec(&object.spec).policies.clone();
        let statements = self.statements(&device.tenant, &policies).await?;
        Ok(Identity { device, credential_id, policies, statements, expires_ms })
    }
}

impl Proof {
    /// The name in metrics.
    fn name(&self) -> &'static str {
        match self {
            Proof::Token { token, .. } | Proof::ApiKey { token } if jwt::is_one(token) => "jwt",
            Proof::Token { .. } => "token",
            Proof::Certificate { .. } => "certificate",
            Proof::Anonymous { .. } => "anonymous",
            Proof::ApiKey { .. } => "api_key",
            Proof::Known { .. } => "known",
            Proof::Behalf(_) => "behalf",
        }
    }
}

fn named(user_name: &str) -> Option<DeviceKey> {
    let (tenant, device) = user_name.split_once('/').unwrap_or((DEFAULT_TENANT, user_name));
    Some(DeviceKey { tenant: TenantId::new(tenant).ok()?, device: DeviceId::new(device).ok()? })
}

/// The reason is for the node's log; whoever showed the token gets the same answer as to every wrong proof.
fn not_vouched(why: jwt::Refusal) -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, format!("the JWT is not valid: {why}"))
}

fn refused() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "credentials are not valid")
}
