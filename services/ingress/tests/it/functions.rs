//! `POST /v1/functions/{name}`: foreign bodies become messages, or are refused whole.

use std::time::Duration;

use drover_bus::{Bus, TopicPartition};
use drover_mqtt::Version;
use drover_types::{Qos, TELEMETRY_TOPIC};
use serde_json::{Value, json};

use crate::http::{records, send};
use crate::stage::Stage;

const TOKEN: &str = "drv_hook";

/// A webhook of The Things Network, cut short.
const UPLINK: &str = r#"{"end_device_ids": {"device_id": "lora-1"}, "received_at": "2022-09-01T10:00:00.5Z",
    "uplink_message": {"f_port": 2, "decoded_payload": {"temperature": 21.5}}}"#;
const ADAPTER: &str = "function main(body) {
    return body.uplinks ? body.uplinks.map(main) : {
        device: body.end_device_ids.device_id,
        topic: 'lora/' + body.uplink_message.f_port,
        payload: body.uplink_message.decoded_payload,
        time: body.received_at,
    };
}";

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.registry.credential(TOKEN, "hook");
    stage.registry.function("ttn", ADAPTER);
    stage.registry.allow(&["lora/#"], &["#"]);
    stage.registry.allow_for(&["lora-*"]);
    stage
}

async fn post(stage: &Stage, name: &str, body: &str) -> (u16, Value) {
    let authorization = format!("Bearer {TOKEN}");
    let path = format!("/v1/functions/{name}");
    let (status, answer) = send(stage, "POST", &path, &[("authorization", &authorization)], body).await;
    (status, serde_json::from_str(&answer).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_webhook_becomes_messages_of_its_devices() {
    let stage = stage().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("lora/+", Qos::AtLeastOnce).await;
    let (status, answer) = post(&stage, "ttn", UPLINK).await;
    assert_eq!(status, 200, "{answer}");
    let kept = records(&stage).await;
    assert_eq!(answer, json!({"ids": [kept[0].id.to_string()]}));
    assert_eq!((kept[0].device.as_str(), kept[0].topic.as_str()), ("lora-1", "lora/2"));
    assert_eq!((kept[0].client.as_str(), kept[0].time_ms), ("http:hook", 1_662_026_400_500));
    assert_eq!(&kept[0].payload[..], br#"{"temperature":21.5}"#);
    // The log keeps it as of now: its retention does not remove what was measured long ago.
    let at = TopicPartition::new(TELEMETRY_TOPIC, 0);
    let stored = stage.bus.read(&at, 0, 1 << 20, Duration::ZERO).await.expect("readable");
    assert!(stored[0].record.timestamp_ms > 1_700_000_000_000);
    assert_eq!(subscriber.message().await, r#"{"temperature":21.5}"#);
    let two = json!({"uplinks": [serde_json::from_str::<Value>(UPLINK).expect("JSON"), {
        "end_device_ids": {"device_id": "lora-2"}, "uplink_message": {"f_port": 3, "decoded_payload": "on"}}]});
    assert_eq!(post(&stage, "ttn", &two.to_string()).await.1["ids"].as_array().map(Vec::len), Some(2));
    let kept = records(&stage).await;
    assert_eq!((kept[2].device.as_str(), &kept[2].payload[..]), ("lora-2", &b"on"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_published_of_what_is_refused() {
    let stage = stage().await;
    stage.registry.function("loop", "function main() { for (;;) {} }");
    stage.registry.function("none", "function main() {}");
    stage.registry.function("text", "function main(text) { return {topic: 'lora/x', payload: text}; }");
    stage.registry.disabled.lock().expect("not poisoned").insert("lora-off".to_owned());
    let uplink = |device: &str, port: &str| {
        json!({"uplinks": [serde_json::from_str::<Value>(UPLINK).expect("JSON"), {
            "end_device_ids": {"device_id": device}, "uplink_message": {"f_port": port, "decoded_payload": 1}}]})
        .to_string()
    };
    for (name, body, status, field) in [
        ("ttn", uplink("other", "2"), 403, json!("result[1].device")),
        ("ttn", uplink("lora-off", "2"), 403, json!("result[1].device")),
        ("ttn", uplink("lora-1", "#"), 400, json!("result[1].topic")),
        ("ttn", "{}".to_owned(), 400, Value::Null),
        ("loop", "{}".to_owned(), 400, Value::Null),
        ("unknown", "{}".to_owned(), 404, Value::Null),
    ] {
        let (found, answer) = post(&stage, name, &body).await;
        assert_eq!((found, &answer["error"]["field"]), (status, &field), "{name} {body}: {answer}");
    }
    assert_eq!(send(&stage, "POST", "/v1/functions/ttn", &[], UPLINK).await.0, 401);
    assert_eq!(post(&stage, "none", "{}").await, (200, json!({"ids": []})));
    assert!(stage.payloads().await.is_empty());
    assert_eq!(post(&stage, "text", "a=1").await.0, 200, "the next call is not harmed");
    assert_eq!(stage.payloads().await, ["a=1"]);
}
