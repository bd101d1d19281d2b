//! Posts to other people's servers: over connections that are kept, a bounded number per action and per host, to
//! addresses that are looked at before they are connected to. Redirects are not followed.

mod address;
mod secrets;
mod signature;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

pub use address::InternalHosts;
pub use secrets::{Secrets, read as read_secret};
pub use signature::sign;

use crate::domain::Verdict;
use crate::turns::Turns;
use address::Target;

/// Requests of one action at a time: one that hangs leaves room at its host for others.
const PER_ACTION: usize = 8;
/// Requests to one host and port at a time, of all rules of a tenant.
const PER_HOST: usize = 32;
/// Connections to one host and port that are kept for the next request.
const KEPT_PER_HOST: usize = 8;
/// How long a connection is kept without a request, whose server may have forgotten it.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Names that are resolved at a time: that takes threads, which others need as well.
const LOOKUPS: usize = 64;
/// Hosts whose connections are kept; with more, all are closed.
const HOSTS_MAX: usize = 256;
/// Most of an answer that is read; with a longer one its connection is closed.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What servers are told.
const AGENT: &str = concat!("drover/", env!("CARGO_PKG_VERSION"));

type Sender = SendRequest<Full<Bytes>>;

/// One request. It is shown nowhere: address and headers may be secrets.
pub struct Post {
    pub tenant: String,
    /// Which rule and which of its actions.
    pub action: (String, u32),
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Headers that must not be shown anywhere.
    pub secret_headers: Vec<(String, String)>,
    pub body: Bytes,
    pub timeout: Duration,
}

/// Whose requests are counted together, in a tenant: those of an action of a rule, or those to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Action(String, String, u32),
    Host(String, Target),
}

/// The client of all webhooks.
pub struct Webhooks {
    tls: TlsConnector,
    internal: InternalHosts,
    turns: Turns<Counted>,
    kept: Mutex<HashMap<Target, Vec<(Instant, Sender)>>>,
    lookups: Semaphore,
}

impl Webhooks {
    /// A client that trusts the web's certificate authorities and those of the file `ca` (PEM).
    pub fn new(internal: InternalHosts, ca: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca {
            let shown = path.display();
            let found = CertificateDer::pem_file_iter(path).with_context(|| format!("rules.webhook_ca: {shown}"))?;
            for certificate in found {
                let certificate = certificate.with_context(|| format!("rules.webhook_ca: {shown}"))?;
                roots.add(certificate).with_context(|| format!("rules.webhook_ca: {shown}"))?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Self { tls, internal, turns: Turns::default(), kept: Mutex::default(), lookups: Semaphore::new(LOOKUPS) })
    }

    /// Sends a request and waits for its answer. The time it waits for its turn does not count.
    pub async fn post(&self, post: &Post) -> Verdict {
        let parsed = post.url.parse::<Uri>().map_err(|error| error.to_string());
        let (uri, target) = match parsed.and_then(|uri| Target::of(&uri).map(|target| (uri, target))) {
            Ok(found) => found,
            Err(reason) => return Verdict::Refused(format!("url: {reason}")),
        };
        let (rule, action) = post.action.clone();
        let of_action = self.turns.of(Counted::Action(post.tenant.clone(), rule, action), PER_ACTION);
        let of_host = self.turns.of(Counted::Host(post.tenant.clone(), target.clone()), PER_HOST);
        // In this order: who waits for the host is bounded by action, so that none fills the queue.
        let (Ok(_of_action), Ok(_of_host)) = (of_action.acquire().await, of_host.acquire().await) else {
            return Verdict::Later("the client is closed".to_owned());
        };
        match timeout(post.timeout, self.exchange(&uri, &target, post)).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Later(format!("{} did not answer within {} ms", target.host, post.timeout.as_millis())),
        }
    }

