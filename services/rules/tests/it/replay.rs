//! Replays: dead letters and messages of the log go through one rule again, and through nothing else.

use drover_bus::{Outgoing, Record};
use drover_proto::rules::v1::rules_client::RulesClient;
use drover_proto::rules::v1::{ReplayRequest, ReplayResponse};
use drover_rules::{ERRORS_TOPIC, RulesConfig};
use drover_types::{Telemetry, TopicName, header};
use serde_json::{Value, json};

use crate::lookups::{accepted, device};
use crate::target::{Manner, Target};
use crate::world::{Running, World, message, redelivered, text, until};

fn start(world: &World) -> Running {
    let internal_hosts = vec!["127.0.0.1".to_owned()];
    world.start_with(RulesConfig { member: "a".into(), partitions: 2, internal_hosts, ..RulesConfig::default() })
}

/// Asks for all parts; what they come to together.
async fn replay(world: &World, name: &str, errors: bool, since_ms: u64) -> Result<ReplayResponse, tonic::Status> {
    let mut client = RulesClient::new(world.network.client("rules"));
    let mut total = ReplayResponse::default();
    loop {
        let cursor = std::mem::take(&mut total.next);
        let request = ReplayRequest { tenant: "home".into(), name: name.into(), errors, since_ms, cursor };
        let part = client.replay(request).await?.into_inner();
        total.read += part.read;
        total.replayed += part.replayed;
        total.emitted += part.emitted;
        total.failed += part.failed;
        total.skipped += part.skipped;
        total.next = part.next;
        if total.next.is_empty() {
            return Ok(total);
        }
    }
}

fn numbered(count: u16) -> Vec<Telemetry> {
    (0..count).map(|n| message(&format!("d{}", n % 5), n, &format!("{{\"n\":{n}}}"))).collect()
}

fn failing(target: &Target) -> Value {
    json!({"sql": "SELECT n FROM 'sensors/+'",
        "actions": [{"kafka": {"topic": "home.all"}}, {"webhook": {"url": target.url()}}]})
}

#[tokio::test]
async fn of_dead_letters_only_the_action_that_failed_is_done_again() {
    let (world, _dir) = World::embedded().await;
    let (target, other) = (Target::start(Manner::Answers(404)).await, Target::start(Manner::Answers(404)).await);
    world.rule("mine", 1, Some(failing(&target))).await;
    let hook = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": {"url": other.url()}}]});
    world.rule("other", 1, Some(hook)).await;
    let running = start(&world);
    world.publish(numbered(10)).await;
    until("all are buried", async || world.read(ERRORS_TOPIC).await.len() == 20).await;
    target.becomes(Manner::Answers(200));
    let came = replay(&world, "mine", true, 0).await.expect("is done");
    assert_eq!((came.read, came.replayed, came.emitted, came.failed, came.skipped), (20, 10, 10, 0, 0));
    until("all are there", async || target.accepted().len() >= 10).await;
    let keys = |status: u16| -> Vec<String> {
        let seen = target.seen().into_iter().filter(|seen| seen.answered == Some(status));
        let mut keys: Vec<String> = seen.map(|seen| seen.headers["idempotency-key"].clone()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(200), keys(404), "under the ids of the first time");
    assert_eq!(world.read("home.all").await.len(), 10, "the other action is not repeated");
    assert_eq!(other.seen().len(), 10, "nor is the other rule");
    running.stop().await;
}

#[tokio::test]
async fn messages_of_the_log_go_through_one_rule_again_without_their_repeats() {
    let (world, _dir) = World::embedded().await;
    let rule = |topic: &str| json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"kafka": {"topic": topic}}]});
    world.rule("other", 1, Some(rule("home.other"))).await;
    let running = start(&world);
    let messages = numbered(100);
    world.publish(messages.clone()).await;
    world.publish(messages[50..].iter().map(redelivered)).await;
    world.drained().await;
    world.rule("late", 1, Some(rule("home.late"))).await;
    until("in force", async || world.status("late").await.is_ok()).await;
    let came = replay(&world, "late", false, 1).await.expect("is done");
    assert_eq!((came.read, came.replayed, came.emitted, came.failed), (150, 100, 100, 0));
    let mut numbers: Vec<u64> = Vec::new();
    for stored in world.read("home.late").await {
        let row: Value = serde_json::from_str(&text(&stored)).expect("JSON");
        numbers.push(row["n"].as_u64().expect("n"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert_eq!(world.read("home.other").await.len(), 100, "each once, and not again");
    let since = messages[0].time_ms + 1;
    assert_eq!(replay(&world, "late", false, since).await.expect("is done").replayed, 0, "all are older");
    running.stop().await;
}

#[tokio::test]
async fn a_replay_looks_up_and_leaves_out_what_the_rule_does_not_listen_to() {
    let (world, _dir) = World::embedded().await;
    device(&world, "home", "d", Some("hall")).await;
    let running = start(&world);
    let elsewhere = Telemetry { topic: TopicName::new("elsewhere/d").expect("valid"), ..message("d", 2, "{}") };
    world.publish([message("d", 1, r#"{"n":1}"#), elsewhere]).await;
    world.drained().await;
    let sql = "SELECT device().labels.room AS room, n FROM 'sensors/+'";
    world.rule("rooms", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.rooms"}}]}))).await;
    until("in force", async || accepted(&world, "rooms").await == "Accepted").await;
    let came = replay(&world, "rooms", false, 1).await.expect("is done");
    assert_eq!((came.read, came.replayed, came.emitted, came.failed), (2, 1, 1, 0));
    assert_eq!(world.values("home.rooms").await, [r#"{"room":"hall","n":1}"#]);
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_replayed_is_said() {
    let (world, _dir) = World::embedded().await;
    let sql = "SELECT device() AS d, count(*) AS n FROM 'sensors/+' GROUP BY device(), TUMBLING(1m)";
    world.rule("windows", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.w"}}]}))).await;
    let running = start(&world);
    until("in force", async || world.status("windows").await.is_ok()).await;
    let refused = replay(&world, "windows", false, 1).await.expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    // A dead letter that was too large for the log.
    let headers = [(header::TENANT, "home"), (header::RULE, "windows"), ("left-out", "2000000")];
    let headers = headers.into();
    let lost = Record { key: Some("home/d".into()), value: Some("".into()), headers, ..Record::default() };
    world.append(vec![Outgoing::keyed(ERRORS_TOPIC, lost)]).await;
    let came = replay(&world, "windows", true, 0).await.expect("is done");
    assert_eq!((came.read, came.replayed, came.failed, came.skipped), (1, 0, 0, 1));
    assert_eq!(replay(&world, "none", true, 0).await.expect_err("unknown").code(), tonic::Code::NotFound);
    running.stop().await;
}
