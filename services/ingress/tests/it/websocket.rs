//! MQTT over WebSocket, on the HTTP listener: section 6 of MQTT 3.1.1 and 5.

use bytes::Bytes;
use drover_ingress::config::AnonymousAccess;
use drover_mqtt::{Connect, Packet, ReasonCode, Version, encode};
use drover_types::Qos;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::stage::{Client, Stage, qos1};

type Socket = WebSocketStream<TcpStream>;

const SUBPROTOCOL: &str = "sec-websocket-protocol";

fn request(stage: &Stage, headers: &[(&'static str, &'static str)]) -> Request<()> {
    let url = format!("ws://{}/mqtt", stage.http.expect("bound"));
    let mut request = url.into_client_request().expect("a request");
    for &(name, value) in headers {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

async fn tcp(stage: &Stage) -> TcpStream {
    TcpStream::connect(stage.http.expect("bound")).await.expect("listening")
}

/// A WebSocket on which nothing was said yet.
async fn open(stage: &Stage) -> Socket {
    let offered = request(stage, &[(SUBPROTOCOL, "soap, mqtt")]);
    let (socket, answer) = client_async(offered, tcp(stage).await).await.expect("upgraded");
    assert_eq!(answer.headers()[SUBPROTOCOL], "mqtt"); // [MQTT-6.0.0-4]
    socket
}

/// Status and body of the answer to a request that is not accepted.
async fn refused(stage: &Stage, headers: &[(&'static str, &'static str)]) -> (u16, String) {
    match client_async(request(stage, headers), tcp(stage).await).await {
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            (answer.status().as_u16(), String::from_utf8_lossy(body).into_owned())
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// A client whose bytes go through `socket`.
pub fn client<S>(socket: WebSocketStream<S>, version: Version) -> Client<DuplexStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(carry(socket, theirs));
    Client::new(ours, version)
}

/// Moves bytes until one end is gone.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, mut bytes: DuplexStream) {
    let mut buffer = vec![0; 4096];
    loop {
        let goes_on = tokio::select! {
            read = bytes.read(&mut buffer) => match read {
                Ok(0) | Err(_) => false,
                Ok(len) => socket.send(Message::binary(buffer[..len].to_vec())).await.is_ok(),
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(frame))) => bytes.write_all(&frame).await.is_ok(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => false,
                Some(Ok(_)) => true,
            },
        };
        if !goes_on {
            return;
        }
    }
}

/// A connected client without credentials.
async fn connect(stage: &Stage, version: Version, id: &str) -> Client<DuplexStream> {
    let mut client = client(open(stage).await, version);
    client.send(&Packet::Connect(Connect::new(version, id))).await;
    client.expect(|packet| matches!(packet, Packet::ConnAck(ack) if !ack.reason.is_error())).await;
    client
}

fn encoded(version: Version, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    packets.iter().for_each(|packet| encode(packet, version, &mut bytes).expect("valid"));
    bytes
}

/// Reads to the server's goodbye: its code and reason.
async fn goodbye(socket: &mut Socket) -> (u16, String) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.as_str().to_owned()),
            Some(Ok(_)) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_goes_from_one_websocket_to_another_and_is_acknowledged() {
    for version in [Version::V311, Version::V5] {
        let stage = Stage::new().await;
        let mut subscriber = connect(&stage, version, "s").await;
        subscriber.subscribe("sensors/+", Qos::AtLeastOnce).await;
        let mut publisher = connect(&stage, version, "p").await;
        let large = "x".repeat(200 * 1024);
        for (id, payload) in [(1, "22.5"), (2, large.as_str())] {
            publisher.publish(id, "sensors/t", payload).await;
            publisher.expect_acks([id]).await;
            assert!(subscriber.message().await == payload, "message {id}");
        }
        assert_eq!(stage.payloads().await.len(), 2);
        stage.metric("drover_ingress_connections 2").await;
        stage.metric(r#"drover_ingress_http_requests_total{route="mqtt",status="101"} 2"#).await;
    }
}

#[tokio::test]
async fn packets_may_be_split_over_frames_and_share_one() {
    let (stage, version) = (Stage::new().await, Version::V5);
    let mut socket = open(&stage).await;
    let split =
        encoded(version, &[Packet::Connect(Connect::new(version, "d")), Packet::Publish(qos1(1, "a", "first"))]);
    for part in split.chunks(3) {
        socket.send(Message::binary(part.to_vec())).await.expect("connected");
    }
    socket.send(Message::binary(Vec::new())).await.expect("connected");
    let shared = [2, 3].map(|id| Packet::Publish(qos1(id, "a", "shared")));
    socket.send(Message::binary(encoded(version, &shared))).await.expect("connected");
    let mut client = client(socket, version);
    client.expect(|packet| matches!(packet, Packet::ConnAck(_))).await;
    client.expect_acks([1, 2, 3]).await; // [MQTT-6.0.0-2]
    assert_eq!(stage.payloads().await, ["first", "shared", "shared"]);
}

#[tokio::test]
async fn a_frame_is_taken_as_it_comes_and_not_kept_until_it_is_whole() {
    let (stage, version) = (Stage::new().await, Version::V5);
    let large = "x".repeat(200 * 1024);
    let packets =
        encoded(version, &[Packet::Connect(Connect::new(version, "d")), Packet::Publish(qos1(1, "a", &large))]);
    let mut frame = Frame::message(packets, OpCode::Data(Data::Binary), true);
    frame.header_mut().mask = Some([7, 0, 255, 3]);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).expect("a frame");
    let mut socket = open(&stage).await;
    let (first, rest) = bytes.split_at(100);
    socket.get_mut().write_all(first).await.expect("connected");
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))), "a CONNACK, in the midst of the frame");
    socket.get_mut().write_all(rest).await.expect("connected");
    client(socket, version).expect_acks([1]).await;
    assert_eq!(stage.payloads().await, [large]);
}