    async fn exchange(&self, uri: &Uri, target: &Target, post: &Post) -> Verdict {
        let mut request = match request(uri, post) {
            Ok(request) => request,
            Err(reason) => return Verdict::Refused(reason),
        };
        if let Some(mut sender) = self.take_kept(target)
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return self.read(target, sender, answer).await,
                Err(mut failed) => match failed.take_message() {
                    // It was closed before anything was sent.
                    Some(unsent) => request = unsent,
                    None => return Verdict::Later(format!("{}: {}", target.host, failed.into_error())),
                },
            }
        }
        let mut sender = match self.connect(target).await {
            Ok(sender) => sender,
            Err(verdict) => return verdict,
        };
        match sender.send_request(request).await {
            Ok(answer) => self.read(target, sender, answer).await,
            Err(error) => Verdict::Later(format!("{}: {error}", target.host)),
        }
    }

    async fn read(&self, target: &Target, sender: Sender, answer: Response<Incoming>) -> Verdict {
        let status = answer.status();
        if Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.is_ok() {
            self.keep(target, sender);
        }
        let told = format!("{} answered {status}", target.host);
        match status.as_u16() {
            200..=299 => Verdict::Done,
            300..=399 => Verdict::Refused(format!("{told}; redirects are not followed")),
            408 | 425 | 429 | 500..=599 => Verdict::Later(told),
            _ => Verdict::Refused(told),
        }
    }

    async fn connect(&self, target: &Target) -> Result<Sender, Verdict> {
        let host = &target.host;
        let later = |reason: &dyn std::fmt::Display| Verdict::Later(format!("{host}: {reason}"));
        let addresses: Vec<SocketAddr> = {
            let _turn = self.lookups.acquire().await.map_err(|error| later(&error))?;
            lookup_host((host.as_str(), target.port)).await.map_err(|error| later(&error))?.collect()
        };
        self.internal.check(target, &addresses).map_err(Verdict::Refused)?;
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| later(&error))?;
        stream.set_nodelay(true).map_err(|error| later(&error))?;
        if !target.tls {
            return handshake(stream).await.map_err(|error| later(&error));
        }
        let name = ServerName::try_from(host.clone()).map_err(|error| Verdict::Refused(format!("{host}: {error}")))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| later(&error))?;
        handshake(stream).await.map_err(|error| later(&error))
    }

    fn take_kept(&self, target: &Target) -> Option<Sender> {
        let mut kept = self.kept();
        let senders = kept.get_mut(target)?;
        senders.retain(|(since, _)| since.elapsed() < KEPT_FOR);
        while let Some((_, sender)) = senders.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, target: &Target, sender: Sender) {
        let mut kept = self.kept();
        if kept.len() >= HOSTS_MAX && !kept.contains_key(target) {
            kept.clear();
        }
        let senders = kept.entry(target.clone()).or_default();
        senders.retain(|(since, sender)| !sender.is_closed() && since.elapsed() < KEPT_FOR);
        if senders.len() < KEPT_PER_HOST {
            senders.push((Instant::now(), sender));
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Target, Vec<(Instant, Sender)>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Speaks HTTP over a connection, which is closed when its sender is dropped.
async fn handshake<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: T) -> Result<Sender, hyper::Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a webhook's connection has ended");
        }
    });
    Ok(sender)
}

fn request(uri: &Uri, post: &Post) -> Result<Request<Full<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // `https://host?x=1` has no path.
    let slash = if path.starts_with('/') { "" } else { "/" };
    let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let mut request = Request::post(format!("{slash}{path}"))
        .body(Full::new(post.body.clone()))
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(|error| format!("host: {error}"))?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let given = post.headers.iter().map(|header| (header, false));
    for ((name, value), is_secret) in given.chain(post.secret_headers.iter().map(|header| (header, true))) {
        let refused = || format!("header {name:?} has characters that no header may have");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| refused())?;
        value.set_sensitive(is_secret);
        headers.insert(name, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_asks_for_the_root() {
        let asked = |url: &str| {
            let post = Post {
                tenant: String::new(),
                action: (String::new(), 0),
                url: url.to_owned(),
                headers: Vec::new(),
                secret_headers: Vec::new(),
                body: Bytes::new(),
                timeout: Duration::ZERO,
            };
            request(&url.parse().expect("a URL"), &post).map(|request| request.uri().to_string())
        };
        assert_eq!(asked("https://example.org?x=1"), Ok("/?x=1".to_owned()));
        assert_eq!(asked("https://example.org"), Ok("/".to_owned()));
        assert_eq!(asked("https://example.org/a?x=1"), Ok("/a?x=1".to_owned()));
    }
}
