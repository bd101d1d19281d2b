//! Messages by HTTP: the same identity, policy, limits and log as by MQTT.

use std::time::Duration;

use drover_bus::{Bus, TopicPartition};
use drover_mqtt::Version;
use drover_types::{Qos, TELEMETRY_TOPIC, Telemetry};
use serde_json::Value;

use crate::bus::Gate;
use crate::stage::Stage;

pub const TOKEN: &str = "drv_secret";

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.registry.credential(TOKEN, "d");
    stage
}

/// Status and body of the answer.
pub async fn send(stage: &Stage, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", stage.http.expect("bound")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.to_owned()).expect("a request");
    let asking = tokio::task::spawn_blocking(move || {
        let mut response = agent.run(request).expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    });
    asking.await.expect("no panic")
}

async fn post(stage: &Stage, path: &str, body: &str) -> (u16, String) {
    send(stage, "POST", path, &[("authorization", &format!("Bearer {TOKEN}"))], body).await
}

pub async fn records(stage: &Stage) -> Vec<Telemetry> {
    let at = TopicPartition::new(TELEMETRY_TOPIC, 0);
    let stored = stage.bus.read(&at, 0, 64 << 20, Duration::ZERO).await.expect("readable");
    let read = |record: drover_bus::Record| {
        Telemetry::from_parts(record.value.clone().expect("a payload"), &record.headers).expect("telemetry")
    };
    stored.into_iter().map(|stored| read(stored.record)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_in_the_log_and_at_subscribers_when_it_is_answered() {
    let stage = stage().await;
    let mut subscriber = stage.connect(Version::V5, "s").await;
    subscriber.subscribe("a/+", Qos::AtLeastOnce).await;
    let (status, answer) = post(&stage, "/v1/topics/a/b", "{\"t\": 1.50}").await;
    assert_eq!(status, 200, "{answer}");
    let id = serde_json::from_str::<Value>(&answer).expect("JSON")["id"].as_str().expect("an id").to_owned();
    let kept = records(&stage).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].id.to_string(), kept[0].topic.as_str(), kept[0].device.as_str()), (id, "a/b", "d"));
    assert_eq!(
        (&kept[0].payload[..], kept[0].qos, kept[0].client.as_str()),
        (&b"{\"t\": 1.50}"[..], Qos::AtLeastOnce, "http:d")
    );
    assert_eq!(subscriber.message().await, "{\"t\": 1.50}");

    let basic = [("authorization", "Basic ZDpkcnZfc2VjcmV0"), ("content-type", "text/csv")];
    assert_eq!(send(&stage, "POST", "/v1/topics/x%20y/%C3%A9?qos=0", &basic, "1,2").await.0, 200);
    let kept = records(&stage).await;
    assert_eq!((kept[1].topic.as_str(), kept[1].qos), ("x y/é", Qos::AtMostOnce));
    assert_eq!(kept[1].content_type.as_deref(), Some("text/csv"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_as_thingspeak_has_it_is_answered_by_a_growing_number() {
    let stage = stage().await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let mut entries = Vec::new();
    for (method, path, headers, body) in [
        ("POST", format!("/update?api_key={TOKEN}"), &form[..], "field1=5&field2=on+air"),
        ("POST", "/update".to_owned(), &form[..], "api_key=drv_secret&field1=5.50"),
        ("POST", "/update".to_owned(), &[("X-THINGSPEAKAPIKEY", TOKEN)][..], "field8=-1"),
        ("GET", format!("/update?api_key={TOKEN}&field1=0"), &[][..], ""),
    ] {
        let (status, answer) = send(&stage, method, &path, headers, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        entries.push(answer.parse::<u64>().expect("a number"));
    }
    assert!(entries[0] > 0 && entries.is_sorted_by(|a, b| a < b), "{entries:?}");
    let expected = [r#"{"field1":5,"field2":"on air"}"#, r#"{"field1":5.50}"#, r#"{"field8":-1}"#, r#"{"field1":0}"#];
    assert_eq!(stage.payloads().await, expected);
    assert!(records(&stage).await.iter().all(|record| record.topic.as_str() == "channels/d/update"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_refused_is_answered_by_nothing_but_0() {
    let stage = stage().await;
    let huge = format!("field1={}", "x".repeat(16 * 1024));
    for (path, body, expected) in [
        ("/update?api_key=wrong", "field1=5", 400),
        ("/update", "field1=5", 400),
        ("/update?api_key=drv_secret", "", 400),
        ("/update?api_key=drv_secret", "fieldx=5", 400),
        ("/update?api_key=drv_secret", huge.as_str(), 400),
    ] {
        let answer = send(&stage, "POST", path, &[], body).await;
        assert_eq!(answer, (expected, "0".to_owned()), "{path} {}", body.len());
    }
    assert!(stage.payloads().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_posted_is_refused_in_the_one_shape() {
    let stage = Stage::with(|config| config.limits.payload = drover_host::ByteSize::from_bytes(16));
    let stage = stage.await;
    stage.registry.credential(TOKEN, "d");
    let authorization = format!("Bearer {TOKEN}");
    let authorized = [("authorization", authorization.as_str())];
    let long = format!("/v1/topics/{}", "x".repeat(drover_types::limits::TOPIC_BYTES_MAX + 1));
    for (method, path, headers, body, status, code) in [
        ("POST", "/v1/topics/a", &[][..], "1", 401, "unauthenticated"),
        ("POST", "/v1/topics/a", &[("authorization", "Bearer wrong")], "1", 401, "unauthenticated"),
        ("POST", "/v1/topics/$SYS/a", &authorized, "1", 403, "permission_denied"),
        ("POST", "/v1/topics/a%2F%23", &authorized, "1", 400, "invalid_argument"),
        ("POST", "/v1/topics/%FF", &authorized, "1", 400, "invalid_argument"),
        ("POST", long.as_str(), &authorized, "1", 400, "invalid_argument"),
        ("POST", "/v1/topics/a?qos=2", &authorized, "1", 400, "invalid_argument"),
        ("POST", "/v1/topics/a?q=1", &authorized, "1", 400, "invalid_argument"),
        ("POST", "/v1/topics/a", &authorized, "12345678901234567", 400, "invalid_argument"),
        ("GET", "/v1/topics/a", &authorized, "", 501, "unimplemented"),
        ("POST", "/v1/nothing", &authorized, "", 404, "not_found"),
        ("GET", "/mqtt", &[], "", 400, "invalid_argument"),
        ("POST", "/mqtt", &[], "", 501, "unimplemented"),
        (
            "POST",
            "/v1/topics/a",
            &[("authorization", authorization.as_str()), ("origin", "http://evil.example")],
            "1",
            403,
            "permission_denied",
        ),
    ] {
        let (found, answer) = send(&stage, method, path, headers, body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{method} {path}: {answer}"));
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{method} {path}: {answer}");
    }
    assert_eq!(post(&stage, "/v1/topics/a", "1234567890123456").await.0, 200, "at the limit");
    assert_eq!(stage.payloads().await.len(), 1);
    stage.metric(r#"drover_ingress_http_requests_total{route="topics",status="200"} 1"#).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_while_the_log_hangs() {
    let change = |config: &mut drover_ingress::config::IngressConfig| {
        config.http.request = drover_host::Duration::from_millis(200);
    };
    let stage = Stage::with(change).await;
    stage.registry.credential(TOKEN, "d");
    stage.bus.set(Gate::Hanging);
    assert_eq!(post(&stage, "/v1/topics/a", "1").await.0, 504);
    let update = send(&stage, "POST", "/update?api_key=drv_secret", &[], "field1=1").await;
    assert_eq!(update, (504, "0".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_socket_of_its_own_its_routes_are_handed_over_until_it_ends() {
    let stage = Stage::without_http_socket().await;
    while stage.network.http().of("ingress.http").is_none() {
        tokio::task::yield_now().await;
    }
    stage.shutdown.cancel();
    stage.running.await.expect("no panic").expect("ends well");
    assert!(stage.network.http().of("ingress.http").is_none());
}
