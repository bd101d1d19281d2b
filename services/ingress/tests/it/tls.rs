//! MQTT over TLS, with and without a client certificate.

use std::io::ErrorKind;
use std::sync::Arc;

use base64::Engine as _;
use drover_ingress::config::IngressConfig;
use drover_mqtt::{Connect, Packet, ReasonCode, Version};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{Client, Stage};

/// An authority, and the files of a server that has a certificate of it.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Pki {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let pki = Self { ca, dir: tempfile::tempdir().expect("a directory") };
        let (certificate, key) = pki.issue("localhost");
        pki.write("server.pem", &certificate.pem());
        pki.write("server.key", &key.serialize_pem());
        pki.write("ca.pem", &pki.ca.pem());
        pki
    }

    /// A certificate of this name, and its key.
    pub fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.signed_by(&key, &self.ca).expect("a certificate"), key)
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.dir.path().join(name), pem).expect("written");
    }

    async fn stage(&self) -> Stage {
        self.stage_with(|_| ()).await
    }

    pub async fn stage_with(&self, change: impl FnOnce(&mut IngressConfig)) -> Stage {
        let file = |name| Some(self.dir.path().join(name));
        let tls = |config: &mut IngressConfig| {
            config.tls.certificate = file("server.pem");
            config.tls.key = file("server.key");
            config.tls.client_ca = file("ca.pem");
            change(config);
        };
        Stage::with(tls).await
    }

    pub fn client_config(
        &self,
        client: Option<&(rcgen::Certificate, KeyPair)>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(roots);
        match client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        }
    }

    async fn handshake(
        &self,
        stage: &Stage,
        config: impl Into<Arc<ClientConfig>>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(stage.mqtts.expect("a TLS listener")).await.expect("listening");
        self.handshake_over(stream, config).await
    }

    pub async fn handshake_over(
        &self,
        stream: TcpStream,
        config: impl Into<Arc<ClientConfig>>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = "localhost".try_into().expect("a name");
        let config: Arc<ClientConfig> = config.into();
        TlsConnector::from(config).connect(name, stream).await
    }

    async fn connect(
        &self,
        stage: &Stage,
        client: Option<&(rcgen::Certificate, KeyPair)>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Client<TlsStream<TcpStream>> {
        let stream = self.handshake(stage, self.client_config(client, version)).await.expect("handshake");
        Client::new(stream, Version::V311)
    }
}

#[tokio::test]
async fn a_client_certificate_says_who_a_device_is() {
    let pki = Pki::new();
    let stage = pki.stage().await;
    let device = pki.issue("anything");
    stage.registry.credential(Sha256::digest(device.0.der()).to_vec(), "lamp");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = pki.connect(&stage, Some(&device), version).await;
        let connect = Connect { user_name: Some("ignored"), ..Connect::new(Version::V311, "lamp") };
        client.send(&Packet::Connect(connect)).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
        client.publish(1, "t", "x").await;
        client.expect_acks([1]).await;
    }
    let unknown = pki.issue("unknown");
    let mut client = pki.connect(&stage, Some(&unknown), &rustls::version::TLS13).await;
    client.send(&Packet::Connect(Connect::new(Version::V311, "lamp"))).await;
    client.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason == ReasonCode::BadUserNameOrPassword)).await;
}

#[tokio::test]
async fn a_client_without_a_certificate_may_use_a_token() {
    let pki = Pki::new();
    let stage = pki.stage().await;
    stage.registry.credential("secret", "lamp");
    let mut client = pki.connect(&stage, None, &rustls::version::TLS13).await;
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    client.send(&Packet::Connect(connect)).await;
    client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
}

