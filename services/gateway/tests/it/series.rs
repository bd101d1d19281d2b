//! What storage and the shadow service keep, over REST.

use drover_gateway::GatewayConfig;
use serde_json::{Value, json};

use crate::running::{ALL, Running, TOKEN};

#[test]
fn telemetry_is_points_or_steps_or_the_newest_of_each_field() {
    let gateway = Running::start();
    let ask = |query: &str| {
        let (status, answer) = gateway.ask("GET", &format!("/api/v1/tenants/home/devices/d/telemetry?{query}"), None);
        assert_eq!(status, 200, "{query}: {answer}");
        answer
    };
    let latest = json!({"time": "1970-01-01T00:00:01Z", "field": "temperature", "topic": "a", "value": 21.5});
    assert_eq!(ask(""), json!({"items": [latest]}));
    let points = ask("field=temperature&from=1000&to=1970-01-01T00:00:03Z");
    assert_eq!(
        (&points["items"][0]["time"], &points["items"][1]["value"]),
        (&json!("1970-01-01T00:00:01Z"), &json!(2.0))
    );
    assert_eq!(points["nextFrom"], "1970-01-01T00:00:03Z");
    let steps = ask("field=temperature&from=-1h&step=10s&limit=7");
    let step = &steps["items"][0];
    assert_eq!((&step["count"], &step["average"], &step["maximum"]), (&json!(7), &json!(1.5), &json!(10_000.0)));
    assert_eq!(steps.get("nextFrom"), None);
    let (_, nothing) = gateway.ask("GET", "/api/v1/devices/d/telemetry", None);
    assert_eq!(nothing, json!({"items": []}), "a device that never said anything");
}

#[test]
fn messages_are_shown_as_they_were_sent() {
    let gateway = Running::start();
    let (status, answer) = gateway.ask("GET", "/api/v1/devices/d/messages?from=0&to=2000&limit=3", None);
    let message =
        json!({"id": "01".repeat(16), "time": "1970-01-01T00:00:02Z", "topic": "a", "qos": 1, "payload": "d-3"});
    assert_eq!((status, answer), (200, json!({"items": [message]})));
}

#[test]
fn sql_is_asked_of_storage_in_the_name_of_the_tenant() {
    let gateway = Running::start();
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str())];
    let ask = |body: &str| gateway.send("POST", "/api/v1/tenants/home/query", &headers, body);
    let columns = json!([{"name": "tenant", "type": "text"}, {"name": "sql", "type": "text"}]);
    let found = json!({"columns": columns, "rows": [{"tenant": "home", "sql": "SELECT 1"}], "truncated": true});
    assert_eq!(ask(r#"{"sql": "SELECT 1"}"#), (200, found));
    let (status, refused) = ask(r#"{"sql": "SELECT * FROM nowhere"}"#);
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("sql")), "{refused}");
    for wrong in ["", "{}", "SELECT 1", r#"{"sql": 1}"#, r#"{"sql": "SELECT 1", "limit": 1}"#] {
        let (status, refused) = ask(wrong);
        assert_eq!((status, &refused["error"]["field"]), (400, &json!("body")), "{wrong}: {refused}");
    }
}

#[test]
fn a_query_that_makes_no_sense_is_refused_by_its_part() {
    let gateway = Running::start();
    for (query, field) in [
        ("telemetry?field=f&from=yesterday", "from"),
        ("telemetry?field=f&from=now&to=now", "from"),
        ("telemetry?field=f&to=x", "to"),
        ("telemetry?field=f&step=10", "step"),
        ("telemetry?field=f&limit=0", "limit"),
        ("telemetry?field=f&limit=10001", "limit"),
        ("telemetry?from=-1h", "from"),
        ("telemetry?step=1s", "step"),
        ("telemetry?feild=f", "query"),
        ("messages?limit=1001", "limit"),
        ("messages?field=f", "query"),
    ] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/devices/d/{query}"), None);
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{query}: {refused}");
    }
}

#[test]
fn a_shadow_is_made_read_listed_and_deleted() {
    let gateway = Running::start();
    let at = |rest: &str| format!("/api/v1/tenants/home/devices/d/{rest}");
    let wanted = json!({"state": {"desired": {"fan": "on"}}});
    assert_eq!(gateway.ask("GET", &at("shadow"), None).0, 404);
    for (method, path) in [("PATCH", at("shadow")), ("POST", at("shadow/config"))] {
        assert_eq!(gateway.ask(method, &path, Some(wanted.clone())), (200, wanted.clone()));
        assert_eq!(gateway.ask("GET", &path, None), (200, wanted.clone()));
    }
    assert_eq!(gateway.ask("GET", &at("shadows"), None), (200, json!({"items": ["", "config"]})));
    assert_eq!(gateway.ask("GET", "/api/v1/devices/d/shadow", None).0, 404, "of another tenant");
    assert_eq!(gateway.ask("DELETE", &at("shadow/config"), None), (200, json!({"version": 2})));
    assert_eq!(gateway.ask("GET", &at("shadow/config"), None).0, 404);
    let authorization = format!("Bearer {TOKEN}");
    let (status, refused) = gateway.send("PATCH", &at("shadow"), &[("authorization", &authorization)], "{");
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("body")));
}

#[test]
fn without_storage_and_shadow_the_rest_works_and_they_say_unavailable() {
    let gateway = Running::with(GatewayConfig::default(), &["registry", "rules"]);
    for path in ["telemetry", "messages", "shadow", "shadows"] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/devices/d/{path}"), None);
        assert_eq!((status, &refused["error"]["code"]), (503, &json!("unavailable")), "{path}: {refused}");
    }
    let (status, _) = gateway.ask("POST", "/api/v1/query", Some(json!({"sql": "SELECT 1"})));
    assert_eq!((status, gateway.ask("GET", "/api/v1/devices", None).0), (503, 200));
}

#[test]
fn the_document_of_the_interface_is_there_for_everybody() {
    let gateway = Running::with(GatewayConfig::default(), &ALL);
    let (status, document) = gateway.send("GET", "/api/openapi.json", &[], "");
    assert_eq!((status, &document["info"]["title"]), (200, &json!("Drover")));
    for path in ["devices/{device}/telemetry", "devices/{device}/commands", "stream", "types", "groups", "audit"] {
        for prefix in ["/api/v1", "/api/v1/tenants/{tenant}"] {
            assert_ne!(document["paths"][format!("{prefix}/query")]["post"], Value::Null, "{prefix}");
            assert_ne!(document["paths"][format!("{prefix}/{path}")]["get"], Value::Null, "{prefix}/{path}");
        }
    }
}
