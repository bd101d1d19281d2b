//! InfluxDB's line protocol by HTTP.

use std::io::ErrorKind;

use drover_types::limits::TOPIC_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{TOKEN, records, send};
use crate::stage::Stage;

const WRITE: &str = "/api/v2/write?org=o&bucket=b&precision=s";

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.registry.credential(TOKEN, "d");
    stage
}

async fn write(stage: &Stage, path: &str, body: &str) -> (u16, String) {
    send(stage, "POST", path, &[("authorization", &format!("Token {TOKEN}"))], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_become_messages_of_their_device_with_their_own_times() {
    let stage = stage().await;
    let first = "# from an agent\nclimate,room=kitchen temperature=21.50,count=3i 1700000000\n\n";
    assert_eq!(write(&stage, WRITE, &format!("{first}climate temperature=22\r\n")).await, (204, String::new()));
    let kept = records(&stage).await;
    let payloads: Vec<&[u8]> = kept.iter().map(|kept| &*kept.payload).collect();
    let expected = [r#"{"temperature":21.50,"count":3,"tags":{"room":"kitchen"}}"#, r#"{"temperature":22}"#];
    assert_eq!(payloads, expected.map(str::as_bytes));
    assert!(kept.iter().all(|kept| kept.topic.as_str() == "measurements/d/climate"));
    assert_eq!(kept[0].time_ms, 1_700_000_000_000);
    assert!(kept[1].time_ms > 1_700_000_000_000, "its time is that of its coming");
    assert_eq!((kept[0].device.as_str(), kept[0].content_type.as_deref()), ("d", Some("application/json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_lines_one_of_which_cannot_be_nothing_is_kept() {
    let stage = stage().await;
    let long = format!("m f=1\n{} f=1", "x".repeat(TOPIC_BYTES_MAX));
    for (path, body, field) in [
        (WRITE, "m f=1\nm f=one", "line"),
        (WRITE, "m f=1\nm f=1 99999999999", "line"),
        (WRITE, "m f=1\nm# f=1", "topic"),
        (WRITE, long.as_str(), "topic"),
        ("/api/v2/write?precision=days", "m f=1", "query"),
    ] {
        let (status, answer) = write(&stage, path, body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer["error"]["field"], field, "{answer}");
        let numbered = answer["error"]["message"].as_str().is_some_and(|message| message.starts_with("line 2: "));
        assert_eq!(numbered, field != "query", "{answer}");
    }
    let (status, _) = send(&stage, "POST", WRITE, &[("authorization", "Token wrong")], "m f=1").await;
    assert_eq!(status, 401);
    assert!(records(&stage).await.is_empty());
    stage.metric(r#"drover_ingress_http_requests_total{route="write",status="401"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_lines_as_allowed_are_kept_in_order_and_one_more_is_refused() {
    let stage = stage().await;
    let lines = |count: usize| (0..count).map(|n| format!("m n={n}i\n")).collect::<String>();
    let (status, answer) = write(&stage, WRITE, &lines(10_001)).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(write(&stage, WRITE, &lines(10_000)).await, (204, String::new()));
    stage.metric(r#"drover_ingress_messages_in_total{qos="1"} 10000"#).await;
    let kept = stage.payloads().await;
    assert!(
        kept.len() > 1 && kept.iter().enumerate().all(|(n, payload)| *payload == format!("{{\"n\":{n}}}")),
        "in their order"
    );
}

/// What a server says that waits for the body of a request.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Begins a request whose body does not come before the server asks for it.
async fn begin(stage: &Stage, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(stage.http.expect("bound")).await.expect("listening");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Token {TOKEN}\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.expect("connected");
    client
}

/// Returns when it is the request's turn.
async fn its_turn(client: &mut TcpStream) {
    let mut answer = [0; CONTINUE.len()];
    client.read_exact(&mut answer).await.expect("connected");
    assert_eq!(answer, CONTINUE);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_one_tenant_do_not_hold_up_another() {
    const OTHER: &str = "drv_other";
    let stage = stage().await;
    stage.registry.credential(OTHER, "other/d");
    let mut slow = Vec::new();
    for path in [WRITE, "/v1/batch"].into_iter().cycle().take(8) {
        let mut client = begin(&stage, path).await;
        its_turn(&mut client).await;
        slow.push(client);
    }
    let mut more = Vec::new();
    for _ in 0..8 {
        more.push(begin(&stage, WRITE).await);
    }
    let authorization = format!("Token {OTHER}");
    let answer = send(&stage, "POST", WRITE, &[("authorization", &authorization)], "m f=1").await;
    assert_eq!(answer, (204, String::new()));
    for client in &more {
        let early = client.try_read(&mut [0; CONTINUE.len()]);
        assert!(early.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "it is not its turn");
    }
    drop(slow);
    for client in &mut more {
        its_turn(client).await;
    }
}
