//! Messages and rules that mean harm: a dead letter or a condition that says why, and everybody else goes on.

use bytes::Bytes;
use drover_rules::ERRORS_TOPIC;
use drover_types::limits::PAYLOAD_BYTES_MAX;
use drover_types::{Telemetry, TenantId};
use serde_json::{Value, json};

use crate::world::{World, header, message, rule_change, until};

fn to(topic: &str) -> Value {
    json!({"sql": "SELECT a FROM 'sensors/+'", "actions": [{"kafka": {"topic": topic}}]})
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_becomes_a_dead_letter_and_the_next_of_its_device_comes_out() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    let bad: [(&[u8], &str); 6] = [
        (deep.as_bytes(), "nested too deep, limit is 128"),
        (large.as_bytes(), "limit is 262144"),
        (b"{\"a\":1,\"b\":\"\xff\"}", "is not UTF-8"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"{\"a\":1e9999}", "payload is not JSON"),
        (b"{\"a\":1} and more", "payload is not JSON"),
    ];
    let good: [(&[u8], &str); 3] = [
        (b"{\"a\":1,\"a\":2}", r#"{"a":2}"#),
        (b"{\"a\":9007199254740993}", r#"{"a":9007199254740993}"#),
        (b"{\"a\":-0.12345678901234567890123}", r#"{"a":-0.12345678901234567890123}"#),
    ];
    let (world, _dir) = World::embedded().await;
    world.rule("r", 1, Some(to("home.out"))).await;
    let mut messages = Vec::new();
    for (n, (payload, _)) in (1..).zip(bad.iter().chain(&good)) {
        messages.push(Telemetry { payload: Bytes::copy_from_slice(payload), ..message("d", n, "") });
    }
    world.publish(messages).await;
    let running = world.start("a");
    world.drained().await;
    let mut rows: Vec<String> = good.iter().map(|(_, row)| (*row).to_owned()).collect();
    rows.sort_unstable();
    assert_eq!(world.values("home.out").await, rows);
    let letters = world.read(ERRORS_TOPIC).await;
    assert_eq!(letters.len(), bad.len());
    for (letter, (payload, cause)) in letters.iter().zip(bad) {
        let (rule, error) = (header(letter, "rule"), header(letter, "error"));
        assert!(rule == "r" && error.contains(cause), "{rule}: {error}, expected {cause}");
        assert_eq!(letter.record.value.as_deref(), Some(payload), "the source as it was");
    }
    until("counted", async || world.status("r").await.is_ok_and(|status| status.failed == bad.len() as u64)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_topic_of_the_platform_or_of_another_tenant_is_no_target() {
    let (world, _dir) = World::embedded().await;
    let reason = async |tenant: &str, name: &str| {
        let status = world.status_of(tenant, name).await.ok()?;
        status.conditions.first().map(|condition| (condition.reason.clone(), condition.message.clone()))
    };
    let running = world.start("a");
    world.rule("inside", 1, Some(to("drover.telemetry"))).await;
    let invalid = ("Invalid".to_owned(), "spec.actions[0].kafka.topic: topics under drover. are internal".to_owned());
    until("refused", async || reason("home", "inside").await == Some(invalid.clone())).await;

    let accepted = ("Accepted".to_owned(), String::new());
    world.rule("mine", 1, Some(to("shared"))).await;
    until("accepted", async || reason("home", "mine").await == Some(accepted.clone())).await;
    world.append(vec![rule_change(("away", "theirs"), 1, 2, Some(to("shared")))]).await;
    let taken = ("TopicTaken".to_owned(), "topic shared belongs to another tenant".to_owned());
    until("refused", async || reason("away", "theirs").await == Some(taken.clone())).await;
    world.rule("mine", 2, None).await;
    until("free", async || reason("away", "theirs").await == Some(accepted.clone())).await;
    running.stop().await;
}

#[tokio::test]
async fn a_rule_that_has_come_to_a_topic_later_does_not_take_it_at_a_start() {
    let (world, _dir) = World::embedded().await;
    let first = rule_change(("home", "r1"), 1, 1_000, Some(to("mine")));
    let owner = rule_change(("away", "r2"), 1, 2_000, Some(to("shared")));
    let mut later = rule_change(("home", "r1"), 2, 1_000, Some(to("shared")));
    later.record.timestamp_ms = 3_000;
    world.append(vec![first, owner, later]).await;
    let running = world.start("a");
    let reason = async |tenant: &str, name: &str| {
        let status = world.status_of(tenant, name).await.ok()?;
        status.conditions.first().map(|condition| condition.reason.clone())
    };
    until("observed", async || reason("away", "r2").await.is_some() && reason("home", "r1").await.is_some()).await;
    let reasons = (reason("away", "r2").await, reason("home", "r1").await);
    assert_eq!(reasons, (Some("Accepted".to_owned()), Some("TopicTaken".to_owned())));
    running.stop().await;
}

#[tokio::test]
async fn a_topic_is_the_same_tenants_after_every_start() {
    const TOPICS: u64 = 12;
    let (world, _dir) = World::embedded().await;
    let rule = |tenant: &str, n: u64, created_ms: u64| {
        let sql = format!("SELECT '{tenant}' AS who FROM '#'");
        let spec = json!({"sql": sql, "actions": [{"kafka": {"topic": format!("shared.{n}")}}]});
        rule_change((tenant, &format!("r{n}")), 1, created_ms, Some(spec))
    };
    // Their changes are in several partitions, which are read one after the other.
    for n in 0..TOPICS {
        world.append(vec![rule("home", n, 1_000 + n), rule("away", n, 2_000 + n)]).await;
    }
    let running = world.start("a");
    let away = TenantId::new("away").expect("a tenant");
    world.publish([message("d", 1, "{}"), Telemetry { tenant: away, ..message("d", 2, "{}") }]).await;
    world.drained().await;
    for n in 0..TOPICS {
        assert_eq!(world.values(&format!("shared.{n}")).await, [r#"{"who":"home"}"#], "topic {n}");
    }
    running.stop().await;
}
