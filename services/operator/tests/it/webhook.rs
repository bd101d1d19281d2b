//! The webhook over real TLS, with the certificate that it has told the API server.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use drover_host::{Health, Metrics, Shutdown};
use drover_operator::webhook::{self, Parts};
use drover_operator::{Telemetry, WebhookConfig};
use drover_types::FixedClock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::cluster::{Call, Cluster};
use crate::stage::NOW_MS;

const HOST: &str = "drover-webhook.drover.svc";
const SECRET: &str = "/api/v1/namespaces/drover/secrets/drover-webhook";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/drover";
/// Longest wait for a write; only a failing test reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two objects as the chart makes them.
fn cluster() -> Cluster {
    let cluster = Cluster::default();
    let metadata = json!({"name": "drover-webhook", "namespace": "drover", "resourceVersion": "7"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"});
    cluster.answers(Method::GET, SECRET, 200, secret);
    let asked = json!({
        "name": "rules.drover.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"name": "drover-webhook", "namespace": "drover", "path": "/rules"}},
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "drover"}, "webhooks": [asked],
    });
    cluster.answers(Method::GET, CONFIGURATION, 200, configuration.clone());
    cluster.answers(Method::PATCH, CONFIGURATION, 200, configuration);
    cluster
}

/// Starts it; answers its port and what it wrote: the Secret, and what the API server is told.
async fn started(cluster: &Cluster, now_ms: u64) -> (u16, Call, Call) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let port = listener.local_addr().expect("bound").port();
    let parts = Parts {
        config: WebhookConfig {
            listen: vec![([127, 0, 0, 1], port).into()],
            host: HOST.into(),
            secret: "drover-webhook".into(),
            configuration: "drover".into(),
        },
        namespace: "drover".into(),
        client: cluster.client(),
        clock: Arc::new(FixedClock::at(now_ms)),
        ready: Health::default().service("operator"),
        telemetry: Metrics::default().register(Telemetry::register),
    };
    tokio::spawn(webhook::run(parts, vec![listener], Shutdown::new()));
    let mut writes = Vec::new();
    let written = async {
        while writes.len() < 2 {
            writes.extend(cluster.writes().0);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("both are written");
    let told = writes.pop().expect("the second");
    (port, writes.pop().expect("the first"), told)
}

/// Base64 of the API server as text.
fn text(data: &Value) -> String {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(data.clone()).expect("base64");
    String::from_utf8(bytes.0).expect("text")
}

/// Asks as the API server does, which believes `bundle` alone; the answer to the review.
async fn ask(port: u16, bundle: &str, review: &Value) -> Value {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("known");
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("listening");
    let name = ServerName::try_from(HOST).expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("the certificate is believed");
    let body = review.to_string();
    let head = format!(
        "POST /rules?timeout=3s HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.expect("connected");
    let mut answer = Vec::new();
    // The server may leave out TLS's own farewell.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).expect("JSON")
}

fn review(sql: &str) -> Value {
    let spec = json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]});
    let object = json!({"apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "r"}, "spec": spec});
    let request = json!({"uid": "u-1", "operation": "CREATE", "object": object, "oldObject": null});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

#[tokio::test]
async fn a_rule_that_does_not_compile_is_refused_by_tls_with_line_and_column() {
    let cluster = cluster();
    let (_, secret, told) = started(&cluster, NOW_MS).await;
    assert_eq!((&secret.method, secret.path.as_str()), (&Method::PUT, SECRET));
    assert_eq!(secret.body["metadata"]["resourceVersion"], "7", "of two processes one is refused");
    let certificate = text(&secret.body["data"]["tls.crt"]);
    let bundle = &told.body["webhooks"][0];
    assert_eq!((bundle["name"].as_str(), told.path.as_str()), (Some("rules.drover.dev"), CONFIGURATION));
    assert_eq!(text(&bundle["clientConfig"]["caBundle"]), certificate);

    // That certificate is of the scripted time; one that is due is replaced.
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("after 1970");
    let cluster = self::cluster();
    let mut held = secret.body.clone();
    held["metadata"]["annotations"]["drover.dev/renew-at"] = json!("2020-01-01T00:00:00Z");
    cluster.answers(Method::GET, SECRET, 200, held);
    let (port, renewed, told) = started(&cluster, now_ms).await;
    let bundle = text(&told.body["webhooks"][0]["clientConfig"]["caBundle"]);
    assert_eq!(bundle, text(&renewed.body["data"]["tls.crt"]) + &certificate, "the former one is believed as well");

    let good = ask(port, &bundle, &review("SELECT * FROM 'a'")).await;
    assert_eq!(good["response"], json!({"uid": "u-1", "allowed": true}));
    let bad = ask(port, &bundle, &review("SELECT FROM 'a'")).await;
    assert_eq!(bad["response"]["allowed"], false);
    let message = bad["response"]["status"]["message"].as_str().expect("a message");
    assert!(message.starts_with("spec.sql: line 1, column "), "{message}");
}