#[tokio::test]
async fn clients_that_name_their_protocol_are_understood() {
    let pki = Pki::new();
    let stage = pki.stage().await;
    stage.registry.credential("secret", "lamp");
    for protocol in ["mqtt", "x-amzn-mqtt-ca"] {
        let mut config = pki.client_config(None, &rustls::version::TLS13);
        config.alpn_protocols = vec![b"http/1.1".to_vec(), protocol.as_bytes().to_vec()];
        let client = pki.handshake(&stage, config).await.expect("handshake");
        assert_eq!(client.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    }
    let mut other = pki.client_config(None, &rustls::version::TLS13);
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    assert!(pki.handshake(&stage, other).await.is_err(), "none of its protocols is spoken here");
}

#[tokio::test]
async fn a_certificate_that_is_replaced_counts_for_new_connections() {
    let pki = Pki::new();
    let stage = pki.stage().await;
    stage.registry.credential("secret", "lamp");
    let mut old = pki.connect(&stage, None, &rustls::version::TLS13).await;
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    old.send(&Packet::Connect(connect)).await;
    old.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    let (certificate, key) = pki.issue("localhost");
    pki.write("server.pem", "nonsense, for a moment");
    pki.write("server.key", &key.serialize_pem());
    pki.write("server.pem", &certificate.pem());
    loop {
        let client = pki.connect(&stage, None, &rustls::version::TLS13).await;
        let served = client.stream.get_ref().1.peer_certificates().expect("shown")[0].clone();
        if served == *certificate.der() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    old.publish(1, "t", "x").await;
    old.expect_acks([1]).await;
}

/// A node whose tickets are made with keys of these bytes, the second one the previous.
async fn with_ticket_keys(pki: &Pki, directory: &str, keys: &[u8]) -> Stage {
    let path = pki.dir.path().join(directory);
    std::fs::create_dir_all(&path).expect("made");
    for (name, byte) in ["current", "previous"].into_iter().zip(keys) {
        let key = base64::engine::general_purpose::STANDARD.encode([*byte; 32]);
        std::fs::write(path.join(name), key).expect("written");
    }
    let stage = pki.stage_with(|config| config.tls.ticket_keys = Some(path)).await;
    stage.registry.credential("secret", "lamp");
    stage
}

/// How a client that connects with what it has of before comes in. It reads, and so it has a ticket afterwards.
async fn comes_in(pki: &Pki, stage: &Stage, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let stream = pki.handshake(stage, config.clone()).await.expect("handshake");
    let kind = stream.get_ref().1.handshake_kind();
    let mut client = Client::new(stream, Version::V311);
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    client.send(&Packet::Connect(connect)).await;
    client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    kind
}

#[tokio::test]
async fn a_session_is_resumed_at_every_node_that_has_the_ticket_keys() {
    let pki = Pki::new();
    let first = with_ticket_keys(&pki, "first", &[1]).await;
    let second = with_ticket_keys(&pki, "second", &[1]).await;
    let rotated = with_ticket_keys(&pki, "rotated", &[2, 1]).await;
    let stranger = with_ticket_keys(&pki, "stranger", &[3]).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(pki.client_config(None, version));
        assert_eq!(comes_in(&pki, &first, &config).await, Some(HandshakeKind::Full));
        assert_eq!(comes_in(&pki, &first, &config).await, Some(HandshakeKind::Resumed));
        assert_eq!(comes_in(&pki, &second, &config).await, Some(HandshakeKind::Resumed));
        assert_eq!(comes_in(&pki, &rotated, &config).await, Some(HandshakeKind::Resumed), "by the previous key");
        assert_eq!(comes_in(&pki, &stranger, &config).await, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_client_that_comes_back_by_a_ticket_is_known_by_its_certificate() {
    let pki = Pki::new();
    let stage = with_ticket_keys(&pki, "keys", &[1]).await;
    let device = pki.issue("anything");
    stage.registry.credential(Sha256::digest(device.0.der()).to_vec(), "lamp");
    let config = Arc::new(pki.client_config(Some(&device), &rustls::version::TLS13));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let stream = pki.handshake(&stage, config.clone()).await.expect("handshake");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        let mut client = Client::new(stream, Version::V311);
        client.send(&Packet::Connect(Connect::new(Version::V311, "lamp"))).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    }
}

#[tokio::test]
async fn a_large_message_crosses_in_both_directions() {
    let pki = Pki::new();
    let stage = pki.stage().await;
    stage.registry.credential("secret", "lamp");
    let mut client = pki.connect(&stage, None, &rustls::version::TLS12).await;
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    client.send(&Packet::Connect(connect)).await;
    client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    client.subscribe("t", drover_types::Qos::AtMostOnce).await;
    let payload = "x".repeat(200_000);
    for id in 1..=3 {
        client.publish_and_hear(id, "t", &payload).await;
    }
}

#[tokio::test]
async fn a_handshake_that_stops_costs_only_itself_and_not_for_long() {
    let pki = Pki::new();
    let stage = pki.stage_with(|config| config.timeouts.connect = drover_host::Duration::from_millis(500)).await;
    let mut silent = TcpStream::connect(stage.mqtts.expect("a TLS listener")).await.expect("listening");
    let mut half = TcpStream::connect(stage.mqtts.expect("a TLS listener")).await.expect("listening");
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("connected"); // a ClientHello begins
    stage.registry.credential("secret", "lamp");
    let mut client = pki.connect(&stage, None, &rustls::version::TLS12).await;
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    client.send(&Packet::Connect(connect)).await;
    client.expect(|p| matches!(p, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    for stopped in [&mut silent, &mut half] {
        // It may be told by an alert.
        let end = stopped.read_to_end(&mut Vec::new()).await;
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    stage.metric(r#"drover_ingress_closes_total{reason="transport"} 2"#).await;
    stage.metric("drover_ingress_connections 1").await;
}
