//! Turns of rules and policies.

use drover_operator::controller::Kind as _;
use drover_operator::crd::{Policy, Rule};
use drover_operator::ports::{RuleError, RuleRun};
use serde_json::json;

use crate::stage::{Stage, condition, message, object, pair, status, with_status};

fn rule(sql: &str) -> Rule {
    let spec = json!({"sql": sql, "actions": [{"kafka": {"topic": "home.out"}}]});
    object("drover.dev/v1alpha1", "Rule", "hot-rooms", spec)
}

fn policy() -> Policy {
    let statement = json!({"effect": "allow", "actions": ["publish"], "resources": ["a/#"]});
    object("drover.dev/v1alpha1", "Policy", "sensors", json!({"statements": [statement]}))
}

#[tokio::test]
async fn a_rule_is_accepted_pending_and_then_runs() {
    let stage = Stage::new();
    let (writes, events) = stage.turn(&rule("SELECT * FROM 'a'")).await;
    let pending = status(&writes).expect("written");
    assert_eq!(condition(&pending, "Accepted"), pair("True", "Registered"));
    assert_eq!(condition(&pending, "Ready"), pair("Unknown", "Pending"));
    assert!(events.is_empty());

    let run = RuleRun { generation: 1, accepted: true, matched: 7, failed: 1, lag: 3, ..RuleRun::default() };
    let error = RuleError { sample: "{".into(), source: "drover.telemetry/0/9".into(), ..RuleError::default() };
    let run = RuleRun { emitted: 14, dropped: 2, lag_ms: 4_500, last_error: Some(error), ..run };
    *stage.platform.run.lock().unwrap() = Some(run.clone());
    let known = with_status(&rule("SELECT * FROM 'a'"), &writes);
    let (writes, _) = stage.turn(&known).await;
    let running = status(&writes).expect("written");
    assert_eq!(condition(&running, "Ready"), pair("True", "Running"));
    assert_eq!((running["matched"].as_str(), running["lag"].as_str()), (Some("7"), Some("3")));
    let [emitted, dropped, lag_seconds] = ["emitted", "dropped", "lagSeconds"].map(|name| running[name].clone());
    assert_eq!((emitted, dropped, lag_seconds), (json!("14"), json!("2"), json!(4)));
    let [sample, source] = ["sample", "source"].map(|name| running["lastError"][name].clone());
    assert_eq!((sample, source), (json!("{"), json!("drover.telemetry/0/9")));

    let known = with_status(&known, &writes);
    *stage.platform.run.lock().unwrap() = Some(RuleRun { matched: 8, ..run });
    assert!(stage.turn(&known).await.0.is_empty(), "numbers alone wait");
    stage.clock.advance(10 * 60_000);
    assert_eq!(status(&stage.turn(&known).await.0).expect("written")["matched"], "8");
}

#[tokio::test]
async fn numbers_of_rules_not_written_before_are_written_at_the_bounded_rate() {
    let config = drover_operator::OperatorConfig { status_writes_per_second: 1, ..Default::default() };
    let (first, mut known) = (Stage::new(), Vec::new());
    let run = RuleRun { generation: 1, accepted: true, matched: 7, ..RuleRun::default() };
    *first.platform.run.lock().unwrap() = Some(run.clone());
    for i in 0..10 {
        let spec = json!({"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": "home.out"}}]});
        let rule: Rule = object("drover.dev/v1alpha1", "Rule", &format!("r{i}"), spec);
        known.push(with_status(&rule, &first.turn(&rule).await.0));
    }
    let next = Stage::with(config);
    *next.platform.run.lock().unwrap() = Some(RuleRun { matched: 8, ..run });
    let mut written = 0;
    for rule in &known {
        written += next.turn(rule).await.0.len();
    }
    assert_eq!(written, 2, "a burst of two seconds; the clock stands still");
}

#[tokio::test]
async fn what_the_registry_says_of_a_rule_is_told_with_line_and_column() {
    let stage = Stage::new();
    let (writes, events) = stage.turn(&rule("SELEKT")).await;
    let refused = status(&writes).expect("written");
    assert_eq!(condition(&refused, "Accepted"), pair("False", "Invalid"));
    assert_eq!(message(&refused, "Accepted"), "spec.sql: expected SELECT at line 1, column 1");
    assert_eq!(condition(&refused, "Ready"), pair("False", "NotAccepted"));
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Invalid")));
    assert!(stage.platform.rules.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_rule_that_was_changed_elsewhere_is_set_back_and_told() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&rule("SELECT * FROM 'a'")).await;
    let known = with_status(&rule("SELECT * FROM 'a'"), &writes);
    stage.platform.rules.lock().unwrap().get_mut("hot-rooms").expect("there").spec.sql = "SELECT 1 FROM 'b'".into();
    let (_, events) = stage.turn(&known).await;
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Drift")));
    assert_eq!(stage.platform.rules.lock().unwrap()["hot-rooms"].spec.sql, "SELECT * FROM 'a'");
}

#[tokio::test]
async fn a_change_of_the_object_is_no_drift() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&rule("SELECT * FROM 'a'")).await;
    let mut changed = with_status(&rule("SELECT * FROM 'b'"), &writes);
    changed.metadata.generation = Some(2);
    let (writes, events) = stage.turn(&changed).await;
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(status(&writes).expect("written")["observedGeneration"], 2);
}

#[tokio::test]
async fn a_deleted_rule_goes_and_one_of_others_stays() {
    let stage = Stage::new();
    stage.turn(&rule("SELECT * FROM 'a'")).await;
    rule("SELECT * FROM 'a'").cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.rules.lock().unwrap().is_empty());
    stage.turn(&rule("SELECT * FROM 'a'")).await;
    stage.platform.rules.lock().unwrap().get_mut("hot-rooms").expect("there").owner = "another".into();
    rule("SELECT * FROM 'a'").cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.rules.lock().unwrap().contains_key("hot-rooms"));
}

#[tokio::test]
async fn a_policy_is_in_force_once_the_registry_has_it_and_costs_nothing_then() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&policy()).await;
    let status = status(&writes).expect("written");
    assert_eq!(condition(&status, "Accepted"), pair("True", "Registered"));
    assert_eq!(condition(&status, "Ready"), pair("True", "InForce"));
    let known = with_status(&policy(), &writes);
    stage.clock.advance(3_600_000);
    assert!(stage.turn(&known).await.0.is_empty());
    known.cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.policies.lock().unwrap().is_empty());
}
