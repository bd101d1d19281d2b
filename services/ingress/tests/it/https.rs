//! HTTP over TLS, and MQTT over a WebSocket over TLS.

use std::io::ErrorKind;

use drover_mqtt::{Connect, Packet, Version};
use drover_types::Qos;
use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::stage::{Client, Stage};
use crate::tls::Pki;
use crate::websocket;

const TOKEN: &str = "drv_secret";

/// A connection as browsers make it, with the device's certificate if it has one.
async fn connect(pki: &Pki, stage: &Stage, device: Option<&(rcgen::Certificate, KeyPair)>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(stage.https.expect("a listener of HTTPS")).await.expect("listening");
    let mut config = pki.client_config(device, &rustls::version::TLS13);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    pki.handshake_over(stream, config).await.expect("handshake")
}

/// Posts with these headers; the answer.
async fn post(mut stream: TlsStream<TcpStream>, headers: &str) -> String {
    let head = "POST /v1/topics/a/b HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n";
    stream.write_all(format!("{head}{headers}\r\n21").as_bytes()).await.expect("connected");
    let mut answer = [0; 1024];
    let len = stream.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

/// A client over a WebSocket over TLS that has said nothing yet.
async fn wss(pki: &Pki, stage: &Stage, device: Option<&(rcgen::Certificate, KeyPair)>) -> Client<DuplexStream> {
    let mut request = "ws://localhost/mqtt".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = client_async(request, connect(pki, stage, device).await).await.expect("upgraded");
    websocket::client(socket, Version::V5)
}

#[tokio::test]
async fn a_device_posts_over_tls() {
    let pki = Pki::new();
    let stage = pki.stage_with(|_| ()).await;
    stage.registry.credential(TOKEN, "lamp");
    for (token, status) in [(TOKEN, "HTTP/1.1 200"), ("wrong", "HTTP/1.1 401")] {
        let stream = connect(&pki, &stage, None).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        let answer = post(stream, &format!("authorization: Bearer {token}\r\n")).await;
        assert!(answer.starts_with(status), "{answer}");
    }
    assert_eq!(stage.payloads().await, ["21"]);
}

#[tokio::test]
async fn a_certificate_says_whose_a_post_is_whatever_its_header_says() {
    let pki = Pki::new();
    let stage = pki.stage_with(|_| ()).await;
    let (device, stranger) = (pki.issue("anything"), pki.issue("stranger"));
    stage.registry.credential(Sha256::digest(device.0.der()).to_vec(), "lamp");
    stage.registry.credential(TOKEN, "door");
    for (shown, status) in [(&device, "HTTP/1.1 200"), (&stranger, "HTTP/1.1 401")] {
        let stream = connect(&pki, &stage, Some(shown)).await;
        let answer = post(stream, &format!("authorization: Bearer {TOKEN}\r\n")).await;
        assert!(answer.starts_with(status), "{answer}");
    }
    let kept = crate::http::records(&stage).await;
    assert_eq!(kept.iter().map(|kept| kept.device.as_str()).collect::<Vec<_>>(), ["lamp"]);
}

#[tokio::test]
async fn messages_of_all_sizes_cross_a_websocket_over_tls_in_both_directions() {
    let pki = Pki::new();
    let stage = pki.stage_with(|_| ()).await;
    stage.registry.credential(TOKEN, "lamp");
    let mut client = wss(&pki, &stage, None).await;
    let password = Some(TOKEN.as_bytes());
    let hello = Connect { user_name: Some("lamp"), password, ..Connect::new(Version::V5, "lamp") };
    client.send(&Packet::Connect(hello)).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    client.subscribe("t", Qos::AtMostOnce).await;
    for (id, bytes) in [(1, 1), (2, 200_000), (3, 17)] {
        client.publish_and_hear(id, "t", &"x".repeat(bytes)).await;
    }
}

#[tokio::test]
async fn a_certificate_says_who_a_device_is_also_over_a_websocket() {
    let pki = Pki::new();
    let stage = pki.stage_with(|config| config.anonymous = drover_ingress::config::AnonymousAccess::Off).await;
    let device = pki.issue("anything");
    stage.registry.credential(Sha256::digest(device.0.der()).to_vec(), "lamp");
    let mut client = wss(&pki, &stage, Some(&device)).await;
    client.send(&Packet::Connect(Connect::new(Version::V5, "lamp"))).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    let mut stranger = wss(&pki, &stage, None).await;
    stranger.send(&Packet::Connect(Connect::new(Version::V5, "lamp"))).await;
    stranger.expect(|packet| matches!(packet, Packet::ConnAck(ack) if ack.reason.is_error())).await;
}

#[tokio::test]
async fn a_handshake_that_stops_costs_only_itself_and_not_for_long() {
    let pki = Pki::new();
    let stage = pki.stage_with(|config| config.timeouts.connect = drover_host::Duration::from_millis(500)).await;
    let mut half = TcpStream::connect(stage.https.expect("a listener of HTTPS")).await.expect("listening");
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("connected"); // a ClientHello begins
    connect(&pki, &stage, None).await;
    let end = half.read_to_end(&mut Vec::new()).await;
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}
