//! The audit trail from the command line, of what the command line has done.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::platform::Platform;
use crate::process::refused;

/// How long the trail may be behind the writes.
const PATIENCE: Duration = Duration::from_secs(60);

fn rule(platform: &Platform, sql: &str) -> String {
    let rule = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "r"},
        "spec": {"sql": sql, "actions": [{"republish": {"topic": "out"}}]},
    });
    platform.file("r.json", &rule.to_string())
}

/// Entries of the tenant `home`, oldest first, once there are `count`: the trail follows the writes.
fn entries(platform: &Platform, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        // A process of its own each time: pause enough.
        let listed = platform.json(&["audit", "-n", "home"]);
        let mut found = listed["items"].as_array().expect("items").clone();
        if found.len() >= count {
            found.reverse();
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{count} entries are expected: {found:?}");
    }
}

#[test]
fn what_was_made_changed_and_deleted_is_told_with_who_did_it() {
    let platform = Platform::start();
    platform.says(&["device", "create", "t-1", "-n", "home"]);
    platform.says(&["rule", "apply", "-f", &rule(&platform, "SELECT 1 AS n FROM 'a'"), "-n", "home"]);
    platform.says(&["rule", "apply", "-f", &rule(&platform, "SELECT 2 AS n FROM 'a'"), "-n", "home"]);
    platform.says(&["device", "delete", "t-1", "-n", "home"]);
    let found = entries(&platform, 6);
    let told: Vec<String> = found
        .iter()
        .map(|e| {
            let [action, kind, actor] = ["action", "kind", "actor"].map(|name| e[name].as_str().expect("text"));
            format!("{action} {kind} by {actor} {}", e["changed"])
        })
        .collect();
    let expected = [
        "created device by administrator null",
        "created credential by administrator null",
        "created rule by administrator null",
        "updated rule by administrator [\"spec.sql\"]",
        "deleted credential by administrator null",
        "deleted device by administrator null",
    ];
    assert_eq!(told, expected);
    assert_eq!(found[1]["device"], "t-1");

    let table = platform.says(&["audit", "-n", "home", "--kind", "rule", "--since", "1h"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["TIME", "ACTOR", "ACTION", "KIND", "NAME", "CHANGED"]);
    assert_eq!(lines[1][1..], ["administrator", "updated", "rule", "r", "spec.sql"]);
    assert_eq!(lines[2][1..], ["administrator", "created", "rule", "r", "-"]);
    assert_eq!(lines.len(), 3, "{table}");
    let named = platform.json(&["audit", "-n", "home", "--name", "t-1", "--limit", "3"]);
    assert_eq!(named["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(platform.json(&["audit", "-n", "home", "--actor", "operator"])["items"], json!([]));
    assert_eq!(platform.json(&["audit", "-n", "away"])["items"], json!([]));

    let unknown = platform.refuses(&["audit", "--kind", "lamp"]);
    assert!(unknown.starts_with("drover: kind: \"lamp\" is none of device, "), "{unknown}");
    refused(&mut platform.command(&["audit", "--since", "yesterday"]), 2);
}
