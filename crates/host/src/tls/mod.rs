//! TLS for MQTT, HTTP and Kafka: certificates from files, client certificates asked for but not demanded ([`clients`]). Files that
//! change count for connections that come later.
//!
//! Not that of the network between processes, which demands certificates of an authority of its own ([`super::network_tls`]).

mod clients;
mod tickets;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use drover_types::ApiError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use clients::Clients;
use tickets::{CURRENT, PREVIOUS, Tickets, TicketsError};

/// Protocols a client may ask for: MQTT, by its own name and by the one AWS IoT gives it. Most ask for none.
const ALPN: [&str; 2] = ["mqtt", "x-amzn-mqtt-ca"];
/// The protocol of a listener of HTTP, as its clients may ask for it; WebSocket begins there as well.
const HTTP_ALPN: &str = "http/1.1";

/// How often the files are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// `[ingress.tls]` and `[gateway.tls]`: PEM files. Without a certificate there is no TLS listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its root.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The platform's own authorities, which issue certificates of clients; those of tenants are the registry's. No client is
    /// asked for a certificate without.
    pub client_ca: Option<PathBuf>,
    /// Directory of the keys of session tickets, the same on all nodes so that a client resumes its TLS session at any of
    /// them: `current` and, while they are changed, `previous`; each 32 random bytes as base64. Without, each node has keys
    /// of its own. Files of this section that change count for connections that come later.
    pub ticket_keys: Option<PathBuf>,
}

impl TlsConfig {
    /// `invalid_argument` for files that are of no use without others; `section` is where they are named.
    pub fn check(&self, section: &str) -> Result<(), ApiError> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err(ApiError::invalid(section, "certificate and key are set together"));
        }
        for (key, file) in [("client_ca", &self.client_ca), ("ticket_keys", &self.ticket_keys)] {
            if file.is_some() && self.certificate.is_none() {
                return Err(ApiError::invalid(format!("{section}.{key}"), "is of no use without a certificate"));
            }
        }
        Ok(())
    }
}

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
    #[error(transparent)]
    Tickets(#[from] TicketsError),
}

/// What the TLS listeners of a service serve by.
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Served>,
}

/// What those of each protocol serve by.
struct Served {
    mqtt: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    bare: Arc<ServerConfig>,
}

impl Tls {
    /// As `config` describes; `None` if it names no certificate.
    pub fn open(config: &TlsConfig) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(current) = server(config)? else { return Ok(None) };
        Ok(Some(Arc::new(Self { files: config.clone(), current: RwLock::new(current) })))
    }

    /// For a connection of MQTT that comes now.
    pub fn mqtt(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).mqtt.clone()
    }

    /// For a connection of HTTP that comes now.
    pub fn http(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).http.clone()
    }

    /// For a connection that comes now, of a protocol that has no name for ALPN.
    pub fn bare(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).bare.clone()
    }

    /// Reads the files again whenever they have changed, until dropped. Those that cannot be used change nothing: what was
    /// served before is served on.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = self.stamps().await;
        loop {
            tokio::time::sleep(RELOAD).await;
            let stamps = self.stamps().await;
            if stamps == seen {
                continue;
            }
            seen = stamps;
            match server(&self.files) {
                Ok(Some(newer)) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = newer;
                    tracing::info!("new connections get the tls certificate that was read just now");
                }
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "tls certificate is not replaced"),
            }
        }
    }

    /// When each file was last changed, and its length; `None` if it is not there.
    async fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        let TlsConfig { certificate, key, client_ca, ticket_keys } = &self.files;
        let ticket_keys = ticket_keys.iter().flat_map(|directory| [CURRENT, PREVIOUS].map(|name| directory.join(name)));
        let files: Vec<_> = [certificate, key, client_ca].into_iter().flatten().cloned().chain(ticket_keys).collect();
        let mut stamps = Vec::new();
        for path in files {
            let metadata = tokio::fs::metadata(path).await.ok();
            stamps.push(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))));
        }
        stamps
    }
}

fn server(config: &TlsConfig) -> Result<Option<Served>, TlsError> {
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else { return Ok(None) };
    let chain = certificates("tls.certificate", certificate)?;
    let key_file = |e: rustls::pki_types::pem::Error| file_error("tls.key", key, &e);
    let private = PrivateKeyDer::from_pem_file(key).map_err(key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])?;
    let mut accepted = Sha256::new();
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("tls.client_ca", path)? {
                accepted.update(&authority);
                roots.add(authority)?;
            }
            let clients = Clients::new(roots, provider).map_err(|e| TlsError::ClientCa(e.to_string()))?;
            builder.with_client_cert_verifier(Arc::new(clients))
        }
    };
    let mut server = builder.with_single_cert(chain, private)?;
    // What a client comes back with is all in its ticket, of which one is enough: nothing is kept here.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 1;
    server.ticketer = match &config.ticket_keys {
        Some(directory) => Arc::new(Tickets::open(directory, &accepted.finalize())?),
        None => rustls::crypto::ring::Ticketer::new()?,
    };
    let speaking = |names: &[&str]| {
        let alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut server = server.clone();
        server.alpn_protocols = alpn_protocols;
        Arc::new(server)
    };
    Ok(Some(Served { mqtt: speaking(&ALPN), http: speaking(&[HTTP_ALPN]), bare: speaking(&[]) }))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |e: rustls::pki_types::pem::Error| file_error(key, path, &e);
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if chain.is_empty() { Err(TlsError::Empty { key, path: path.to_owned() }) } else { Ok(chain) }
}

fn file_error(key: &'static str, path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    TlsError::File { key, path: path.to_owned(), reason: error.to_string() }
}
