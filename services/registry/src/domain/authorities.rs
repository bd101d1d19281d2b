//! Certificate authorities of tenants: whose certificates register devices, and what these are like.
//!
//! An authority is found by its subject, which is what a certificate says of its issuer. A subject is one tenant's, which may
//! have several authorities of it, as while one is replaced.

use drover_types::limits::CERTIFICATE_AUTHORITIES_PER_TENANT_MAX;
use drover_types::object::{AUTHORITY_ATTRIBUTE, CERTIFICATE_ATTRIBUTE, CertificateAuthoritySpec, DeviceSpec};
use drover_types::{ApiError, ErrorCode, TenantId, hex, subdomain};

use super::certificates::{self, Authority};
use super::claims::Needed;
use super::credentials::digest;
use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Digest, Kind, Object, ObjectKey, Spec};
use crate::ports::StoreError;

/// A device that stands for all of an authority when its template is checked.
const ANY_DEVICE: &str = "device";

impl Domain {
    /// Creates or replaces an authority. `already_exists` if another tenant has one of its subject.
    pub async fn put_certificate_authority(&self, authority: Declared) -> Result<Object, ApiError> {
        subdomain("metadata.name", &authority.name)?;
        checks::labels(&authority.labels)?;
        let certificate = Authority::read(&authority.spec.certificate_authority().certificate)?;
        certificate.check_in_force(self.clock.now_ms())?;
        let key = ObjectKey::new(Kind::CertificateAuthority, &authority.tenant, &authority.name);
        let device =
            device(&key, &authority.owner, authority.spec.certificate_authority(), ANY_DEVICE, &Digest::default());
        let checked = self.check_device(&device).await;
        checked.map_err(|error| ApiError { field: error.field.as_deref().map(field_of_device), ..error })?;

        let _alone = self.writing_authority.lock().await;
        let limit = CERTIFICATE_AUTHORITIES_PER_TENANT_MAX;
        let current = self.current_or_room(&key, limit, "certificate authorities").await?;
        self.put_with_claims(authority, current).await
    }

    /// An authority.
    pub async fn get_certificate_authority(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        self.get(ObjectKey::new(Kind::CertificateAuthority, tenant, name)).await
    }

    /// Authorities in the order of their names.
    pub async fn list_certificate_authorities(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page(Kind::CertificateAuthority, request).await
    }

    /// Deletes an authority: it registers nobody any more. The devices it has registered stay.
    pub async fn delete_certificate_authority(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let _alone = self.writing_authority.lock().await;
        self.delete_with_claims(ObjectKey::new(Kind::CertificateAuthority, tenant, name)).await
    }

    /// The authorities of this subject (DER), all of one tenant.
    pub(super) async fn authorities_of(&self, subject: &[u8]) -> Result<Vec<Object>, StoreError> {
        let Some(claim) = self.store.topic_claim(&claim_name(subject)).await? else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(claim.rules.len());
        for name in &claim.rules {
            let key = ObjectKey::new(Kind::CertificateAuthority, &claim.tenant, name);
            found.extend(self.store.get(&key).await?);
        }
        Ok(found)
    }
}

/// The device `name` as the template of its authority has it; whoever keeps the authority keeps it.
pub(super) fn device(
    authority: &ObjectKey,
    owner: &str,
    spec: &CertificateAuthoritySpec,
    name: &str,
    fingerprint: &Digest,
) -> Declared {
    let mut attributes = spec.template.attributes.clone();
    attributes.insert(AUTHORITY_ATTRIBUTE.to_owned(), authority.name.clone());
    attributes.insert(CERTIFICATE_ATTRIBUTE.to_owned(), hex(fingerprint));
    Declared {
        tenant: authority.tenant.clone(),
        name: name.to_owned(),
        labels: spec.labels.clone(),
        revision: 0,
        owner: owner.to_owned(),
        spec: Spec::Device(DeviceSpec { attributes, ..spec.template.clone() }),
    }
}

/// Where an authority says what is in this field of its devices.
fn field_of_device(field: &str) -> String {
    match field.strip_prefix("spec.") {
        Some(of_spec) => format!("spec.template.{of_spec}"),
        None => format!("spec.{}", field.strip_prefix("metadata.").unwrap_or(field)),
    }
}

/// What an authority needs: its subject.
pub(super) fn needed(authority: &CertificateAuthoritySpec) -> Option<Needed> {
    let certificate = Authority::read(&authority.certificate).ok()?;
    let message = "the subject of this authority belongs to another tenant";
    let error = ApiError::new(ErrorCode::AlreadyExists, message);
    let taken = ApiError { field: Some(certificates::FIELD.into()), ..error };
    Some(Needed { name: claim_name(&certificate.subject), taken })
}

/// A name that no Kafka topic can have.
fn claim_name(subject: &[u8]) -> String {
    format!("authority/{}", hex(&digest(subject)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_its_devices_is_told_by_a_field_of_the_authority() {
        assert_eq!(field_of_device("spec.attributes.a"), "spec.template.attributes.a");
        assert_eq!(field_of_device("metadata.labels.site"), "spec.labels.site");
    }
}
