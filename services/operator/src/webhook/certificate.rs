//! The webhook's certificate: it vouches for itself, and the API server is told to believe it and no other.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long a certificate holds, in milliseconds.
const LASTS_MS: u64 = 90 * DAY_MS;
/// After how long it is replaced, in milliseconds: a third of its life is left for whoever cannot be reached meanwhile.
pub const RENEW_AFTER_MS: u64 = 60 * DAY_MS;
/// It is valid from this long ago, in milliseconds, for an API server whose clock is late.
pub const CLOCK_SKEW_MS: u64 = DAY_MS;

/// A certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// A certificate that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the webhook's certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("the webhook's certificate is malformed: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the webhook's certificate cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

/// A new one for the name by which the API server calls.
pub fn make(host: &str, now_ms: u64) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "Drover webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_millis(now_ms.saturating_sub(CLOCK_SKEW_MS));
    params.not_after = epoch + Duration::from_millis(now_ms + LASTS_MS);
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// Shows it to whoever connects.
pub fn acceptor(pair: &Pair) -> Result<TlsAcceptor, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_was_made_can_be_shown_and_another_is_another() {
        let (one, other) = (make("a.b.svc", 0).expect("made"), make("a.b.svc", 0).expect("made"));
        assert!(one != other);
        acceptor(&one).expect("usable");
        let mixed = Pair { key: other.key, ..one };
        assert!(acceptor(&mixed).is_err(), "a key of another certificate");
    }
}
