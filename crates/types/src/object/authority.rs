//! The declared shape of a certificate authority.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DeviceSpec;

/// Attribute of a device that its certificate has registered: SHA-256 of the certificate's DER form, in hexadecimal.
pub const CERTIFICATE_ATTRIBUTE: &str = "certificateSha256";
/// Attribute of such a device: the name of the authority.
pub const AUTHORITY_ATTRIBUTE: &str = "certificateAuthority";

/// `spec` of a CertificateAuthority: its certificates register the devices that connect with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateAuthoritySpec {
    /// PEM, one certificate.
    pub certificate: String,
    /// Labels of each device.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What each device is like, besides the attributes `certificateSha256` and `certificateAuthority`.
    #[serde(default)]
    pub template: DeviceSpec,
}
