//! Certificates of devices, and of the authorities that issue them (RFC 5280).
//!
//! Domain layer, pure: bytes and time arrive as arguments. Whether an authority has issued a certificate is for webpki to
//! say: signatures, dates, path length, name constraints, and the purpose of client authentication where one is named.

use std::sync::Arc;
use std::time::Duration;

use drover_types::limits::{AUTHORITY_BYTES_MAX, CERTIFICATE_CHAIN_BYTES_MAX, CERTIFICATE_CHAIN_MAX};
use drover_types::{ApiError, DeviceId, ErrorCode};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The field of an authority that has its certificate.
pub const FIELD: &str = "spec.certificate";

/// The certificate of an authority.
pub struct Authority {
    der: Vec<u8>,
    /// Its subject, DER.
    pub subject: Vec<u8>,
    /// In force from and until then, milliseconds since the Unix epoch.
    from_ms: u64,
    until_ms: u64,
    /// Most certificates between one that it is to have issued and itself.
    between_max: usize,
}

impl Authority {
    /// The one certificate of a PEM text; `invalid_argument` if it is none, or not that of an authority.
    pub fn read(pem: &str) -> Result<Self, ApiError> {
        if pem.len() > AUTHORITY_BYTES_MAX {
            return Err(ApiError::invalid(FIELD, "is too long").over(AUTHORITY_BYTES_MAX, pem.len()));
        }
        let (rest, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(malformed)?;
        let not_one = || ApiError::invalid(FIELD, "is not one certificate and nothing else");
        if pem.label != "CERTIFICATE" || !rest.trim_ascii().is_empty() {
            return Err(not_one());
        }
        let (behind, parsed) = X509Certificate::from_der(&pem.contents).map_err(malformed)?;
        if !behind.is_empty() {
            return Err(not_one());
        }
        let signs = parsed.key_usage().ok().is_some_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
        if !parsed.is_ca() || !signs {
            return Err(ApiError::invalid(FIELD, "is not that of an authority, which may issue certificates"));
        }
        let (from_ms, until_ms) = validity_ms(&parsed);
        let constraints = parsed.basic_constraints().ok().flatten();
        let between_max = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        let between_max = between_max.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let subject = parsed.subject().as_raw().to_vec();
        Ok(Self { subject, from_ms, until_ms, between_max, der: pem.contents })
    }

    /// `invalid_argument` before and after the time that its certificate is for.
    pub fn check_in_force(&self, now_ms: u64) -> Result<(), ApiError> {
        if (self.from_ms..self.until_ms).contains(&now_ms) {
            return Ok(());
        }
        let time = format!("{} ms to {} ms", self.from_ms, self.until_ms);
        Err(ApiError::invalid(FIELD, "is not in force now").over(time, format!("{now_ms} ms")))
    }

    /// Why this authority has not issued the certificate that `chain` begins with, or not for clients, or not for now.
    pub fn has_issued(&self, chain: &Chain, now_ms: u64) -> Result<(), String> {
        self.check_in_force(now_ms).map_err(|error| format!("the authority's certificate {}", error.message))?;
        let told = |error: rustls::Error| error.to_string();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.der.as_slice())).map_err(told)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let certificates: Vec<_> = chain.certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
        // The path length of an anchor is not for webpki to see.
        let between = &certificates[1..];
        let between = &between[..between.len().min(self.between_max)];
        verifier.verify_client_cert(&certificates[0], between, now).map(drop).map_err(told)
    }
}

/// The certificates that a client has shown, its own first.
pub struct Chain {
    /// DER; at least one.
    certificates: Vec<Vec<u8>>,
    /// Of these, DER; each once.
    issuers: Vec<Vec<u8>>,
    /// Of the client's own.
    common_names: Vec<String>,
    /// When the client's own ends, milliseconds since the Unix epoch.
    pub until_ms: u64,
}

impl Chain {
    /// `None` if these are none, too many, or not certificates.
    pub fn read(certificates: Vec<Vec<u8>>) -> Option<Self> {
        let bytes: usize = certificates.iter().map(Vec::len).sum();
        if certificates.len() > CERTIFICATE_CHAIN_MAX || bytes > CERTIFICATE_CHAIN_BYTES_MAX {
            return None;
        }
        let parsed = certificates.iter().map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed));
        let parsed: Vec<X509Certificate<'_>> = parsed.collect::<Result<_, _>>().ok()?;
        let own = parsed.first()?;
        let names = own.subject().iter_common_name().map(|name| name.as_str().map(str::to_owned));
        let common_names = names.collect::<Result<Vec<String>, _>>().ok()?;
        let (_, until_ms) = validity_ms(own);
        let mut issuers: Vec<Vec<u8>> = Vec::with_capacity(parsed.len());
        for certificate in &parsed {
            let issuer = certificate.issuer().as_raw();
            if !issuers.iter().any(|known| known == issuer) {
                issuers.push(issuer.to_vec());
            }
        }
        Some(Self { certificates, issuers, common_names, until_ms })
    }

    /// Subjects of those who may have issued these certificates, DER; that of the client's own first.
    pub fn issuers(&self) -> &[Vec<u8>] {
        &self.issuers
    }

    /// The device that the client's certificate is for: its common name, of which it has one. Certificates of the platform's
    /// own authority name `TENANT/DEVICE`, which is no device id.
    pub fn device(&self) -> Result<DeviceId, ApiError> {
        let denied = |reason: String| ApiError::new(ErrorCode::PermissionDenied, reason);
        match self.common_names.as_slice() {
            [name] => DeviceId::new(name)
                .map_err(|error| denied(format!("the certificate's common name cannot be a device's: {error}"))),
            names => Err(denied(format!("the certificate has {} common names, not one", names.len()))),
        }
    }
}

fn malformed(reason: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(FIELD, format!("is no certificate in PEM: {reason}"))
}

/// From when until when it is in force, milliseconds since the Unix epoch. A certificate ends after the second it names.
fn validity_ms(certificate: &X509Certificate<'_>) -> (u64, u64) {
    let ms = |time: i64| u64::try_from(time).unwrap_or(0).saturating_mul(1000);
    let validity = certificate.validity();
    (ms(validity.not_before.timestamp()), ms(validity.not_after.timestamp()).saturating_add(1000))
}