#[tokio::test]
async fn a_websocket_that_does_not_read_costs_only_itself() {
    let stage = Stage::with(|config| config.timeouts.write = drover_host::Duration::from_secs(1)).await;
    let mut slow = open(&stage).await;
    let connect_packet = encoded(Version::V311, &[Packet::Connect(Connect::new(Version::V311, "slow"))]);
    slow.send(Message::binary(connect_packet)).await.expect("connected");
    assert!(matches!(slow.next().await, Some(Ok(Message::Binary(_)))), "a CONNACK");
    let mut list = drover_mqtt::SubscriptionList::default();
    let options = drover_mqtt::SubscriptionOptions::new(Qos::AtMostOnce);
    list.push(drover_mqtt::Subscription { filter: "t", options }).expect("short");
    let (properties, subscriptions) = (drover_mqtt::Properties::default(), list.as_subscriptions());
    let subscribe = drover_mqtt::Subscribe { packet_id: drover_mqtt::PacketId::MIN, properties, subscriptions };
    slow.send(Message::binary(encoded(Version::V311, &[Packet::Subscribe(subscribe)]))).await.expect("connected");
    assert!(matches!(slow.next().await, Some(Ok(Message::Binary(_)))), "a SUBACK");

    let mut quick = connect(&stage, Version::V311, "quick").await;
    quick.subscribe("t", Qos::AtMostOnce).await;
    let mut publisher = stage.connect(Version::V311, "p").await;
    let (payload, lost) = ("x".repeat(100_000), r#"drover_ingress_closes_total{reason="connection_lost"} 1"#);
    for id in (1..=u16::MAX).take_while(|_| !stage.metrics.encode().contains(lost)) {
        publisher.publish(id, "t", &payload).await;
        publisher.expect_acks([id]).await;
        assert_eq!(quick.message().await.len(), payload.len());
    }
    stage.metric(lost).await;
}

#[tokio::test]
async fn a_ping_is_answered_and_a_text_frame_closes_the_connection() {
    let stage = Stage::new().await;
    let mut socket = open(&stage).await;
    let ping = Bytes::from_static(b"there?");
    socket.send(Message::Ping(ping.clone())).await.expect("connected");
    assert_eq!(socket.next().await.expect("open").expect("a frame"), Message::Pong(ping));
    socket.send(Message::text("hello")).await.expect("connected");
    let told = "MQTT is sent in binary frames, this one is text";
    assert_eq!(goodbye(&mut socket).await, (1003, told.to_owned())); // [MQTT-6.0.0-1]
    assert!(socket.next().await.is_none());
    stage.metric("drover_ingress_connections 0").await;
}

#[tokio::test]
async fn a_request_without_the_subprotocol_or_from_a_foreign_page_is_refused() {
    let stage = Stage::new().await;
    for headers in [&[][..], &[(SUBPROTOCOL, "soap")]] {
        let (status, body) = refused(&stage, headers).await;
        assert!(status == 400 && body.contains("subprotocol `mqtt`"), "{status} {body}"); // [MQTT-6.0.0-3]
    }
    let foreign = [(SUBPROTOCOL, "mqtt"), ("origin", "http://evil.example")];
    assert_eq!(refused(&stage, &foreign).await.0, 403);
    let ours = request(&stage, &[(SUBPROTOCOL, "mqtt"), ("origin", "http://localhost:8080")]);
    client_async(ours, tcp(&stage).await).await.expect("upgraded");
}

#[tokio::test]
async fn a_frame_is_taken_at_the_limit_and_refused_over_it() {
    let stage = Stage::with(|config| config.limits.payload = drover_host::ByteSize::from_bytes(16)).await;
    let limit = 16 + 4_096 + 32 * 1_024; // payload, topic, properties
    let mut bytes = encoded(Version::V311, &[Packet::Connect(Connect::new(Version::V311, "dd"))]);
    while bytes.len() < limit {
        bytes.extend_from_slice(&[0xc0, 0]); // PINGREQ
    }
    assert_eq!(bytes.len(), limit);
    let mut socket = open(&stage).await;
    socket.send(Message::binary(bytes)).await.expect("connected");
    client(socket, Version::V311).expect(|packet| matches!(packet, Packet::ConnAck(_))).await;

    let mut socket = open(&stage).await;
    socket.send(Message::binary(vec![0; limit + 1])).await.expect("connected");
    assert_eq!(goodbye(&mut socket).await, (1009, format!("message has {} bytes, limit is {limit}", limit + 1)));
}

#[tokio::test]
async fn websockets_and_sockets_count_in_one_limit() {
    let stage = Stage::with(|config| config.limits.connections = 1).await;
    let connect_packet = encoded(Version::V5, &[Packet::Connect(Connect::new(Version::V5, "b"))]);
    let first = stage.connect(Version::V5, "a").await;
    let mut second = open(&stage).await;
    second.send(Message::binary(connect_packet)).await.expect("connected");
    assert_eq!(goodbye(&mut second).await.0, 1013);
    stage.metric("drover_ingress_connections_refused_total 1").await;

    drop(first);
    stage.metric("drover_ingress_connections 0").await;
    let _third = connect(&stage, Version::V5, "c").await;
    let mut fourth = stage.open(Version::V5).await;
    fourth.send(&Packet::Connect(Connect::new(Version::V5, "d"))).await;
    fourth.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason == ReasonCode::QuotaExceeded)).await;
}

