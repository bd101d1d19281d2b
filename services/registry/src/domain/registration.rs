//! Registration of a device by its certificate, when it connects for the first time.
//!
//! The device is made first and names the certificate, then the certificate becomes its credential. Of several that begin,
//! the one that makes the device goes on; the others ask their clients to come again, and take over only from one that is
//! gone. Whoever has, or had, any credential is never registered by a certificate: revoked means out (P5).

use drover_host::actor::acting;
use drover_types::object::CERTIFICATE_ATTRIBUTE;
use drover_types::{ApiError, DeviceKey, ErrorCode, hex};

use super::Domain;
use super::authenticate::refused;
use super::authorities;
use super::certificates::{Authority, Chain};
use crate::audit::REGISTRATION;
use crate::object::{Credential, CredentialKind, Digest, Kind, Object, ObjectKey};

/// A device made so long ago without a credential is left over from a registration that has ended, milliseconds; longer than
/// any call of the store takes.
const BEGUN_MS: u64 = 10_000;

impl Domain {
    /// The credential of the device whose certificate `chain` begins with; nobody has this certificate yet.
    /// `unauthenticated` if no authority of any tenant has issued it, `permission_denied` if its device cannot be registered
    /// by it, `unavailable` while another registers it.
    pub(super) async fn register(&self, fingerprint: &Digest, chain: Vec<Vec<u8>>) -> Result<Object, ApiError> {
        acting(REGISTRATION, self.registered(fingerprint, chain)).await
    }

    async fn registered(&self, fingerprint: &Digest, chain: Vec<Vec<u8>>) -> Result<Object, ApiError> {
        let chain = Chain::read(chain).ok_or_else(refused)?;
        let authority = self.issuer_of(&chain).await?;
        let device = DeviceKey { tenant: authority.meta.tenant.clone(), device: chain.device()? };
        let credential = Credential {
            device: device.device.clone(),
            kind: CredentialKind::Certificate,
            expires_ms: Some(chain.until_ms),
            digest: *fingerprint,
            sealed: None,
        };
        let registered = self.register_once(&authority, &device, credential).await?;
        if self.store.get(&authority.key()).await?.is_none() {
            // Deleted meanwhile: its deletion may have passed before this device was there to be found.
            self.delete_device(&device).await?;
            return Err(refused());
        }
        tracing::info!(%device, authority = authority.meta.name, "a device was registered by its certificate");
        Ok(registered)
    }

    /// The authority that has issued it; of several of one tenant, the one nearest to the device. `permission_denied` if more
    /// than one tenant has such an authority: nobody has shown the key of one, so whoever registers an authority below
    /// another tenant's must not get that tenant's devices.
    async fn issuer_of(&self, chain: &Chain) -> Result<Object, ApiError> {
        let now_ms = self.clock.now_ms();
        let mut issuer: Option<Object> = None;
        let mut refusal = refused();
        for subject in chain.issuers() {
            for found in self.authorities_of(subject).await? {
                if issuer.as_ref().is_some_and(|nearer| nearer.meta.tenant == found.meta.tenant) {
                    continue;
                }
                let authority = Authority::read(&found.spec.certificate_authority().certificate)?;
                let issued = authority.has_issued(chain, now_ms);
                tokio::task::yield_now().await; // signatures of many devices in one go would hold up everybody else
                match issued {
                    Ok(()) if issuer.is_some() => return Err(contested()),
                    Ok(()) => issuer = Some(found),
                    Err(reason) => {
                        let message = format!("the certificate is not valid: {reason}");
                        refusal = ApiError::new(ErrorCode::Unauthenticated, message);
                    }
                }
            }
        }
        issuer.ok_or(refusal)
    }

    async fn register_once(
        &self,
        authority: &Object,
        device: &DeviceKey,
        credential: Credential,
    ) -> Result<Object, ApiError> {
        let (id, owner, spec) =
            (hex(&credential.digest), &authority.meta.owner, authority.spec.certificate_authority());
        let key = ObjectKey::new(Kind::Credential, &device.tenant, id.as_str());
        if self.store.has_had_credentials(device).await? {
            // It may be this certificate, which another has registered meanwhile.
            return self.store.get(&key).await?.ok_or_else(|| had_credentials(device));
        }
        let wanted = authorities::device(&authority.key(), owner, spec, device.device.as_str(), &credential.digest);
        let is_new = match self.create_device(wanted).await {
            Ok(_) => true,
            Err(error) if error.code == ErrorCode::AlreadyExists => {
                self.may_complete(device, &id).await?;
                false
            }
            Err(error) => return Err(error),
        };
        if self.store.has_had_credentials(device).await? {
            if is_new {
                // It was registered and deleted meanwhile.
                self.delete_device(device).await?;
            }
            return self.store.get(&key).await?.ok_or_else(|| had_credentials(device));
        }
        match self.add_credential_as(id, device, credential, owner.clone()).await {
            Err(error) if error.code == ErrorCode::AlreadyExists => self.get(key).await,
            added => added,
        }
    }

    /// Whether a device that exists is one that this certificate has begun to register, and nobody goes on with it.
    async fn may_complete(&self, device: &DeviceKey, fingerprint: &str) -> Result<(), ApiError> {
        let found = self.get(ObjectKey::device(device)).await?;
        let begun_by = found.spec.device().attributes.get(CERTIFICATE_ATTRIBUTE);
        if begun_by.is_none_or(|begun_by| begun_by != fingerprint) {
            let message = format!("device {device} exists, and this certificate has not registered it");
            return Err(ApiError::new(ErrorCode::PermissionDenied, message));
        }
        let age_ms = self.clock.now_ms().saturating_sub(found.meta.created_ms);
        if age_ms < BEGUN_MS {
            let message = format!("device {device} is being registered, come again");
            return Err(ApiError::new(ErrorCode::Unavailable, message).over(BEGUN_MS, age_ms));
        }
        Ok(())
    }
}

fn contested() -> ApiError {
    let message = "authorities of more than one tenant have issued the certificate: none of them registers its device";
    ApiError::new(ErrorCode::PermissionDenied, message)
}

fn had_credentials(device: &DeviceKey) -> ApiError {
    let message = format!("device {device} has, or had, credentials: a certificate registers it no more");
    ApiError::new(ErrorCode::PermissionDenied, message)
}
