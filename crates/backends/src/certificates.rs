//! Certificates for servers that are spoken to over TLS, made anew each time.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// PEM files of an authority and of a server at 127.0.0.1 that it vouches for.
pub struct Certificates {
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The server's key (PKCS 8) and certificate in one file, as Java reads a PEM key store.
    pub store: PathBuf,
}

impl Certificates {
    /// Writes them into `directory`.
    pub fn make(directory: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "drover tests");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let server =
            CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?.signed_by(&key, &authority)?;
        let write = |name: &str, pem: String| {
            let path = directory.join(name);
            std::fs::write(&path, pem).with_context(|| path.display().to_string())?;
            anyhow::Ok(path)
        };
        Ok(Self {
            authority: write("authority.pem", authority.pem())?,
            store: write("server.pem", key.serialize_pem() + &server.pem())?,
        })
    }
}
