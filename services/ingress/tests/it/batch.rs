//! Messages of many devices by one credential: each row is judged by itself, and what is kept is durable.

use std::time::Duration;

use drover_bus::{Bus, TopicPartition};
use drover_host::ByteSize;
use drover_ingress::config::IngressConfig;
use drover_mqtt::Version;
use drover_types::{Qos, TELEMETRY_TOPIC};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bus::Gate;
use crate::http::{TOKEN, records, send};
use crate::stage::Stage;

/// A stage whose gateway may speak for devices `m-…`.
async fn stage(change: impl FnOnce(&mut IngressConfig)) -> Stage {
    let stage = Stage::with(change).await;
    stage.registry.allow(&["#"], &["#"]);
    stage.registry.allow_for(&["m-*"]);
    stage.registry.credential(TOKEN, "gw");
    stage
}

async fn post(stage: &Stage, body: &str) -> (u16, Value) {
    let authorization = format!("Bearer {TOKEN}");
    let (status, answer) = send(stage, "POST", "/v1/batch", &[("authorization", &authorization)], body).await;
    (status, serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{status}: {answer}")))
}

fn row(device: &str, payload: impl std::fmt::Display) -> String {
    format!(r#"{{"device":"{device}","topic":"t/{device}","payload":{payload}}}"#)
}

/// Lines of the refused rows with their codes.
fn refused(answer: &Value) -> Vec<(u64, String)> {
    let row = |refused: &Value| {
        let code = refused["error"]["code"].as_str().expect("a code").to_owned();
        (refused["row"].as_u64().expect("a number"), code)
    };
    answer["refused"].as_array().expect("a list").iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_log_under_their_own_devices_and_times() {
    let stage = stage(|_| ()).await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("a/#", Qos::AtLeastOnce).await;
    let body = concat!(
        r#"{"device":"m-1","topic":"a/b","payload":{"t": 1.50},"time":1700000000000,"qos":0}"#,
        "\r\n\n",
        r#"{"device":"m-2","topic":"a/c","payload_b64":"AP8=","time":"2023-11-14T22:13:20.5Z","id":"x-1"}"#,
        "\n",
        r#"{"device":"m-1","topic":"a/d","payload":"on"}"#,
    );
    assert_eq!(post(&stage, body).await, (200, json!({"kept": 3, "refused": []})));
    let kept = records(&stage).await;
    let of = |i: usize| (kept[i].device.as_str(), kept[i].topic.as_str(), &kept[i].payload[..], kept[i].qos);
    assert_eq!(of(0), ("m-1", "a/b", &br#"{"t": 1.50}"#[..], Qos::AtMostOnce));
    assert_eq!(of(1), ("m-2", "a/c", &[0, 0xff][..], Qos::AtLeastOnce));
    assert_eq!(of(2), ("m-1", "a/d", &b"on"[..], Qos::AtLeastOnce));
    assert_eq!((kept[0].time_ms, kept[1].time_ms), (1_700_000_000_000, 1_700_000_000_500));
    assert_eq!((kept[0].client.as_str(), kept[0].content_type.as_deref()), ("http:gw/m-1", Some("application/json")));
    assert_eq!(kept[1].properties, [("drover-id".to_owned(), "x-1".to_owned())]);
    assert!(kept[2].time_ms > 1_790_000_000_000 || kept[2].time_ms > kept[1].time_ms, "without a time it is now");
    assert_eq!(subscriber.message().await, "{\"t\": 1.50}");

    // The log keeps them as of now: a row about last year is not the first that its retention removes.
    let at = TopicPartition::new(TELEMETRY_TOPIC, 0);
    let stored = stage.bus.read(&at, 0, 1 << 20, Duration::ZERO).await.expect("readable");
    assert!(stored.iter().all(|stored| stored.record.timestamp_ms > 1_700_000_001_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_costs_nobody_else() {
    let stage = stage(|config| config.limits.payload = ByteSize::from_bytes(16)).await;
    stage.registry.disabled.lock().expect("not poisoned").insert("m-off".to_owned());
    let rows = [
        row("m-1", 1),
        row("other", 2),                                               // 2: not one of the gateway's
        "no row".to_owned(),                                           // 3
        row("m-off", 4),                                               // 4: disabled
        r#"{"device":"m-1","topic":"$SYS/x","payload":5}"#.to_owned(), // 5: not allowed to itself
        r#"{"device":"m-1","topic":"a/#","payload":6}"#.to_owned(),    // 6: no topic
        row("m-1", "\"12345678901234567\""),                           // 7: one byte over the limit
        row("m-2", "\"1234567890123456\""),                            // 8: at the limit
        row("m-2", 9),
        format!("{{{}}}", " ".repeat(9_000)), // 10: longer than a line may be
        row("gw", 11),                        // 11: its own messages go by /v1/topics
    ];
    let (status, answer) = post(&stage, &rows.join("\n")).await;
    let expected = [
        (3, "invalid_argument"),
        (10, "invalid_argument"),
        (2, "permission_denied"),
        (4, "permission_denied"),
        (5, "permission_denied"),
        (6, "invalid_argument"),
        (7, "invalid_argument"),
        (11, "permission_denied"),
    ];
    let mut found = refused(&answer);
    found.sort_unstable();
    let mut expected = expected.map(|(row, code)| (row, code.to_owned()));
    expected.sort_unstable();
    assert_eq!((status, answer["kept"].as_u64(), found.as_slice()), (207, Some(3), &expected[..]), "{answer}");
    assert_eq!(stage.payloads().await, ["1", "1234567890123456", "9"]);
    stage.metric(r#"drover_ingress_batch_rows_total{outcome="kept"} 3"#).await;
    stage.metric(r#"drover_ingress_batch_rows_total{outcome="refused"} 8"#).await;
    stage.metric(r#"drover_ingress_http_requests_total{route="batch",status="207"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_nothing_is_kept_has_the_status_of_its_first_reason() {
    let stage = stage(|_| ()).await;
    let (status, answer) = post(&stage, &row("other", 1)).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (403, Some("permission_denied")), "{answer}");
    assert_eq!(answer["error"]["field"], "device");
    for (body, status) in [("", 400), ("\n\n", 400), ("{}", 400)] {
        assert_eq!(post(&stage, body).await.0, status, "{body:?}");
    }
    let (status, _) = send(&stage, "POST", "/v1/batch", &[("authorization", "Bearer wrong")], &row("m-1", 1)).await;
    assert_eq!(status, 401);
    assert_eq!(send(&stage, "GET", "/v1/batch", &[], "").await.0, 501);
    assert!(stage.payloads().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_over_the_limit_are_told_and_those_before_are_kept() {
    let stage = stage(|config| config.http.batch_rows = 3).await;
    let rows: Vec<String> = (1..=4).map(|n| row("m-1", n)).collect();
    assert_eq!(post(&stage, &rows[..3].join("\n")).await.0, 200, "at the limit");
    let (status, answer) = post(&stage, &rows.join("\n")).await;
    assert_eq!(
        (status, answer["kept"].as_u64(), answer["stopped"]["row"].as_u64()),
        (207, Some(3), Some(4)),
        "{answer}"
    );
    assert_eq!(answer["stopped"]["error"]["limit"], "3");
    assert_eq!(stage.payloads().await, ["1", "2", "3", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_before_it_is_read_or_where_it_passes_it() {
    let stage = stage(|config| config.http.batch_bytes = ByteSize::from_bytes(200)).await;
    let long = [row("m-1", 1), row("m-1", format!("\"{}\"", "x".repeat(200)))].join("\n");
    assert_eq!(post(&stage, &long).await.0, 400);
    assert!(stage.payloads().await.is_empty(), "it said how long it is");

    let mut chunked = TcpStream::connect(stage.http.expect("bound")).await.expect("listening");
    let head = format!(
        "POST /v1/batch HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    chunked.write_all(head.as_bytes()).await.expect("connected");
    for part in [row("m-1", 1) + "\n", long] {
        chunked.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await.expect("connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    chunked.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 207") && answer.contains(r#""stopped":{"row":2"#), "{answer}");
    assert_eq!(stage.payloads().await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_one_part_are_kept_in_order() {
    let stage = stage(|_| ()).await;
    let rows: Vec<String> = (0..1_234).map(|n| row(&format!("m-{}", n % 7), n)).collect();
    let (status, answer) = post(&stage, &rows.join("\n")).await;
    assert_eq!((status, answer["kept"].as_u64()), (200, Some(1_234)), "{answer}");
    let expected: Vec<String> = (0..1_234).map(|n| n.to_string()).collect();
    assert_eq!(stage.payloads().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_hangs_nothing_is_said_to_be_kept() {
    let patience = |config: &mut IngressConfig| config.http.request = drover_host::Duration::from_millis(200);
    let stage = stage(patience).await;
    stage.bus.set(Gate::Hanging);
    let (status, answer) = post(&stage, &[row("m-1", 1), row("m-1", 2)].join("\n")).await;
    assert_eq!(
        (status, answer["kept"].as_u64(), answer["stopped"]["row"].as_u64()),
        (504, Some(0), Some(1)),
        "{answer}"
    );
    stage.bus.set(Gate::Failing);
    let (status, answer) = post(&stage, &[row("other", 0), row("m-1", 1)].join("\n")).await;
    assert_eq!((status, answer["stopped"]["row"].as_u64()), (503, Some(1)), "{answer}");
    assert_eq!(answer["stopped"]["error"]["code"], "unavailable");
}
