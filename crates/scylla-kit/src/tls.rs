//! Encryption to the nodes, with certificates that are checked.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::OpenError;
use crate::options::Tls;

/// What connections are made with.
pub fn context(tls: &Tls) -> Result<Arc<ClientConfig>, OpenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca", &tls.ca)? {
        roots.add(certificate).map_err(|error| refuse("tls.ca", &tls.ca, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse("tls.ca", &tls.ca, error))?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("tls.certificate", certificate)?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| refuse("tls.key", key, error))?;
            config.with_client_auth_cert(chain, private).map_err(|error| refuse("tls.key", key, error))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let file = File::open(path).map_err(|error| refuse(key, path, error))?;
    let found = CertificateDer::pem_reader_iter(BufReader::new(file)).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| refuse(key, path, error))?;
    if found.is_empty() {
        return Err(refuse(key, path, "holds no certificate"));
    }
    Ok(found)
}

fn refuse(key: &'static str, path: &Path, error: impl std::fmt::Display) -> OpenError {
    OpenError::Options { key, reason: format!("{}: {error}", path.display()) }
}
