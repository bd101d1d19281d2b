//! `drover shadow`: a command of the client with a further word, a service without one.

use serde_json::json;

use crate::platform::Platform;
use crate::process::{drover, refused, run};

#[test]
fn a_shadow_is_changed_shown_listed_and_deleted() {
    let platform = Platform::start();
    let desired = r#"{"fan": "on", "at": {"x": 1.50}}"#;
    let told = platform.says(&["shadow", "update", "lamp", "--desired", desired]);
    assert_eq!(told, "shadow of lamp is at version 1\n");
    let told = platform.json(&["shadow", "update", "lamp", "--reported", r#"{"fan": "off"}"#, "--version", "1"]);
    assert_eq!((&told["version"], &told["state"]), (&json!(2), &json!({"reported": {"fan": "off"}})));
    let stale = platform.refuses(&["shadow", "update", "lamp", "--desired", "{}", "--version", "1"]);
    assert_eq!(stale, "drover: Version conflict");

    // The view follows the log.
    while platform.json(&["shadow", "get", "lamp"])["version"] != 2 {}
    assert_eq!(
        platform.says(&["shadow", "get", "lamp"]),
        "FIELD  DESIRED  REPORTED\nfan    \"on\"     \"off\"\nat.x   1.5      -\nversion 2\n"
    );
    let file = platform.file("wish.json", r#"{"state": {"desired": {"dim": 5}}}"#);
    let told = platform.says(&["shadow", "update", "lamp", "--name", "config", "-f", &file]);
    assert_eq!(told, "shadow config of lamp is at version 1\n");
    while platform.json(&["shadow", "list", "lamp"]) != json!({"items": ["", "config"]}) {}
    assert_eq!(platform.says(&["shadow", "list", "lamp"]), "NAME\n(classic)\nconfig\n");
    assert_eq!(platform.says(&["shadow", "delete", "lamp", "--name", "config"]), "shadow config of lamp is deleted\n");
    while platform.json(&["shadow", "list", "lamp"]) != json!({"items": [""]}) {}
    let none = platform.refuses(&["shadow", "get", "lamp", "--name", "config"]);
    assert!(none.starts_with("drover: No shadow exists with name"), "{none}");
    let other = platform.refuses(&["shadow", "get", "lamp", "-n", "home"]);
    assert!(other.starts_with("drover: No shadow exists"), "{other}");
}

#[test]
fn a_mistake_is_told_before_anything_is_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("wish.json");
    std::fs::write(&file, "{\"state\":").expect("written");
    let mut command = drover(&["shadow", "update", "lamp", "-f"]);
    let said = refused(command.arg(&file), 1);
    assert!(said.contains("wish.json: is not JSON: EOF") && said.lines().count() == 1, "{said}");
    for wrong in [
        &["shadow", "update", "lamp"][..],
        &["shadow", "update", "lamp", "--desired", "5"],
        &["shadow", "update", "lamp", "--desired", "{}", "-f", "x"],
        &["shadow", "get"],
        &["shadow", "fetch", "lamp"],
        &["shadow", "--data", "x", "get", "lamp"],
    ] {
        refused(&mut drover(wrong), 2);
    }
}

#[test]
fn without_a_further_word_it_is_the_service() {
    let printed = run(&["shadow", "--print-config"]);
    let text = String::from_utf8(printed.stdout).expect("text");
    assert!(printed.status.success() && text.contains("[shadow]"), "{text}");
    let refused = refused(&mut drover(&["shadow", "--set", "shadow.partitons=1", "--check-config"]), 1);
    assert!(refused.contains("partitons"), "{refused}");
}
