//! `drover command` and a device that answers over MQTT.

use std::process::{Child, Stdio};

use drover_mqtt::ReasonCode;
use serde_json::{Value, json};

use crate::device::Device;
use crate::platform::Platform;
use crate::process::{Up, drover, refused};

const REQUESTS: &str = "$drover/commands/lamp/+/request";

/// A platform with a device `lamp`, and its token.
fn with_a_lamp() -> (Platform, String) {
    let platform = Platform::start();
    let created = platform.json(&["device", "create", "lamp"]);
    let token = created["token"].as_str().expect("a token").to_owned();
    (platform, token)
}

/// The id in the topic of a request.
fn id(topic: &str) -> &str {
    topic.split('/').nth(3).expect("a level of its own")
}

/// Sends a command, and waits for its answer meanwhile.
fn sending(platform: &Platform, arguments: &[&str]) -> Child {
    let mut command = platform.command(&[&["command", "send", "lamp"], arguments, &["-o", "json"]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable runs")
}

/// What it showed when it ended with `code`; with one that is no success it has said so in one line, too.
fn told(child: Child, code: i32) -> Value {
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), said.lines().count()), (Some(code), usize::from(code > 0)), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_device_gets_a_command_and_who_waits_gets_its_answer() {
    let (platform, token) = with_a_lamp();
    let mut lamp = Device::connect(&platform, "lamp", &token);
    lamp.subscribe(REQUESTS);
    let waiting = sending(&platform, &["fan", "--payload", r#"{"speed": 1.50}"#, "--timeout", "60s", "--wait", "60s"]);
    let (topic, request) = lamp.message();
    assert!(request.starts_with(r#"{"name":"fan","payload":{"speed": 1.50},"expires":"#), "{request}");
    let response = topic.replace("/request", "/response/200");
    assert_eq!(lamp.publish(&response, r#"{"rpm": 900}"#), ReasonCode::Success);
    let done = told(waiting, 0);
    let shown = (&done["id"], &done["status"], &done["statusCode"], &done["response"]);
    assert_eq!(shown, (&json!(id(&topic)), &json!("succeeded"), &json!(200), &json!({"rpm": 900})));

    assert_eq!(platform.json(&["command", "get", "lamp", id(&topic)]), done);
    let listed = platform.json(&["command", "list", "lamp"]);
    assert_eq!(listed["items"], json!([done]));
    let table = platform.says(&["command", "list", "lamp"]);
    assert!(table.starts_with("ID ") && table.contains("succeeded") && table.lines().count() == 2, "{table}");
    let none = platform.refuses(&["command", "get", "lamp", &"0".repeat(32)]);
    assert_eq!(none, format!("drover: command {} does not exist", "0".repeat(32)));

    // Nobody's status, and the answer of somebody else.
    let sent = platform.json(&["command", "send", "lamp", "reboot"]);
    let (topic, _) = lamp.message();
    assert_eq!((&sent["id"], &sent["payload"]), (&json!(id(&topic)), &Value::Null));
    lamp.publish(&topic.replace("/request", "/response/done"), "");
    assert_eq!(lamp.publish(&response.replace("/lamp/", "/other/"), ""), ReasonCode::NotAuthorized);
    lamp.publish(&topic.replace("/request", "/response/503"), "busy");
    let failed = || platform.json(&["command", "get", "lamp", id(&topic)]);
    while failed()["status"] != "failed" {}
    assert_eq!((&failed()["statusCode"], &failed()["response"]), (&json!(503), &json!("busy")));
    assert!(platform.up.stop().success());
}

#[test]
fn who_waits_is_told_by_the_exit_code_what_the_device_answered() {
    let (platform, token) = with_a_lamp();
    let mut lamp = Device::connect(&platform, "lamp", &token);
    lamp.subscribe(REQUESTS);
    for (answer, code, status) in [("204", 0, "succeeded"), ("404", 3, "rejected"), ("503", 4, "failed")] {
        let waiting = sending(&platform, &["fan", "--wait", "60s"]);
        let (topic, _) = lamp.message();
        lamp.publish(&topic.replace("/request", &format!("/response/{answer}")), "");
        assert_eq!(told(waiting, code)["status"], status);
    }
    assert!(platform.up.stop().success());
}

#[test]
fn a_command_sent_again_under_its_key_is_the_same_command_though_the_platform_was_killed() {
    let (platform, token) = with_a_lamp();
    let mut lamp = Device::connect_to_kept(&platform, "lamp", &token);
    lamp.subscribe(REQUESTS);
    drop(lamp);
    let keyed = |platform: &Platform, arguments: &[&str]| {
        let order = ["fan", "--timeout", "1h", "--idempotency-key", "order-7"];
        told(sending(platform, &[&order[..], arguments].concat()), 0)
    };
    let sent = keyed(&platform, &[]);
    let id = sent["id"].as_str().expect("an id").to_owned();
    let Platform { up, data } = platform;
    up.kill();
    let platform = Platform { up: Up::on(data.path()), data };
    let again = keyed(&platform, &[]);
    assert_eq!((&again["id"], &again["createdAt"]), (&sent["id"], &sent["createdAt"]));
    let listed = platform.json(&["command", "list", "lamp"]);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    let other = platform.refuses(&["command", "send", "lamp", "pump", "--idempotency-key", "order-7"]);
    assert_eq!(other, format!("drover: Idempotency-Key: another command has the id {id}"));

    let mut lamp = Device::connect_to_kept(&platform, "lamp", &token);
    let (topic, _) = lamp.message();
    assert_eq!(self::id(&topic), id);
    lamp.publish(&topic.replace("/request", "/response/200"), "");
    assert_eq!(keyed(&platform, &["--wait", "60s"])["status"], "succeeded");
    assert!(platform.up.stop().success());
}

#[test]
fn a_device_that_was_away_gets_its_command_when_it_comes_back_to_its_session() {
    let (platform, token) = with_a_lamp();
    let mut lamp = Device::connect_to_kept(&platform, "lamp", &token);
    lamp.subscribe(REQUESTS);
    drop(lamp);
    let sent = platform.json(&["command", "send", "lamp", "fan", "--timeout", "1h"]);
    let state = || platform.json(&["command", "get", "lamp", sent["id"].as_str().expect("an id")])["status"].clone();
    while state() != "sent" {}
    let mut lamp = Device::connect_to_kept(&platform, "lamp", &token);
    let (topic, _) = lamp.message();
    assert_eq!(sent["id"], id(&topic));
    lamp.publish(&topic.replace("/request", "/response/204"), "");
    while state() != "succeeded" {}
    assert!(platform.up.stop().success());
}

#[test]
fn a_command_nobody_answers_has_timed_out_and_who_waits_is_told_so() {
    let (platform, _) = with_a_lamp();
    let waiting = sending(&platform, &["fan", "--timeout", "1s", "--wait", "60s"]);
    assert_eq!(told(waiting, 5)["status"], "timed_out");
    let open = told(sending(&platform, &["fan", "--timeout", "1h", "--wait", "10ms"]), 6);
    assert!(open["status"] == "queued" || open["status"] == "sent", "{open}");
    let refused = platform.refuses(&["command", "send", "lamp", "fan", "--timeout", "8d"]);
    assert!(refused.starts_with("drover: timeout: ") && refused.contains("limit 7d"), "{refused}");
    assert!(platform.up.stop().success());
}

#[test]
fn a_mistake_is_told_before_anything_is_sent() {
    let said = refused(&mut drover(&["command", "send", "lamp", "fan", "--payload", "{"]), 1);
    assert!(said.contains("--payload: is not JSON") && said.lines().count() == 1, "{said}");
    for wrong in [&["command"][..], &["command", "send", "lamp"], &["command", "send", "lamp", "fan", "--wait", "10"]] {
        refused(&mut drover(wrong), 2);
    }
}
