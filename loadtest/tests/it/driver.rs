//! The client driver: acknowledgements, redelivery, subscriptions and TLS.

use std::sync::Arc;
use std::time::Duration;

use drover_load::client::{Client, ConnectionError, Options, RequestError};
use drover_load::ledger::Ledger;
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::client::ClientOptions;
use drover_mqtt::{ReasonCode, Version};
use drover_types::Qos;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::server::{Faults, Server};

fn options(server: &Server, version: Version) -> Options {
    Options::new(server.target(), ClientOptions::new(version, "d"))
}

#[tokio::test]
async fn a_message_is_acknowledged_and_comes_back_to_its_subscriber() {
    for version in [Version::V311, Version::V5] {
        let server = Server::start(Faults::default()).await;
        let mut client = Client::connect(options(&server, version)).await.expect("connects");
        client.subscribe("a/#", Qos::AtLeastOnce).await.expect("granted");
        client.publish("a/b", b"hello", Qos::AtLeastOnce).await.expect("acknowledged");
        client.publish("a/c", b"again", Qos::AtMostOnce).await.expect("sent");
        let (first, second) = (client.next_message().await.expect("one"), client.next_message().await.expect("two"));
        assert_eq!((first.topic.as_str(), first.payload.as_slice()), ("a/b", &b"hello"[..]));
        assert_eq!(second.topic, "a/c");
        client.disconnect().await;
    }
}

#[tokio::test]
async fn messages_on_their_way_survive_a_cut_connection_and_are_redelivered_in_order() {
    let server = Server::start(Faults { cut_at_publish: Some(5), ..Faults::default() }).await;
    let client = Client::connect(options(&server, Version::V311)).await.expect("connects");
    let (publisher, mut ledger, mut pending) = (client.publisher(), Ledger::default(), Vec::new());
    for _ in 0..20 {
        let number = ledger.sent("d");
        let payload = number.to_string();
        pending.push((number, publisher.start("t", payload.as_bytes(), Qos::AtLeastOnce).await.expect("queued")));
    }
    for (number, pending) in pending {
        pending.acknowledged().await.expect("acknowledged");
        ledger.acknowledged("d", number);
    }
    assert_eq!(server.connections(), 2);
    assert!(server.seen().iter().any(|seen| seen.dup), "what was cut off is sent again with dup");
    for seen in server.seen() {
        ledger.received("t", "d", seen.payload.parse().expect("a number"));
    }
    let verdict = ledger.check();
    assert_eq!((verdict.lost.count, verdict.reordered.count, verdict.unexpected.count), (0, 0, 0), "{verdict}");
    assert!(verdict.doubled.count >= 1, "the cut message is seen twice: {verdict}");
}

#[tokio::test]
async fn a_subscription_cut_off_is_asked_for_again() {
    let server = Server::start(Faults { cut_at_subscribe: true, ..Faults::default() }).await;
    let mut client = Client::connect(options(&server, Version::V5)).await.expect("connects");
    client.subscribe("t", Qos::AtMostOnce).await.expect("granted on the second connection");
    client.publish("t", b"x", Qos::AtLeastOnce).await.expect("acknowledged");
    assert_eq!(client.next_message().await.expect("one").payload, b"x");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_refused_message_says_why() {
    let server = Server::start(Faults { refuse: true, ..Faults::default() }).await;
    let client = Client::connect(options(&server, Version::V5)).await.expect("connects");
    let refused = client.publish("t", b"x", Qos::AtLeastOnce).await;
    assert!(matches!(refused, Err(RequestError::Refused(ReasonCode::NotAuthorized))), "{refused:?}");
}

#[tokio::test]
async fn a_client_that_may_not_reconnect_ends_with_its_connection() {
    let server = Server::start(Faults { cut_at_publish: Some(1), ..Faults::default() }).await;
    let once = Options { reconnect_for: Duration::ZERO, ..options(&server, Version::V311) };
    let client = Client::connect(once).await.expect("connects");
    let gone = client.publish("t", b"x", Qos::AtLeastOnce).await;
    assert!(matches!(gone, Err(RequestError::Gone)), "{gone:?}");
    assert!(matches!(client.closed().await, ConnectionError::Closed | ConnectionError::Io(_)));
}

/// A certificate for 127.0.0.1 that is its own authority: the acceptor, and the certificate's file.
pub fn tls(directory: &std::path::Path) -> (tokio_rustls::TlsAcceptor, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let file = directory.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).expect("written");
    let chain = vec![CertificateDer::from(made.cert)];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a configuration");
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), file)
}

#[tokio::test]
async fn tls_trusts_the_authority_given_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let (acceptor, authority) = tls(directory.path());
    let server = Server::start_with(Faults::default(), Some(acceptor)).await;
    let connect = |authority| {
        let files = TlsFiles { authority: Some(authority), identity: None };
        let target = Target::new(&format!("mqtts://{}", server.address), &files).expect("readable files");
        Client::connect(Options::new(target, ClientOptions::new(Version::V311, "d")))
    };
    let client = connect(authority).await.expect("trusted");
    client.publish("t", b"x", Qos::AtLeastOnce).await.expect("acknowledged");
    let other = tempfile::tempdir().expect("a directory");
    let (_, other_authority) = tls(other.path());
    assert!(matches!(connect(other_authority).await, Err(ConnectionError::Io(_))));
}
