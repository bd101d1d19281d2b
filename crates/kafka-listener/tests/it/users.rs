//! A listener that asks for passwords, and clients that have some.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use drover_kafka_listener::{Authenticator, ListenerConfig, NotAdmitted, Principal, SaslSsl, Security, Unavailable};
use drover_types::TenantId;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::broker::Broker;
use crate::raw::RawClient;

/// Passwords; topic `hot` is claimed by `home`, others belong to whom they are named for.
#[derive(Default)]
pub struct Users {
    known: Mutex<BTreeMap<(String, String), Principal>>,
    pub is_away: AtomicBool,
}

impl Users {
    pub fn forget(&self, user: &str) {
        self.known.lock().expect("no panic").retain(|(known, _), _| known != user);
    }

    fn answers(&self) -> Result<(), Unavailable> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(Unavailable { reason: "it is away".to_owned() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Authenticator for Users {
    async fn authenticate(&self, user: &str, password: &str) -> Result<Principal, NotAdmitted> {
        self.answers()?;
        let known = self.known.lock().expect("no panic");
        known.get(&(user.to_owned(), password.to_owned())).cloned().ok_or(NotAdmitted::Unknown)
    }

    async fn owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, Unavailable> {
        self.answers()?;
        let owner = |topic: &String| match topic.as_str() {
            "hot" => TenantId::new("home").ok(),
            other => TenantId::new(other.split_once('.')?.0).ok(),
        };
        Ok(topics.iter().map(owner).collect())
    }
}

/// A listener with a certificate of its own, for `localhost` and 127.0.0.1.
pub struct Secured {
    pub broker: Broker,
    pub users: Arc<Users>,
    pub certificate_pem: String,
    certificate: CertificateDer<'static>,
}

/// What a listener with these users is told, and its certificate.
pub fn config(users: &Arc<Users>, rest: ListenerConfig) -> (ListenerConfig, rcgen::Certificate) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).expect("made");
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let server = server.expect("it has them").with_no_client_auth().with_single_cert(vec![cert.der().clone()], key);
    let server = Arc::new(server.expect("a certificate with its key"));
    let security = SaslSsl { tls: Arc::new(move || server.clone()), authenticator: users.clone() };
    (ListenerConfig { security: Security::SaslSsl(security), ..rest }, cert)
}

impl Secured {
    /// With the users `home` and `away` (their passwords are `s3cret`), `guest` of tenant `home` who may only read, and
    /// `admin`.
    pub async fn start(rest: ListenerConfig) -> Self {
        let users = Arc::new(Users::default());
        let tenant = |tenant: &str, may_write| {
            let tenant = TenantId::new(tenant).expect("a tenant");
            Principal::Tenant { tenant, may_write }
        };
        for (user, principal) in [
            ("home", tenant("home", true)),
            ("away", tenant("away", true)),
            ("guest", tenant("home", false)),
            ("admin", Principal::Administrator),
        ] {
            let login = (user.to_owned(), "s3cret".to_owned());
            users.known.lock().expect("no panic").insert(login, principal);
        }
        let (config, certificate) = config(&users, rest);
        let (certificate_pem, certificate) = (certificate.pem(), certificate.der().clone());
        Self { broker: Broker::start_with(config).await, users, certificate_pem, certificate }
    }

    /// A client that has shaken hands over TLS, under this name of the listener.
    pub async fn connect_to(&self, name: &'static str) -> RawClient<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.expect("it has them").with_root_certificates(roots).with_no_client_auth();
        let socket = TcpStream::connect(self.broker.address).await.expect("connects");
        let name = ServerName::try_from(name).expect("a name");
        let stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await.expect("a handshake");
        RawClient::over(stream)
    }

    pub async fn connect(&self) -> RawClient<TlsStream<TcpStream>> {
        self.connect_to("localhost").await
    }

    /// A client that is known as `user`.
    pub async fn known(&self, user: &str) -> RawClient<TlsStream<TcpStream>> {
        let mut client = self.connect().await;
        let answer = authenticate(&mut client, 2, user, "s3cret").await;
        assert_eq!(answer.error_code, 0, "{user}: {answer:?}");
        client
    }
}

pub async fn handshake(client: &mut RawClient<TlsStream<TcpStream>>, version: i16) -> SaslHandshakeResponse {
    client.call(version, &SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"))).await
}

/// What a client says to be known by.
pub fn said(user: &str, password: &str) -> Bytes {
    format!("\0{user}\0{password}").into()
}

/// Handshake and password; the answer to the latter.
pub async fn authenticate(
    client: &mut RawClient<TlsStream<TcpStream>>,
    version: i16,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse {
    assert_eq!(handshake(client, 1).await.error_code, 0);
    client.call(version, &SaslAuthenticateRequest::default().with_auth_bytes(said(user, password))).await
}