#[tokio::test]
async fn who_says_nothing_is_closed_in_time_and_who_closes_without_a_word_is_lost() {
    let change = |config: &mut drover_ingress::config::IngressConfig| {
        config.timeouts.connect = drover_host::Duration::from_millis(500);
    };
    let stage = Stage::with(change).await;
    assert_eq!(goodbye(&mut open(&stage).await).await, (1002, "protocol_error".to_owned()));

    let connect_packet = encoded(Version::V311, &[Packet::Connect(Connect::new(Version::V311, "d"))]);
    let mut socket = open(&stage).await;
    socket.send(Message::binary(connect_packet)).await.expect("connected");
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))), "a CONNACK");
    socket.close(None).await.expect("connected");
    while let Some(Ok(_)) = socket.next().await {}
    stage.metric(r#"drover_ingress_closes_total{reason="connection_lost"} 1"#).await;
}

#[tokio::test]
async fn a_node_that_stops_says_that_it_goes_away() {
    let stage = Stage::new().await;
    let mut socket = open(&stage).await;
    let connect_packet = encoded(Version::V5, &[Packet::Connect(Connect::new(Version::V5, "d"))]);
    socket.send(Message::binary(connect_packet)).await.expect("connected");
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(_)))), "a CONNACK");
    stage.shutdown.cancel();
    assert_eq!(goodbye(&mut socket).await, (1001, "drain".to_owned()));
    while let Some(Ok(_)) = socket.next().await {}
    stage.running.await.expect("no panic").expect("drained");
}

#[tokio::test]
async fn a_client_without_credentials_is_admitted_as_its_listener_says() {
    let stage = Stage::with(|config| config.anonymous = AnonymousAccess::Off).await;
    stage.registry.credential("right", "d");
    for (password, admitted) in [(None, false), (Some(&b"right"[..]), true), (Some(&b"wrong"[..]), false)] {
        let mut client = client(open(&stage).await, Version::V5);
        let connect = Connect { user_name: password.map(|_| "d"), password, ..Connect::new(Version::V5, "d") };
        client.send(&Packet::Connect(connect)).await;
        client.expect(|p| matches!(p, Packet::ConnAck(ack) if ack.reason.is_error() != admitted)).await;
    }
}
