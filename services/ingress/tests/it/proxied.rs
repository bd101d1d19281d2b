//! Behind a load balancer that speaks the PROXY protocol: TCP, TLS and WebSocket.

use std::time::Duration;

use drover_mqtt::{Connect, Packet, Version};
use drover_proto::ingress::v1::presence_report::What;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::stage::{Client, Stage};
use crate::tls::Pki;
use crate::websocket;

/// Version 2, for a client at 192.0.2.7:4711, with a value of type 0xe0 that only the balancer knows.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\x0a\0\0\x01\x12\x67\x07\x5b\xe0\0\x01\x2a";
const SOURCE: &str = "192.0.2.7:4711";

/// An ingress that takes everybody on this machine for a balancer.
async fn behind_balancers() -> Stage {
    Stage::with(|config| config.proxy_protocol_from = vec!["127.0.0.0/8".to_owned()]).await
}

async fn balancer(address: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(HEADER).await.expect("connected");
    stream
}

/// Where presence says that the one client of `stage` is.
async fn peer(stage: &Stage) -> String {
    let connected = |what: Option<What>| match what {
        Some(What::Connected(connected)) => Some(connected.peer),
        Some(What::Disconnected(_) | What::NodeStarted(_)) | None => None,
    };
    stage.reports(1).await.into_iter().find_map(|report| connected(report.what)).expect("a client has connected")
}

/// What is read to the end of a connection, which may be a reset.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    rest
}

#[tokio::test]
async fn the_client_is_known_by_its_own_address() {
    let stage = behind_balancers().await;
    let mut client = Client::new(balancer(stage.mqtt).await, Version::V5);
    client.send(&Packet::Connect(Connect::new(Version::V5, "lamp"))).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    client.publish(1, "t", "x").await;
    client.expect_acks([1]).await;
    assert_eq!(peer(&stage).await, SOURCE);
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let pki = Pki::new();
    let stage = pki.stage_with(|config| config.proxy_protocol_from = vec!["127.0.0.1".to_owned()]).await;
    stage.registry.credential("secret", "lamp");
    let stream = balancer(stage.mqtts.expect("a TLS listener")).await;
    let config = pki.client_config(None, &rustls::version::TLS13);
    let mut client = Client::new(pki.handshake_over(stream, config).await.expect("handshake"), Version::V311);
    let connect = Connect { user_name: Some("lamp"), password: Some(b"secret"), ..Connect::new(Version::V311, "lamp") };
    client.send(&Packet::Connect(connect)).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    assert_eq!(peer(&stage).await, SOURCE);
}

#[tokio::test]
async fn a_websocket_is_known_by_its_own_address() {
    let stage = behind_balancers().await;
    let address = stage.http.expect("bound");
    let mut request = format!("ws://{address}/mqtt").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = client_async(request, balancer(address).await).await.expect("upgraded");
    let mut client = websocket::client(socket, Version::V5);
    client.send(&Packet::Connect(Connect::new(Version::V5, "lamp"))).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    assert_eq!(peer(&stage).await, SOURCE);
}

#[tokio::test]
async fn a_websocket_over_tls_is_known_by_its_own_address() {
    let pki = Pki::new();
    let stage = pki.stage_with(|config| config.proxy_protocol_from = vec!["127.0.0.1".to_owned()]).await;
    let stream = balancer(stage.https.expect("a listener of HTTPS")).await;
    let config = pki.client_config(None, &rustls::version::TLS13);
    let stream = pki.handshake_over(stream, config).await.expect("handshake");
    let mut request = "ws://localhost/mqtt".into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = client_async(request, stream).await.expect("upgraded");
    let mut client = websocket::client(socket, Version::V5);
    client.send(&Packet::Connect(Connect::new(Version::V5, "lamp"))).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    assert_eq!(peer(&stage).await, SOURCE);
}

#[tokio::test]
async fn a_balancer_that_does_not_say_for_whom_it_connects_is_closed_in_time() {
    let stage = Stage::with(|config| {
        config.proxy_protocol_from = vec!["127.0.0.1".to_owned()];
        config.timeouts.connect = drover_host::Duration::from_millis(200);
    })
    .await;
    let mut silent = TcpStream::connect(stage.mqtt).await.expect("listening");
    let closed = tokio::time::timeout(Duration::from_secs(10), rest(&mut silent)).await;
    assert_eq!(closed.expect("in time"), Vec::<u8>::new());
    for wrong in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 1883\r\n"[..], b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01d......."]
    {
        let mut stream = TcpStream::connect(stage.mqtt).await.expect("listening");
        stream.write_all(wrong).await.expect("connected");
        assert_eq!(rest(&mut stream).await, Vec::<u8>::new(), "told nothing");
    }
    stage.metric(r#"drover_ingress_closes_total{reason="transport"} 3"#).await;
    stage.metric("drover_ingress_connections 0").await;
}

#[tokio::test]
async fn nobody_but_a_listed_balancer_may_speak_for_others() {
    let stage = Stage::with(|config| config.proxy_protocol_from = vec!["192.0.2.0/24".to_owned()]).await;
    let mut stream = balancer(stage.mqtt).await;
    assert_eq!(rest(&mut stream).await, Vec::<u8>::new());
    stage.metric("drover_ingress_connections 0").await;
    let client = stage.connect(Version::V5, "lamp").await;
    let own = client.stream.local_addr().expect("connected").to_string();
    assert_eq!(peer(&stage).await, own);
}
