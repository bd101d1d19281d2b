//! Mutual TLS between the processes of the platform: both ends show a certificate of the network's own authority.
//!
//! Not the authority of devices: no device can even finish a handshake here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// `[network.tls]`: PEM files, as `drover init` makes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkTlsConfig {
    /// This process's certificate, for servers and for clients.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority whose certificates are those of the platform.
    pub ca: PathBuf,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("network.tls.{key}: {} cannot be read: {source}", path.display())]
pub struct NetworkTlsError {
    key: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// The certificates, read.
#[derive(Clone)]
pub struct NetworkTls {
    identity: Identity,
    ca: Certificate,
}

impl NetworkTls {
    /// Reads the files; what is in them is found out when a server or client is made of them.
    pub fn read(config: &NetworkTlsConfig) -> Result<Self, NetworkTlsError> {
        let read = |key, path: &Path| {
            std::fs::read(path).map_err(|source| NetworkTlsError { key, path: path.to_owned(), source })
        };
        let identity = Identity::from_pem(read("certificate", &config.certificate)?, read("key", &config.key)?);
        Ok(Self { identity, ca: Certificate::from_pem(read("ca", &config.ca)?) })
    }

    /// For clients: they check the server's name.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(self.ca.clone()).identity(self.identity.clone())
    }

    /// For servers: clients without a certificate of the authority are refused.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.ca.clone())
    }
}
