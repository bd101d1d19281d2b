//! Commands to devices over REST.

use serde_json::{Value, json};

use crate::running::{Running, TOKEN};

const PATH: &str = "/api/v1/tenants/home/devices/lamp/commands";

#[test]
fn a_command_is_sent_shown_and_listed() {
    let gateway = Running::start();
    let order = json!({"name": "fan", "payload": {"speed": 3}, "timeout": "30s"});
    let (status, sent) = gateway.ask("POST", PATH, Some(order));
    assert_eq!(status, 202, "{sent}");
    let id = sent["id"].as_str().expect("an id").to_owned();
    let expected = json!({"id": id, "device": "lamp", "name": "fan", "payload": {"speed": 3}, "status": "queued",
        "createdAt": "1970-01-01T00:00:01Z", "expiresAt": "1970-01-01T00:00:31Z", "updatedAt": "1970-01-01T00:00:00Z"});
    assert_eq!(sent, expected);
    assert_eq!(gateway.ask("GET", &format!("{PATH}/{id}"), None), (200, expected.clone()));
    let listed = json!({"items": [expected], "nextPageToken": "more"});
    assert_eq!(gateway.ask("GET", &format!("{PATH}?pageSize=1"), None), (200, listed));
    assert_eq!(gateway.ask("GET", "/api/v1/devices/lamp/commands", None).1["items"], json!([]), "of another tenant");
    assert_eq!(gateway.ask("GET", &format!("{PATH}/{}", "0".repeat(32)), None).0, 404);
}

#[test]
fn who_waits_gets_the_answer_when_it_comes_or_the_command_as_it_is() {
    let gateway = Running::start();
    let send =
        |name: &str, wait: &str| gateway.ask("POST", &format!("{PATH}?wait={wait}"), Some(json!({"name": name})));
    let (status, answered) = send("quick", "60s");
    assert_eq!((status, &answered["status"], &answered["response"]), (200, &json!("succeeded"), &json!("done")));
    assert_eq!((&answered["statusCode"], &answered["payload"]), (&json!(200), &Value::Null));
    let (status, open) = send("slow", "50ms");
    assert_eq!((status, &open["status"]), (202, &json!("queued")));
}

#[test]
fn a_command_sent_again_under_its_key_is_the_same_command() {
    let gateway = Running::start();
    let authorization = format!("Bearer {TOKEN}");
    let send = |key: &str, name: &str| {
        let headers = [("authorization", authorization.as_str()), ("idempotency-key", key)];
        gateway.send("POST", PATH, &headers, &json!({"name": name}).to_string())
    };
    let (status, first) = send("order-7", "fan");
    assert_eq!((status, first["id"].as_str().map(str::len)), (202, Some(32)), "{first}");
    assert_eq!(send("\"order-7\"", "fan"), (202, first.clone()), "in quotation marks, as the draft has it");
    assert_ne!(send("order-8", "fan").1["id"], first["id"]);
    assert_eq!(gateway.ask("GET", PATH, None).1["items"].as_array().map(Vec::len), Some(2));

    let (status, refused) = send("order-7", "pump");
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("already_exists")));
    assert_eq!(refused["error"]["field"], "Idempotency-Key");
    let (status, refused) = send(&"k".repeat(129), "fan");
    let error = &refused["error"];
    assert_eq!((status, &error["field"]), (400, &json!("Idempotency-Key")));
    assert_eq!((&error["limit"], &error["value"]), (&json!("128"), &json!("129")));
}

#[test]
fn a_number_keeps_its_digits() {
    let gateway = Running::start();
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let (status, _, text) = gateway.raw("POST", PATH, &headers, r#"{"name": "fan", "payload": {"t": 21.50}}"#);
    assert_eq!((status, text.contains(r#""payload":{"t": 21.50}"#)), (202, true), "{text}");
}

#[test]
fn what_is_wrong_is_named() {
    let gateway = Running::start();
    let refused = |path: &str, order: Value| {
        let (status, answer) = gateway.ask("POST", path, Some(order));
        assert_eq!(status, 400, "{answer}");
        let error = &answer["error"];
        let part = |part: &str| error[part].as_str().unwrap_or_default().to_owned();
        (part("field"), part("limit"))
    };
    let wait = |wait: &str| refused(&format!("{PATH}?wait={wait}"), json!({"name": "fan"}));
    assert_eq!(wait("61s"), ("wait".into(), "1m".into()));
    assert_eq!(wait("soon").0, "query");
    let timeout = |timeout: &str| refused(PATH, json!({"name": "fan", "timeout": timeout}));
    assert_eq!((timeout("999ms"), timeout("8d")), (("timeout".into(), "1s".into()), ("timeout".into(), "7d".into())));
    assert_eq!(refused(PATH, json!({"nam": "fan"})).0, "body");
    assert_eq!(refused(PATH, json!({})).0, "body");
    let (status, answer) = gateway.ask("GET", &format!("{PATH}/1"), None);
    assert_eq!((status, &answer["error"]["field"]), (400, &json!("command")));
}
