//! What a client has shown in its handshake of TLS, as the domain knows it.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use crate::domain::identity::Certificate;

/// What a client has shown, its own certificate first; `None`: nothing.
pub fn shown(chain: &[CertificateDer<'_>]) -> Option<Certificate> {
    let fingerprint = Sha256::digest(chain.first()?).into();
    Some(Certificate { fingerprint, chain: chain.iter().map(|certificate| certificate.to_vec()).collect() })
}
