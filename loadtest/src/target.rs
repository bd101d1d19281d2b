//! Where a broker is and how to reach it: TCP or TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

/// Default ports of `mqtt://` and `mqtts://`.
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

/// A connection, whatever it runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("url {url:?} is not mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")]
    Url { url: String },
    #[error("mqtts:// needs a file with the authority's certificate")]
    NoAuthority,
    #[error("could not read {path}")]
    File { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("host is no server name")]
    Host(#[from] InvalidDnsNameError),
    #[error("tls is not configured correctly")]
    Tls(#[from] rustls::Error),
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificates of the authorities that may sign the server's.
    pub authority: Option<PathBuf>,
    /// The client's certificate chain and private key, to prove who it is.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A broker's address. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    /// Reads `url`, and the files if it says `mqtts`.
    pub fn new(url: &str, files: &TlsFiles) -> Result<Self, TargetError> {
        let malformed = || TargetError::Url { url: url.to_owned() };
        let (scheme, address) = url.split_once("://").ok_or_else(malformed)?;
        let default_port = match scheme {
            "mqtt" => PORT,
            "mqtts" => TLS_PORT,
            _ => return Err(malformed()),
        };
        let (host, port) = split_port(address.trim_end_matches('/')).ok_or_else(malformed)?;
        let tls = match scheme {
            "mqtts" => Some((tls_config(files)?, ServerName::try_from(host.clone())?)),
            _ => None,
        };
        Ok(Self { host, port: port.unwrap_or(default_port), tls })
    }

    /// Opens a connection. Small packets are sent at once (no Nagle delay).
    pub async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        self.connect_from(None).await
    }

    /// As [`Self::connect`], from this local address: an address has some 28,000 ports, which get slow to be found.
    pub async fn connect_from(&self, source: Option<IpAddr>) -> io::Result<Box<dyn Stream>> {
        let tcp = match source {
            None => TcpStream::connect((self.host.as_str(), self.port)).await?,
            Some(source) => self.connect_bound(source).await?,
        };
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((config, name)) => {
                let tls = TlsConnector::from(config.clone()).connect(name.clone(), tcp).await?;
                Ok(Box::new(tls))
            }
        }
    }

    async fn connect_bound(&self, source: IpAddr) -> io::Result<TcpStream> {
        let same_family = |address: &SocketAddr| address.is_ipv4() == source.is_ipv4();
        let address = lookup_host((self.host.as_str(), self.port)).await?.find(same_family);
        let other_family = || io::Error::new(io::ErrorKind::AddrNotAvailable, "host has no address of that family");
        let address = address.ok_or_else(other_family)?;
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(address).await
    }
}

/// Host and port of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
pub fn split_port(address: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map(str::parse::<u16>).transpose().ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// A client's side of TLS with these files.
pub fn tls_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TargetError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(files.authority.as_ref().ok_or(TargetError::NoAuthority)?)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
            builder.with_client_auth_cert(certificates(certificate)?, key_der)?
        }
    }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TargetError> {
    CertificateDer::pem_file_iter(path).map_err(unreadable(path))?.collect::<Result<_, _>>().map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> TargetError {
    move |source| TargetError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_perhaps_a_port() {
        let host_and_port = |url| {
            let target = Target::new(url, &TlsFiles::default()).expect("valid");
            (target.host, target.port)
        };
        assert_eq!(host_and_port("mqtt://localhost"), ("localhost".to_owned(), 1883));
        assert_eq!(host_and_port("mqtt://127.0.0.1:7/"), ("127.0.0.1".to_owned(), 7));
        assert_eq!(host_and_port("mqtt://[::1]:1884"), ("::1".to_owned(), 1884));
    }

    #[test]
    fn other_urls_and_tls_without_an_authority_are_refused() {
        for url in ["localhost", "http://a", "mqtt://", "mqtt://a:b", "mqtt://[::1", "mqtt://[::1]1"] {
            assert!(matches!(Target::new(url, &TlsFiles::default()), Err(TargetError::Url { .. })), "{url}");
        }
        assert!(matches!(Target::new("mqtts://a", &TlsFiles::default()), Err(TargetError::NoAuthority)));
    }
}
