//! Credentials: how devices prove who they are.
//!
//! A token is 32 random bytes, shown once and kept as its SHA-256. A slow hash protects secrets that can be guessed;
//! 256 random bits cannot, so a fast one is as safe, and no connect storm pays for it. Keys that have to be known again are
//! in `pre_shared_keys`.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_types::{ApiError, DeviceKey, ErrorCode, RecordId, TenantId};
use sha2::{Digest as _, Sha256};

use super::{Declared, Domain, not_found};
use crate::object::{Credential, CredentialKind, Digest, Kind, Object, ObjectKey, Spec};
use crate::ports::{IssuedCertificate, Whose};

/// First characters of every token, so that one is recognised where it leaked.
pub const TOKEN_PREFIX: &str = "drv_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Most credentials of a device: enough to rotate, few enough to revoke in one go.
const CREDENTIALS_PER_DEVICE_MAX: usize = 16;
/// How long a certificate is valid when nobody says, in seconds: one year.
const CERTIFICATE_SECONDS_DEFAULT: u64 = 365 * 24 * 3600;
/// Longest validity, in seconds: ten years, as long as the platform's authority itself.
const VALIDITY_SECONDS_MAX: u64 = 3_650 * 24 * 3600;
/// A certificate is valid from this long ago, in milliseconds, for devices whose clock is late.
const CLOCK_SKEW_MS: u64 = 3600 * 1000;

/// What a secret is kept as.
pub fn digest(secret: &[u8]) -> Digest {
    Sha256::digest(secret).into()
}

impl Domain {
    /// Makes a token; it is in the answer and nowhere else. `duration_s` 0: it does not end. `owner` takes care of it.
    pub async fn issue_token(
        &self,
        device: &DeviceKey,
        duration_s: u64,
        owner: String,
    ) -> Result<(Object, String), ApiError> {
        let expires_ms = self.ends_ms(duration_s)?;
        let token = format!("{TOKEN_PREFIX}{}", self.secret());
        let credential = Credential {
            device: device.device.clone(),
            kind: CredentialKind::Token,
            expires_ms,
            digest: digest(token.as_bytes()),
            sealed: None,
        };
        Ok((self.add_credential(device, credential, owner).await?, token))
    }

    /// Makes a key pair and a client certificate; the private key is in the answer and nowhere else. `duration_s` 0:
    /// one year. `owner` takes care of it.
    pub async fn issue_certificate(
        &self,
        device: &DeviceKey,
        duration_s: u64,
        owner: String,
    ) -> Result<(Object, IssuedCertificate), ApiError> {
        let seconds = match in_validity("duration_s", duration_s)? {
            0 => CERTIFICATE_SECONDS_DEFAULT,
            seconds => seconds,
        };
        self.get(ObjectKey::device(device)).await?;
        let now_ms = self.clock.now_ms();
        let until_ms = now_ms + seconds * 1000;
        let issued = self.authority.issue(device, now_ms.saturating_sub(CLOCK_SKEW_MS), until_ms)?;
        let credential = Credential {
            device: device.device.clone(),
            kind: CredentialKind::Certificate,
            expires_ms: Some(until_ms),
            digest: digest(&issued.certificate_der),
            sealed: None,
        };
        Ok((self.add_credential(device, credential, owner).await?, issued))
    }

    /// All credentials of a device, the oldest first.
    pub async fn list_credentials(&self, device: &DeviceKey) -> Result<Vec<Object>, ApiError> {
        self.get(ObjectKey::device(device)).await?;
        let mut found = self.store.credentials_of(device).await?;
        found.sort_by_key(|credential| credential.meta.created_ms);
        Ok(found)
    }

    /// Deletes a credential and has its connections closed; answers the nodes that did not confirm.
    pub async fn revoke_credential(&self, tenant: &TenantId, id: &str) -> Result<Vec<String>, ApiError> {
        let revoked = self.delete(ObjectKey::new(Kind::Credential, tenant, id)).await?;
        let (_, device) = revoked.credential().expect("a credential's key holds a credential");
        Ok(self.revoke(&device, Whose::Credential(id)).await)
    }

    pub(super) async fn delete_credentials(&self, device: &DeviceKey) -> Result<(), ApiError> {
        for credential in self.store.credentials_of(device).await? {
            match self.delete(credential.key()).await {
                Ok(_) => {}
                Err(error) if error.code == ErrorCode::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// When a token ends that is made now; `duration_s` 0: it does not.
    pub(super) fn ends_ms(&self, duration_s: u64) -> Result<Option<u64>, ApiError> {
        let seconds = in_validity("duration_s", duration_s)?;
        Ok((seconds > 0).then(|| self.clock.now_ms() + seconds * 1000))
    }

    /// What nobody can guess, as text.
    pub(super) fn secret(&self) -> String {
        self.random_text::<TOKEN_BYTES>()
    }

    /// So many random bytes, as text.
    pub(super) fn random_text<const BYTES: usize>(&self) -> String {
        let mut random = [0; BYTES];
        self.random.fill(&mut random);
        BASE64_URL_SAFE_NO_PAD.encode(random)
    }

    pub(super) async fn add_credential(
        &self,
        device: &DeviceKey,
        credential: Credential,
        owner: String,
    ) -> Result<Object, ApiError> {
        let id = RecordId::new(self.clock.now_ms(), &*self.random).to_string();
        self.add_credential_as(id, device, credential, owner).await
    }

    /// `already_exists` if there is one of this id.
    pub(super) async fn add_credential_as(
        &self,
        id: String,
        device: &DeviceKey,
        credential: Credential,
        owner: String,
    ) -> Result<Object, ApiError> {
        let of_device = ObjectKey::device(device);
        self.get(of_device.clone()).await?;
        let existing = self.store.credentials_of(device).await?.len();
        if existing >= CREDENTIALS_PER_DEVICE_MAX {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "the device has too many credentials");
            return Err(error.over(CREDENTIALS_PER_DEVICE_MAX, existing + 1));
        }
        let declared = Declared {
            tenant: device.tenant.clone(),
            name: id,
            labels: Default::default(),
            revision: 0,
            owner,
            spec: Spec::Credential(credential),
        };
        let first = !self.store.has_had_credentials(device).await?;
        let created = self.create(declared).await?;
        if self.store.get(&of_device).await?.is_none() {
            // Deleted meanwhile: its deletion may have passed before this credential was there to be found.
            self.delete(created.key()).await?;
            return Err(not_found(&of_device));
        }
        self.telemetry.issued();
        if first && device.tenant == TenantId::default_tenant() {
            // From now on nobody is this device without credentials, as in other tenants nobody ever was. A node that does
            // not confirm learns it from the change feed.
            self.revoke(device, Whose::Anonymous).await;
        }
        Ok(created)
    }
}

/// The seconds, if a credential may last so long.
fn in_validity(field: &str, seconds: u64) -> Result<u64, ApiError> {
    if seconds > VALIDITY_SECONDS_MAX {
        return Err(ApiError::invalid(field, "validity is too long").over(VALIDITY_SECONDS_MAX, seconds));
    }
    Ok(seconds)
}
