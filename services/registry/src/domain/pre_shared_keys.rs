//! Pre-shared keys: what a device and the platform both know, for handshakes without certificates (RFC 4279).
//!
//! Such a key has to be known again, so it is not hashed but sealed ([`crate::ports::Vault`]). It is shown as 32 characters,
//! which themselves are the bytes of the key: clients take keys as text, and small ones take no more than 32 bytes. They
//! are made of 192 random bits, more than the ciphers they are for.

use drover_types::{ApiError, DeviceKey};

use super::Domain;
use super::authenticate::{named, refused};
use super::credentials::digest;
use super::devices::{disabled, is_enabled};
use crate::object::{Credential, CredentialKind, NONCE_BYTES, Object, ObjectKey, Sealed, Spec};
use crate::ports::Mutation;

/// Random bytes of a key; as text it has 32.
const RANDOM_BYTES: usize = 24;

/// A key and whose it is.
pub struct FoundKey {
    pub device: DeviceKey,
    pub credential_id: String,
    pub key: Vec<u8>,
}

impl Domain {
    /// Makes a key; it is in the answer, and in none after it but those of [`Domain::find_pre_shared_key`]. `duration_s` 0:
    /// it does not end. `owner` takes care of it. `failed_precondition` if there is no master key.
    pub async fn issue_pre_shared_key(
        &self,
        device: &DeviceKey,
        duration_s: u64,
        owner: String,
    ) -> Result<(Object, String), ApiError> {
        let expires_ms = self.ends_ms(duration_s)?;
        let key = self.random_text::<RANDOM_BYTES>();
        let sealed = self.vault.seal(key.as_bytes(), device, self.nonce())?;
        let credential = Credential {
            device: device.device.clone(),
            kind: CredentialKind::PreSharedKey,
            expires_ms,
            digest: digest(key.as_bytes()),
            sealed: Some(sealed),
        };
        Ok((self.add_credential(device, credential, owner).await?, key))
    }

    /// The newest key in force of the device that `identity` names, `TENANT/DEVICE` or `DEVICE`. `unauthenticated` if there
    /// is none, `permission_denied` if the device is disabled.
    pub async fn find_pre_shared_key(&self, identity: &str) -> Result<FoundKey, ApiError> {
        let _under_way = self.telemetry.authenticating(1);
        let outcome = self.newest_key(identity).await;
        self.telemetry.authenticated("pre_shared_key", outcome.as_ref().map(drop).map_err(|error| error.code));
        outcome
    }

    async fn newest_key(&self, identity: &str) -> Result<FoundKey, ApiError> {
        let device = named(identity).ok_or_else(refused)?;
        let credentials = self.store.credentials_of(&device).await?;
        let now_ms = self.clock.now_ms();
        // Ids begin with their time.
        let newest = credentials.iter().rev().find_map(|object| Some((object, in_force(object, now_ms)?)));
        let (found, sealed) = newest.ok_or_else(refused)?;
        let registered = self.store.get(&ObjectKey::device(&device)).await?.ok_or_else(refused)?;
        if !is_enabled(&registered) {
            return Err(disabled());
        }
        let key = self.vault.open(sealed, &device)?;
        if !self.vault.is_current(sealed) {
            self.seal_anew(found, &key, &device).await;
        }
        Ok(FoundKey { device, credential_id: found.meta.name.clone(), key })
    }

    /// Puts a key under the current master key. It is as good as before if that fails; who asks next tries again.
    async fn seal_anew(&self, found: &Object, key: &[u8], device: &DeviceKey) {
        let Ok(sealed) = self.vault.seal(key, device, self.nonce()) else { return };
        let mut after = found.clone();
        if let Spec::Credential(credential) = &mut after.spec {
            credential.sealed = Some(sealed);
        }
        let (key, expected) = (found.key(), Some(found.meta.revision));
        let mutation = Mutation::new(key, expected, Some(after), self.clock.now_ms());
        if let Err(error) = self.write(mutation).await {
            tracing::debug!(key = %found.key(), %error, "a key stays under its former master key");
        }
    }

    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        nonce
    }
}

/// The sealed key of a credential that is one and has not ended.
fn in_force(object: &Object, now_ms: u64) -> Option<&Sealed> {
    let Spec::Credential(credential) = &object.spec else { return None };
    let in_force = credential.kind == CredentialKind::PreSharedKey && !credential.has_ended(now_ms);
    credential.sealed.as_ref().filter(|_| in_force)
}
