//! TLS for MQTT: certificates from files, client certificates asked for but not demanded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use crate::config::TlsConfig;

/// Protocols a client may ask for: MQTT, by its own name and by the one AWS IoT gives it. Most ask for none.
const ALPN: [&str; 2] = ["mqtt", "x-amzn-mqtt-ca"];

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} {path:?} cannot be read: {reason}")]
    File { key: &'static str, path: PathBuf, reason: String },
    #[error("{key} {path:?} holds no certificate")]
    Empty { key: &'static str, path: PathBuf },
    #[error("tls certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("tls client_ca cannot be used: {0}")]
    ClientCa(String),
}

/// What servers do that `config` describes; `None` if it names no certificate.
pub fn server(config: &TlsConfig) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else { return Ok(None) };
    let chain = certificates("tls.certificate", certificate)?;
    let key_file = |e: rustls::pki_types::pem::Error| file_error("tls.key", key, &e);
    let private = PrivateKeyDer::from_pem_file(key).map_err(key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("tls.client_ca", path)? {
                roots.add(authority)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| TlsError::ClientCa(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_single_cert(chain, private)?;
    server.alpn_protocols = ALPN.map(|name| name.as_bytes().to_vec()).to_vec();
    Ok(Some(Arc::new(server)))
}

/// SHA-256 of a certificate's DER form: what the registry knows it by.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |e: rustls::pki_types::pem::Error| file_error(key, path, &e);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if chain.is_empty() { Err(TlsError::Empty { key, path: path.to_owned() }) } else { Ok(chain) }
}

fn file_error(key: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File { key, path: path.to_owned(), reason: error.to_string() }
}
