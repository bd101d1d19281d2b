//! Kafka outputs: exactly once, in order, whatever happens to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_bus::{Outgoing, Record, TopicConfig, TopicPartition};
use drover_rules::{ERRORS_TOPIC, RulesConfig};
use drover_sim::{Broken, BrokenBus};
use drover_types::{ClientId, Mqtt5, RecordId, TELEMETRY_TOPIC, Telemetry, TenantId, TraceParent};
use serde_json::json;

use crate::world::{World, header, largest, message, open, outgoing, redelivered, text, until};

fn hot() -> serde_json::Value {
    json!({"sql": "SELECT n, topic(2) AS device FROM 'sensors/+' WHERE n % 2 = 0",
           "actions": [{"kafka": {"topic": "home.even"}}]})
}

fn numbered(device: &str, numbers: std::ops::Range<u16>) -> Vec<Telemetry> {
    numbers.map(|n| message(device, n, &format!("{{\"n\":{n}}}"))).collect()
}

#[tokio::test]
async fn of_a_thousand_messages_exactly_the_matching_half_comes_out_in_order() {
    let (world, _dir) = World::embedded().await;
    world.rule("even", 1, Some(hot())).await;
    let running = world.start("a");
    world.publish(numbered("d", 0..1_000)).await;
    world.drained().await;
    let values: Vec<String> = world.read("home.even").await.iter().map(text).collect();
    let expected: Vec<String> = (0..1_000).step_by(2).map(|n| format!("{{\"n\":{n},\"device\":\"d\"}}")).collect();
    assert_eq!(values, expected);
    until("counted", async || world.status("even").await.is_ok_and(|status| status.matched == 500)).await;
    let status = world.status("even").await.expect("known");
    assert_eq!((status.observed_generation, status.failed), (1, 0));
    assert_eq!((status.conditions[0].r#type.as_str(), status.conditions[0].status.as_str()), ("Accepted", "True"));
    until("no lag at the next look", async || world.status("even").await.is_ok_and(|status| status.lag == 0)).await;
    running.stop().await;
}

#[tokio::test]
async fn an_output_carries_key_id_rule_time_and_trace_of_its_source() {
    let (world, _dir) = World::embedded().await;
    let keyed = json!({"sql": "SELECT room FROM 'sensors/+'", "actions": [
        {"kafka": {"topic": "home.keyed", "key": "${room}-${n}"}}, {"kafka": {"topic": "home.plain"}}]});
    world.rule("keyed", 1, Some(keyed)).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = Telemetry { traceparent: TraceParent::parse(trace), ..message("d", 1, r#"{"room":"hall","n":1}"#) };
    let untraced = message("e", 2, r#"{"room":"hall","n":2}"#);
    world.publish([traced.clone(), untraced.clone()]).await;
    let running = world.start("a");
    world.drained().await;
    let id = u128::from_be_bytes(untraced.id.0);
    // Who follows no trace gets that of its message's id.
    let of_id = format!("00-{id:032x}-{:016x}-00", id & u128::from(u64::MAX));
    for (source, trace, key) in [(&traced, trace, "hall-1"), (&untraced, &of_id, "hall-2")] {
        for (topic, action, key) in [("home.keyed", 0, key), ("home.plain", 1, source.device.as_str())] {
            let id: RecordId = source.id.derived("keyed", action);
            let outputs = world.read(topic).await;
            let of_source = outputs.iter().find(|stored| stored.record.header("id") == Some(&id.0[..]));
            let stored = of_source.expect("an output of its id");
            assert_eq!(stored.record.key.as_deref(), Some(key.as_bytes()));
            assert_eq!((header(stored, "rule"), header(stored, "time")), ("keyed".into(), source.time_ms.to_string()));
            assert_eq!(header(stored, "traceparent"), trace);
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_rule_has_the_properties_of_the_publish() {
    let (world, _dir) = World::embedded().await;
    let sql = "SELECT get_mqtt_property('format_indicator') AS f, get_mqtt_property('response_topic') AS r, \
               get_mqtt_property('correlation_data') AS c, get_mqtt_property('content_type') AS t, \
               get_user_properties('k') AS k FROM 'sensors/+'";
    world.rule("asking", 1, Some(json!({"sql": sql, "actions": [{"kafka": {"topic": "home.asked"}}]}))).await;
    let said = Mqtt5 { utf8: Some(true), response_topic: Some("r".into()), correlation_data: Some(vec![1, 2].into()) };
    let full = Telemetry {
        mqtt5: said.said(),
        content_type: Some("text/plain".into()),
        properties: vec![("k".into(), "v".into())],
        ..message("d", 1, "-")
    };
    world.publish([full, message("e", 2, "-")]).await;
    let running = world.start("a");
    world.drained().await;
    let row = r#"{"f":"UTF8_DATA","r":"r","c":"AQI=","t":"text/plain","k":["v"]}"#;
    assert_eq!(world.values("home.asked").await, [row, "{}"]);
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_did_not_come_by_mqtt_has_no_client() {
    let (world, _dir) = World::embedded().await;
    let rule = json!({"sql": "SELECT clientid() AS c FROM 'sensors/+'",
        "actions": [{"kafka": {"topic": "home.asked"}}, {"kafka": {"topic": "home.asked", "key": "${room}"}}],
        "errorAction": {"kafka": {"topic": "home.failures"}}});
    world.rule("asking", 1, Some(rule)).await;
    let client = |name: &str| ClientId::new(name).expect("valid");
    let by_http = Telemetry { client: client("http:e"), epoch: 0, ..message("e", 2, "-") };
    let by_coap = Telemetry { client: client("coap:f"), ..message("f", 3, "-") };
    world.publish([message("d", 1, "-"), by_http, by_coap]).await;
    let running = world.start("a");
    world.drained().await;
    let none = r#"{"c":"n/a"}"#;
    assert_eq!(world.values("home.asked").await, [r#"{"c":"d"}"#, none, none]);
    let failures = world.read("home.failures").await;
    let failure = |stored| serde_json::from_str::<serde_json::Value>(&text(stored)).expect("json");
    let mut told: Vec<String> = failures.iter().map(|stored| failure(stored)["clientId"].to_string()).collect();
    told.sort_unstable();
    assert_eq!(told, [r#""d""#, r#""n/a""#, r#""n/a""#]);
    running.stop().await;
}

#[tokio::test]
async fn an_output_goes_to_the_partition_that_its_message_names_and_to_none_that_is_not_there() {
    let (world, _dir) = World::embedded().await;
    let kafka = json!({"topic": "home.out", "partition": "${p}", "createTopic": {"partitions": 3}});
    world.rule("placed", 1, Some(json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"kafka": kafka}]}))).await;
    let named = [(1, "0"), (2, "2"), (3, "3"), (4, r#""x""#), (5, "1"), (6, "-1")];
    world.publish(named.map(|(n, p)| message("d", n, &format!("{{\"n\":{n},\"p\":{p}}}")))).await;
    let running = world.start("a");
    world.drained().await;
    let placed: Vec<(String, u32)> =
        world.read("home.out").await.iter().map(|stored| (text(stored), stored.position.at.partition)).collect();
    assert_eq!(placed, [(r#"{"n":1}"#.to_owned(), 0), (r#"{"n":5}"#.to_owned(), 1), (r#"{"n":2}"#.to_owned(), 2)]);
    let mut errors: Vec<String> = world.read(ERRORS_TOPIC).await.iter().map(|l| header(l, "error")).collect();
    errors.sort_unstable();
    assert_eq!(errors[0], r#"action 0: partition "-1" is no number from 0 to 1023"#);
    assert_eq!(errors[1], r#"action 0: partition "x" is no number from 0 to 1023"#);
    assert!(errors.len() == 3 && errors[2].contains("partition 3"), "{errors:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_killed_engine_goes_on_where_it_was_and_every_output_is_there_once() {
    let (mut world, dir) = World::embedded().await;
    world.rule("even", 1, Some(hot())).await;
    for round in 0..5u16 {
        let running = world.start("a");
        world.publish(numbered("d", round * 200..(round + 1) * 200)).await;
        let least = usize::from(round) * 80;
        until("some outputs", async || world.read("home.even").await.len() >= least).await;
        running.kill().await;
        let bus =
            std::mem::replace(&mut world.bus, std::sync::Arc::new(drover_sim::SimBus::new(0, Default::default())));
        until("the killed engine let go", async || std::sync::Arc::strong_count(&bus) == 1).await;
        drop(bus);
        world.bus = open(&dir);
    }
    let running = world.start("a");
    world.drained().await;
    let values: Vec<String> = world.read("home.even").await.iter().map(text).collect();
    let expected: Vec<String> = (0..1_000).step_by(2).map(|n| format!("{{\"n\":{n},\"device\":\"d\"}}")).collect();
    assert_eq!(values, expected);
    running.stop().await;
}

/// Messages of a session, all of them again under the next one, and the next number after that.
async fn redelivery(broken: Broken) -> Vec<String> {
    let (world, _dir) = World::embedded().await;
    let world = World { bus: Arc::new(BrokenBus::new(world.bus.clone(), broken)), ..world };
    world.rule("even", 1, Some(hot())).await;
    let first = numbered("d", 0..10);
    world.publish(first.clone()).await;
    let running = world.start("a");
    world.drained().await;
    // The window of a restarted engine comes from the log.
    running.stop().await;
    let running = world.start("a");
    world.publish(first.iter().map(redelivered)).await;
    world.publish(numbered("d", 10..11)).await;
    world.drained().await;
    running.stop().await;
    world.read("home.even").await.iter().map(text).collect()
}

#[tokio::test]
async fn redelivered_messages_come_out_once_also_after_a_restart() {
    let expected: Vec<String> = (0..11).step_by(2).map(|n| format!("{{\"n\":{n},\"device\":\"d\"}}")).collect();
    assert_eq!(redelivery(Broken::default()).await, expected);
    let broken = redelivery(Broken { no_repeat_window: true, ..Broken::default() }).await;
    assert_eq!(broken.len(), 11, "without the window each repeat comes out again");
}

#[tokio::test]
async fn what_cannot_be_evaluated_becomes_a_dead_letter_and_the_partition_moves_on() {
    let (world, _dir) = World::embedded().await;
    let rule = json!({"sql": "SELECT n FROM 'sensors/+' WHERE n >= 0",
        "actions": [{"kafka": {"topic": "home.out", "key": "${room}"}}],
        "errorAction": {"kafka": {"topic": "home.failures"}}});
    world.rule("picky", 1, Some(rule)).await;
    let poison = Record { key: Some("home/d".into()), value: Some("poison".into()), ..Record::default() };
    let mut batch = vec![Outgoing::keyed(TELEMETRY_TOPIC, poison)];
    batch.extend([
        outgoing(message("d", 1, "not json")),
        outgoing(message("d", 2, r#"{"n": 2}"#)),
        outgoing(message("d", 3, r#"{"n": 3, "room": "hall"}"#)),
    ]);
    world.append(batch).await;
    let running = world.start("a");
    world.drained().await;
    assert_eq!(world.values("home.out").await, [r#"{"n":3}"#]);
    let letters = world.read(ERRORS_TOPIC).await;
    let told: Vec<_> = letters.iter().map(|l| (text(l), header(l, "rule"), header(l, "error"))).collect();
    let expected = [
        ("poison", "", "header id is missing"),
        ("not json", "picky", "payload is not JSON: line 1, column 1: expected a JSON value"),
        (r#"{"n": 2}"#, "picky", "action 0: ${room} is undefined for this message"),
    ];
    assert_eq!(told, expected.map(|(value, rule, error)| (value.into(), rule.into(), error.into())));
    assert_eq!(header(&letters[1], "topic"), "sensors/d");
    let failures = world.read("home.failures").await;
    let failure: serde_json::Value = serde_json::from_str(&text(&failures[0])).expect("json");
    assert_eq!((&failure["ruleName"], &failure["base64OriginalPayload"]), (&json!("picky"), &json!("bm90IGpzb24=")));
    assert_eq!(failures.len(), 2);
    until("counted", async || world.status("picky").await.is_ok_and(|status| status.failed == 2)).await;
    let last = world.status("picky").await.expect("known").last_error.expect("an error");
    assert_eq!(last.message, "action 0: ${room} is undefined for this message");
    running.stop().await;
}

#[tokio::test]
async fn a_cause_that_quotes_a_whole_payload_stops_nobody() {
    let (world, _dir) = World::embedded().await;
    // The topic is refused and quoted; each of its characters takes six bytes there.
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'",
        "actions": [{"republish": {"topic": "${target}"}}, {"kafka": {"topic": "home.out"}}],
        "errorAction": {"kafka": {"topic": "home.failures"}}});
    world.rule("quoting", 1, Some(rule)).await;
    let target = "\u{7f}".repeat(250_000);
    world.publish([message("d", 1, &format!("{{\"n\":1,\"target\":\"{target}\"}}"))]).await;
    world.publish([message("d", 2, r#"{"n":2,"target":"alerts"}"#)]).await;
    let running = world.start("a");
    world.drained().await;
    assert_eq!(world.values("home.out").await, [r#"{"n":1}"#, r#"{"n":2}"#]);
    let letters = world.read(ERRORS_TOPIC).await;
    assert_eq!(letters.len(), 1);
    let error = header(&letters[0], "error");
    assert!(error.starts_with("action 0: topic \"\\u{7f}") && error.ends_with('…'), "{} bytes", error.len());
    assert!(error.len() <= 1_024 && text(&letters[0]).len() > 250_000, "the cause is clipped, the source is not");
    assert_eq!(world.read("home.failures").await.len(), 1);
    until("counted", async || world.status("quoting").await.is_ok_and(|status| status.failed == 1)).await;
    let last = world.status("quoting").await.expect("known").last_error.expect("an error");
    assert_eq!(last.message, error);
    running.stop().await;
}

#[tokio::test]
async fn a_record_at_the_limit_of_the_log_becomes_a_dead_letter_without_it() {
    let (world, _dir) = World::embedded().await;
    world.rule("even", 1, Some(hot())).await;
    world.append(vec![Outgoing::keyed(TELEMETRY_TOPIC, largest("home/d"))]).await;
    world.publish([message("d", 2, r#"{"n":2}"#)]).await;
    let running = world.start("a");
    world.drained().await;
    assert_eq!(world.values("home.even").await, [r#"{"n":2,"device":"d"}"#]);
    let letters = world.read(ERRORS_TOPIC).await;
    assert_eq!((letters.len(), text(&letters[0]).as_str()), (1, ""));
    assert_eq!(header(&letters[0], "error"), "header id is missing");
    assert!(header(&letters[0], "source").starts_with("drover.telemetry/"));
    let left_out: usize = header(&letters[0], "left-out").parse().expect("a number");
    assert!(left_out > largest("home/d").bytes(), "{left_out}");
    running.stop().await;
}

#[tokio::test]
async fn two_members_share_the_partitions_and_outputs_stay_single() {
    let (world, _dir) = World::embedded().await;
    world.rule("even", 1, Some(hot())).await;
    let first = world.start("a");
    world.publish((0..20).flat_map(|d| numbered(&format!("d{d}"), 0..10))).await;
    let second = world.start("b");
    world.publish((0..20).flat_map(|d| numbered(&format!("d{d}"), 10..50))).await;
    world.drained().await;
    first.stop().await;
    world.publish((0..20).flat_map(|d| numbered(&format!("d{d}"), 50..60))).await;
    world.drained().await;
    let expected: Vec<String> =
        (0..20).flat_map(|d| (0..60).step_by(2).map(move |n| format!("{{\"n\":{n},\"device\":\"d{d}\"}}"))).collect();
    let mut expected = expected;
    expected.sort_unstable();
    assert_eq!(world.values("home.even").await, expected);
    second.stop().await;
}

#[tokio::test]
async fn rules_change_while_the_engine_runs_and_meet_only_their_own_tenant() {
    let (world, _dir) = World::embedded().await;
    let running = world.start("a");
    let to = |topic: &str| json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": topic}}]});
    world.rule("r", 1, Some(to("home.one"))).await;
    until("generation 1", async || world.status("r").await.is_ok_and(|s| s.observed_generation == 1)).await;
    world.publish(numbered("d", 0..1)).await;
    let stranger = Telemetry { tenant: TenantId::new("away").expect("valid"), ..message("d", 7, "{}") };
    world.publish([stranger]).await;
    world.drained().await;
    world.rule("r", 2, Some(to("home.two"))).await;
    until("generation 2", async || world.status("r").await.is_ok_and(|s| s.observed_generation == 2)).await;
    until("in force", async || {
        world.publish([Telemetry { packet_id: None, ..message("probe", 0, r#"{"n":"p"}"#) }]).await;
        world.drained().await;
        world.values("home.two").await.iter().any(|value| value.contains('p'))
    })
    .await;
    world.publish(numbered("d", 1..2)).await;
    world.drained().await;
    let only_numbers = |values: Vec<String>| values.into_iter().filter(|v| !v.contains('p')).collect::<Vec<_>>();
    assert_eq!(only_numbers(world.values("home.one").await), [r#"{"n":0}"#]);
    assert_eq!(only_numbers(world.values("home.two").await), [r#"{"n":1}"#]);
    world.rule("r", 3, None).await;
    until("gone", async || world.status("r").await.is_err_and(|s| s.code() == tonic::Code::NotFound)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_rule_that_does_not_compile_is_not_accepted_and_says_why() {
    let (world, _dir) = World::embedded().await;
    let running = world.start("a");
    let wrong = json!({"sql": "SELECT FROM 'a'", "actions": [{"kafka": {"topic": "home.out"}}]});
    world.rule("wrong", 1, Some(wrong)).await;
    until("observed", async || world.status("wrong").await.is_ok()).await;
    let condition = world.status("wrong").await.expect("known").conditions.remove(0);
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "Invalid"));
    assert_eq!(condition.message, "spec.sql: line 1, column 8: expected an expression, found FROM");
    running.stop().await;
}

fn to(topic: &str) -> serde_json::Value {
    json!({"sql": "SELECT n FROM '#'", "actions": [{"kafka": {"topic": topic}}]})
}

async fn make(world: &World, topic: &str) {
    let config =
        TopicConfig { topic: topic.into(), partitions: 1, compact: false, retention_ms: None, retention_bytes: None };
    world.bus.create_topic(config).await.expect("made");
}

/// Waits until a generation of the rule `r` is observed with this reason.
async fn observed(world: &World, generation: u64, reason: &str) {
    until(reason, async || {
        let status = world.status("r").await;
        status.is_ok_and(|s| s.observed_generation == generation && s.conditions[0].reason == reason)
    })
    .await;
}

/// From where on a generation of the rule `r` is in force, once it is in all partitions.
async fn effective(world: &World, generation: u64) -> BTreeMap<u32, u64> {
    until("in force everywhere", async || {
        let status = world.status("r").await;
        status.is_ok_and(|s| s.observed_generation == generation && s.effective_from.len() == 4)
    })
    .await;
    world.status("r").await.expect("known").effective_from.into_iter().collect()
}

#[tokio::test]
async fn a_status_tells_from_which_offset_of_each_partition_on_a_generation_is_met() {
    let (world, _dir) = World::embedded().await;
    let each = |numbers: std::ops::Range<u16>| (0..20).flat_map(move |d| numbered(&format!("d{d}"), numbers.clone()));
    world.rule("r", 1, Some(to("home.one"))).await;
    let running = world.start("a");
    assert_eq!(effective(&world, 1).await.into_values().collect::<Vec<_>>(), [0; 4]);
    world.publish(each(0..3)).await;
    world.drained().await;
    let mut ends = BTreeMap::new();
    for partition in 0..4 {
        let at = TopicPartition::new(TELEMETRY_TOPIC, partition);
        ends.insert(partition, world.bus.bounds(&at).await.expect("bounds").end);
    }
    assert_eq!(ends.values().sum::<u64>(), 60);
    world.rule("r", 2, Some(to("home.two"))).await;
    assert_eq!(effective(&world, 2).await, ends);
    world.publish(each(3..5)).await;
    world.drained().await;
    assert_eq!((world.read("home.one").await.len(), world.read("home.two").await.len()), (60, 40));
    assert_eq!(effective(&world, 2).await, ends, "messages do not move it");
    running.stop().await;

    // What was before it began is not known to a process.
    let running = world.start("a");
    assert_eq!(effective(&world, 2).await.values().sum::<u64>(), 100);
    running.stop().await;
}

#[tokio::test]
async fn a_rule_that_waits_for_its_topic_leaves_its_former_version_in_force_and_then_takes_over() {
    let (world, _dir) = World::embedded().await;
    make(&world, "home.former").await;
    world.rule("r", 1, Some(to("home.former"))).await;
    let config = RulesConfig { partitions: 2, create_topics: false, ..RulesConfig::default() };
    let running = world.start_with(config);
    observed(&world, 1, "Accepted").await;
    world.rule("r", 2, Some(to("home.latter"))).await;
    observed(&world, 2, "TopicMissing").await;
    world.publish(numbered("d", 0..1)).await;
    world.drained().await;
    make(&world, "home.latter").await;
    observed(&world, 2, "Accepted").await;
    world.publish(numbered("d", 1..2)).await;
    world.drained().await;
    assert_eq!(world.values("home.former").await, [r#"{"n":0}"#]);
    assert_eq!(world.values("home.latter").await, [r#"{"n":1}"#]);
    running.stop().await;
}

#[tokio::test]
async fn what_a_status_calls_observed_is_in_force() {
    let (world, _dir) = World::embedded().await;
    let running = world.start("a");
    for generation in 1..=20 {
        let topic = format!("home.out{generation}");
        world.rule("r", generation, Some(to(&topic))).await;
        observed(&world, generation, "Accepted").await;
        let n = u16::try_from(generation).expect("small");
        world.publish(numbered("d", n..n + 1)).await;
        world.drained().await;
        assert_eq!(world.values(&topic).await, [format!("{{\"n\":{n}}}")]);
    }
    running.stop().await;
}

#[tokio::test]
async fn an_output_topic_made_for_a_rule_has_the_configured_retention_and_one_that_is_there_keeps_its_own() {
    let (world, _dir) = World::embedded().await;
    make(&world, "home.own").await;
    let running = world.start("a");
    let actions = json!([{"kafka": {"topic": "home.own"}}, {"kafka": {"topic": "home.made"}}]);
    world.rule("r", 1, Some(json!({"sql": "SELECT n FROM '#'", "actions": actions}))).await;
    observed(&world, 1, "Accepted").await;
    running.stop().await;
    let output_retention = "12h".parse().expect("a duration");
    let running = world.start_with(RulesConfig { partitions: 2, output_retention, ..RulesConfig::default() });
    world.rule("r", 2, Some(to("home.later"))).await;
    observed(&world, 2, "Accepted").await;
    let topics = world.bus.topics().await.expect("topics");
    let kept = |topic: &str| topics.iter().find(|config| &*config.topic == topic).expect("made").retention_ms;
    let hour_ms = 3_600_000;
    let kept = ["home.own", "home.made", "home.later"].map(kept);
    assert_eq!(kept, [None, Some(7 * 24 * hour_ms), Some(12 * hour_ms)]);
    running.stop().await;
}

#[tokio::test]
async fn an_output_is_as_old_as_its_message_in_the_log_whatever_time_that_names() {
    let (world, _dir) = World::embedded().await;
    world.rule("even", 1, Some(hot())).await;
    let mut late = outgoing(message("d", 2, r#"{"n":2}"#));
    late.record.timestamp_ms += 366 * 24 * 3_600_000;
    world.append(vec![late.clone()]).await;
    let running = world.start("a");
    world.drained().await;
    let output = world.read("home.even").await.remove(0);
    assert_eq!(output.record.timestamp_ms, late.record.timestamp_ms);
    assert_eq!(header(&output, "time"), message("d", 2, "").time_ms.to_string());
    running.stop().await;
}

#[tokio::test]
async fn an_output_topic_that_was_deleted_is_made_again() {
    let (world, _dir) = World::embedded().await;
    world.rule("r", 1, Some(to("home.out"))).await;
    let running = world.start("a");
    observed(&world, 1, "Accepted").await;
    world.bus.delete_topic("home.out").await.expect("deleted");
    world.publish(numbered("d", 0..1)).await;
    until("a dead letter", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    until("the topic", async || {
        world.bus.topics().await.expect("topics").iter().any(|config| &*config.topic == "home.out")
    })
    .await;
    world.publish(numbered("d", 1..2)).await;
    until("an output", async || world.values("home.out").await == [r#"{"n":1}"#]).await;
    running.stop().await;
}
