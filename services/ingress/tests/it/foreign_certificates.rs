//! Client certificates that others than the platform have issued: the handshake checks that they are the client's, and the
//! registry is asked whose they are.

use std::sync::Arc;

use drover_mqtt::{Connect, Packet, ReasonCode, Version};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::stage::{Client, Stage};
use crate::tls::Pki;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// An authority that the platform does not know.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Works");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A certificate of it, and its key.
fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "lamp");
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    (params.signed_by(&key, authority).expect("a certificate").der().clone(), key)
}

/// Shows what it is told to, whatever the server asks for.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The answer to the CONNECT of a client that shows these certificates and signs with this key; `None`: its handshake is
/// refused, of which a client hears after its own part of it in TLS 1.3.
async fn answer(
    pki: &Pki,
    stage: &Stage,
    version: &'static SupportedProtocolVersion,
    chain: &[CertificateDer<'static>],
    key: &KeyPair,
) -> Option<ReasonCode> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let certified = CertifiedKey::new(chain.to_vec(), any_supported_type(&key).expect("a key"));
    let mut config = pki.client_config(None, version);
    config.client_auth_cert_resolver = Arc::new(Shows(Arc::new(certified)));
    let stream = TcpStream::connect(stage.mqtts.expect("a TLS listener")).await.expect("listening");
    let mut client = Client::new(pki.handshake_over(stream, config).await.ok()?, Version::V311);
    let connect = client.encode(&[Packet::Connect(Connect::new(Version::V311, "lamp"))]);
    client.stream.write_all(&connect).await.ok()?;
    let reason = |packet: Packet<'_>| match packet {
        Packet::ConnAck(ack) => ack.reason,
        other => panic!("unexpected {other:?}"),
    };
    client.read(reason).await
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_the_registrys_to_judge_by_all_that_was_shown() {
    let (pki, works) = (Pki::new(), authority());
    let stage = pki.stage_with(|_| ()).await;
    let (certificate, key) = issue(&works, |_| ());
    let chain = [certificate.clone(), works.der().clone()];
    for version in VERSIONS {
        let refused = answer(&pki, &stage, version, &chain, &key).await;
        assert_eq!(refused, Some(ReasonCode::BadUserNameOrPassword));
    }
    stage.registry.credential(Sha256::digest(&certificate).to_vec(), "lamp");
    for version in VERSIONS {
        assert_eq!(answer(&pki, &stage, version, &chain, &key).await, Some(ReasonCode::Success));
    }
    let asked = stage.registry.chains.lock().expect("not poisoned").clone();
    let shown: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_vec()).collect();
    assert!(asked.len() >= 3 && asked.iter().all(|asked| *asked == shown), "{}", asked.len());
}

#[tokio::test]
async fn what_is_not_the_clients_not_for_clients_not_in_force_or_too_much_is_refused_in_the_handshake() {
    let (pki, works) = (Pki::new(), authority());
    let stage = pki.stage_with(|_| ()).await;
    let (good, key) = issue(&works, |_| ());
    let (_, other_key) = issue(&works, |_| ());
    let (ended, ended_key) = issue(&works, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let (server, server_key) =
        issue(&works, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let between = works.der().clone();
    let long = CertificateDer::from(vec![0; 16 * 1024]);
    for version in VERSIONS {
        for (chain, key) in [
            (vec![good.clone()], &other_key),
            (vec![ended.clone()], &ended_key),
            (vec![server.clone()], &server_key),
            (vec![good.clone(), between.clone(), between.clone(), between.clone(), between.clone()], &key),
            (vec![good.clone(), long.clone()], &key),
        ] {
            assert_eq!(answer(&pki, &stage, version, &chain, key).await, None, "{} certificates", chain.len());
        }
        let most = [good.clone(), between.clone(), between.clone(), between.clone()];
        assert_eq!(answer(&pki, &stage, version, &most, &key).await, Some(ReasonCode::BadUserNameOrPassword));
    }
}
