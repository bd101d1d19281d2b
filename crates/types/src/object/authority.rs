//! The declared shape of a certificate authority.

use std::collections::BTreeMap;

use super::DeviceSpec;

/// Attribute of a device that its certificate has registered: SHA-256 of the certificate's DER form, in hexadecimal.
pub const CERTIFICATE_ATTRIBUTE: &str = "certificateSha256";
/// Attribute of such a device: the name of the authority.
pub const AUTHORITY_ATTRIBUTE: &str = "certificateAuthority";

/// An authority of a tenant, whose certificates register the devices that connect with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateAuthoritySpec {
    /// PEM, one certificate.
    pub certificate: String,
    /// Labels of each device.
    pub labels: BTreeMap<String, String>,
    /// What each device is like, besides [`CERTIFICATE_ATTRIBUTE`] and [`AUTHORITY_ATTRIBUTE`].
    pub template: DeviceSpec,
}
