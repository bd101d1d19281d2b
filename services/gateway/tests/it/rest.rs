//! Devices, credentials, policies and rules over REST, and what is refused.

use drover_gateway::GatewayConfig;
use drover_host::ByteSize;
use serde_json::{Value, json};

use crate::running::{Running, TOKEN};

fn device(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"room": "kitchen"}}, "spec": {"type": "thermostat"}})
}

fn rule(topic: &str) -> Value {
    json!({"spec": {"sql": "SELECT * FROM 'a'", "actions": [{"kafka": {"topic": topic}}]}})
}

fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or("none")
}

#[test]
fn a_device_is_created_shown_changed_and_deleted() {
    let gateway = Running::start();
    let (status, created) = gateway.ask("POST", "/api/v1/devices", Some(device("t-1")));
    assert_eq!(status, 201, "{created}");
    assert_eq!((&created["device"], &created["token"]), (&json!("t-1"), &json!("once")));
    assert_eq!(created["endpoints"]["mqtt"], "127.0.0.1:1883");
    assert_eq!((&created["kind"], &created["spec"]["enabled"]), (&json!("Device"), &json!(true)));

    let (status, mut shown) = gateway.ask("GET", "/api/v1/devices/t-1", None);
    assert_eq!((status, &shown["metadata"]["namespace"]), (200, &json!("default")));
    assert_eq!((&shown["status"]["phase"], shown.get("token")), (&json!("NeverSeen"), None));

    shown["spec"]["enabled"] = false.into();
    let (status, changed) = gateway.ask("PUT", "/api/v1/devices/t-1", Some(shown));
    assert_eq!((status, &changed["status"]["phase"]), (200, &json!("Disabled")), "{changed}");
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["unconfirmedNodes"], json!(["node-2"]), "its connections may live there");

    // The answer can be sent back.
    let mut enabled = changed;
    enabled["spec"]["enabled"] = true.into();
    let (status, changed) = gateway.ask("PUT", "/api/v1/devices/t-1", Some(enabled));
    assert_eq!((status, &changed["unconfirmedNodes"]), (200, &json!([])), "{changed}");

    assert_eq!(gateway.ask("POST", "/api/v1/devices", Some(device("t-1"))).0, 409);
    let deleted = gateway.ask("DELETE", "/api/v1/devices/t-1", None);
    assert_eq!(deleted, (200, json!({"unconfirmedNodes": ["node-2"]})));
    assert_eq!(gateway.ask("GET", "/api/v1/devices/t-1", None).0, 404);
    assert_eq!(gateway.ask("PUT", "/api/v1/devices/t-1", Some(device("t-1"))).0, 404);
}

#[test]
fn a_device_that_was_made_without_its_token_gets_it_when_it_is_made_again() {
    let gateway = Running::start();
    let make = |device: &Value| gateway.ask("POST", "/api/v1/devices", Some(device.clone()));
    let tokens = |name: &str| {
        let (_, listed) = gateway.ask("GET", &format!("/api/v1/devices/{name}/credentials"), None);
        listed["items"].as_array().map(Vec::len)
    };
    let (status, failed) = make(&device("cut-1"));
    assert_eq!((status, code(&failed)), (503, "unavailable"), "{failed}");
    let mut other = device("cut-1");
    other["metadata"]["labels"]["room"] = "hall".into();
    assert_eq!((make(&other).0, tokens("cut-1")), (409, Some(0)), "it was not asked for like this");
    let (status, made) = make(&device("cut-1"));
    assert_eq!((status, &made["token"], &made["metadata"]["name"]), (201, &json!("once"), &json!("cut-1")), "{made}");
    assert_eq!((make(&device("cut-1")).0, tokens("cut-1")), (409, Some(1)), "no second token");

    assert_eq!(make(&device("late-1")).0, 503);
    assert_eq!((make(&device("late-1")).0, tokens("late-1")), (409, Some(0)), "it was made long ago");
}

#[test]
fn a_device_is_seen_by_its_messages_too() {
    let gateway = Running::start();
    let path = "/api/v1/tenants/home/devices";
    let (_, created) = gateway.ask("POST", path, Some(device("t-1")));
    assert_eq!(created["status"], json!({"phase": "NeverSeen"}));
    let heard = json!({"phase": "Disconnected", "lastSeen": "2023-11-14T22:13:21Z"});
    assert_eq!(gateway.ask("GET", &format!("{path}/t-1"), None).1["status"], heard);
    assert_eq!(gateway.ask("GET", path, None).1["items"][0]["status"], heard);
    // What was heard of a device of its name that is deleted is not heard of it.
    assert_eq!(gateway.ask("POST", path, Some(device("again-1"))).0, 201);
    for path in [path.to_owned(), format!("{path}/again-1")] {
        let (_, found) = gateway.ask("GET", &path, None);
        let found = found["items"].get(0).unwrap_or(&found);
        assert_eq!((&found["metadata"]["name"], &found["status"]), (&json!("again-1"), &json!({"phase": "NeverSeen"})));
    }

    let gateway = Running::with(GatewayConfig::default(), &["registry"]);
    assert_eq!(gateway.ask("POST", path, Some(device("t-1"))).0, 201);
    for path in [path.to_owned(), format!("{path}/t-1")] {
        let (status, found) = gateway.ask("GET", &path, None);
        let found = found["items"].get(0).unwrap_or(&found);
        assert_eq!((status, &found["status"]["phase"]), (200, &json!("NeverSeen")), "storage is away: {found}");
    }
}

#[test]
fn storage_that_hangs_is_waited_for_once_and_not_by_every_page() {
    let gateway = Running::start();
    for tenant in ["slow", "home"] {
        assert_eq!(gateway.ask("POST", &format!("/api/v1/tenants/{tenant}/devices"), Some(device("t-1"))).0, 201);
    }
    let phase = |tenant: &str| {
        let (_, found) = gateway.ask("GET", &format!("/api/v1/tenants/{tenant}/devices"), None);
        found["items"][0]["status"]["phase"].clone()
    };
    assert_eq!(phase("home"), "Disconnected");
    assert_eq!(phase("slow"), "NeverSeen", "it was given up");
    assert_eq!(phase("home"), "NeverSeen", "it is not asked for a while");
}

#[test]
fn a_list_comes_in_pages_of_one_tenant() {
    let gateway = Running::start();
    for (tenant, name) in [("home", "a"), ("home", "b"), ("home", "c"), ("away", "d")] {
        assert_eq!(gateway.ask("POST", &format!("/api/v1/tenants/{tenant}/devices"), Some(device(name))).0, 201);
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().expect("name").to_owned()).collect()
    };
    let (_, first) = gateway.ask("GET", "/api/v1/tenants/home/devices?pageSize=2", None);
    assert_eq!((names(&first), &first["nextPageToken"]), (vec!["a".into(), "b".into()], &json!("b")));
    let (_, second) = gateway.ask("GET", "/api/v1/tenants/home/devices?pageSize=2&pageToken=b", None);
    assert_eq!((names(&second), second.get("nextPageToken")), (vec!["c".to_owned()], None));
    let (_, default) = gateway.ask("GET", "/api/v1/devices", None);
    assert_eq!(default, json!({"items": []}));
    for query in ["pageSize=0", "pageSize=1001", "pageSize=x", "page=2"] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/devices?{query}"), None);
        assert_eq!((status, code(&refused)), (400, "invalid_argument"), "{query}: {refused}");
    }
}

#[test]
fn secrets_are_shown_once_and_revoked_by_their_devices_path_only() {
    let gateway = Running::start();
    for name in ["t-1", "t-2"] {
        assert_eq!(gateway.ask("POST", "/api/v1/devices", Some(device(name))).0, 201);
    }
    let path = "/api/v1/devices/t-1/credentials";
    let (status, issued) = gateway.ask("POST", path, Some(json!({"kind": "certificate"})));
    assert_eq!(
        (status, &issued["certificatePem"], &issued["privateKeyPem"]),
        (201, &json!("CERTIFICATE"), &json!("KEY"))
    );
    assert_eq!((&issued["caPem"], &issued["credential"]), (&json!("CA"), &json!("c2")));

    let (status, issued) = gateway.ask("POST", path, Some(json!({"kind": "preSharedKey"})));
    assert_eq!((status, &issued["preSharedKey"], &issued["credential"]), (201, &json!("KEY"), &json!("c3")));
    assert_eq!(issued["identity"], "default/t-1");

    let (_, listed) = gateway.ask("GET", path, None);
    let expected = json!({"items": [
        {"id": "c0", "device": "t-1", "kind": "token", "creationTimestamp": "1970-01-01T00:00:01Z"},
        {"id": "c2", "device": "t-1", "kind": "certificate", "creationTimestamp": "1970-01-01T00:00:01Z"},
        {"id": "c3", "device": "t-1", "kind": "preSharedKey", "creationTimestamp": "1970-01-01T00:00:01Z"},
    ]});
    assert_eq!(listed, expected);

    assert_eq!(gateway.ask("DELETE", "/api/v1/devices/t-2/credentials/c0", None).0, 404);
    assert_eq!(
        gateway.ask("DELETE", "/api/v1/devices/t-1/credentials/c0", None),
        (200, json!({"unconfirmedNodes": []}))
    );
    assert_eq!(gateway.ask("DELETE", "/api/v1/devices/t-1/credentials/c0", None).0, 404);
    let (status, refused) = gateway.ask("POST", path, Some(json!({"kind": "password"})));
    assert_eq!((status, &refused["error"]["field"]), (400, &json!("kind")), "{refused}");
    assert_eq!(gateway.ask("GET", "/api/v1/devices/none/credentials", None).0, 404);
}

#[test]
fn a_policy_is_put_shown_and_deleted() {
    let gateway = Running::start();
    let statement = json!({"effect": "allow", "actions": ["publish"], "resources": ["a/#"]});
    let policy = json!({"spec": {"statements": [statement]}});
    let (status, put) = gateway.ask("PUT", "/api/v1/policies/p", Some(policy));
    assert_eq!((status, &put["metadata"]["name"], put.get("status")), (200, &json!("p"), None), "{put}");
    assert_eq!(gateway.ask("GET", "/api/v1/policies/p", None), (200, put.clone()));
    assert_eq!(gateway.ask("GET", "/api/v1/policies", None), (200, json!({"items": [put]})));
    assert_eq!(gateway.ask("DELETE", "/api/v1/policies/p", None), (204, Value::Null));
    assert_eq!(gateway.ask("GET", "/api/v1/policies/p", None).0, 404);
}

#[test]
fn a_function_is_put_shown_listed_and_deleted() {
    let gateway = Running::start();
    let spec =
        json!({"source": "function main(x) { return x; }", "examples": [{"input": null, "output": [1.5, null]}]});
    let (status, put) = gateway.ask("PUT", "/api/v1/functions/f", Some(json!({"kind": "Function", "spec": spec})));
    assert_eq!((status, &put["spec"]["routine"], &put["kind"]), (200, &json!("main"), &json!("Function")), "{put}");
    assert_eq!((&put["spec"]["examples"], &put["metadata"]["generation"]), (&spec["examples"], &json!(1)));
    assert_eq!(gateway.ask("GET", "/api/v1/functions/f", None), (200, put.clone()));
    assert_eq!(gateway.ask("GET", "/api/v1/tenants/home/functions", None).1, json!({"items": []}), "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/functions", None), (200, json!({"items": [put]})));
    for (spec, field) in [
        (json!({"source": ""}), "spec.source"),
        (json!({"source": "x", "routine": "a b"}), "spec.routine"),
        (json!({"source": "x", "examples": [{"input": 1}]}), "spec.examples[0]"),
        (json!({"source": "x", "sauce": 1}), "spec.sauce"),
    ] {
        let (status, refused) = gateway.ask("PUT", "/api/v1/functions/g", Some(json!({"spec": spec})));
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
    assert_eq!(gateway.ask("DELETE", "/api/v1/functions/f", None), (204, Value::Null));
    assert_eq!(gateway.ask("GET", "/api/v1/functions/f", None).0, 404);
}

#[test]
fn a_certificate_authority_is_put_shown_listed_and_deleted() {
    let gateway = Running::start();
    let spec = json!({"certificate": "pem", "labels": {"site": "north"}, "template": {"type": "lamp"}});
    let path = "/api/v1/tenants/home/authorities/works";
    let (status, put) = gateway.ask("PUT", path, Some(json!({"kind": "CertificateAuthority", "spec": spec})));
    assert_eq!((status, &put["kind"], &put["spec"]["labels"]), (200, &json!("CertificateAuthority"), &spec["labels"]));
    let template = &put["spec"]["template"];
    assert_eq!((&template["type"], &template["policies"]), (&json!("lamp"), &json!(["default"])), "{put}");
    assert_eq!(gateway.ask("GET", path, None), (200, put.clone()));
    assert_eq!(gateway.ask("GET", "/api/v1/authorities", None).1, json!({"items": []}), "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/tenants/home/authorities", None), (200, json!({"items": [put]})));
    for (spec, field) in [
        (json!({}), "spec"),
        (json!({"certificate": "pem", "template": {"policy": "p"}}), "spec.template.policy"),
        (json!({"certificate": "pem", "subject": "s"}), "spec.subject"),
    ] {
        let (status, refused) = gateway.ask("PUT", path, Some(json!({"spec": spec})));
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
    assert_eq!(gateway.ask("DELETE", path, None), (204, Value::Null));
    assert_eq!(gateway.ask("GET", path, None).0, 404);
}

#[test]
fn a_rule_is_shown_with_what_the_rules_service_says_of_it() {
    let gateway = Running::start();
    let (status, put) = gateway.ask("PUT", "/api/v1/rules/seen", Some(rule("home.hot")));
    assert_eq!((status, &put["status"]["matched"]), (200, &json!("7")), "{put}");
    assert_eq!(gateway.ask("PUT", "/api/v1/rules/other", Some(rule("home.hot"))).0, 200);
    let (_, other) = gateway.ask("GET", "/api/v1/rules/other", None);
    assert_eq!(other["status"]["conditions"][0]["reason"], "NotObserved");
    let (_, list) = gateway.ask("GET", "/api/v1/rules", None);
    assert_eq!(list["items"][1]["status"]["matched"], "7");
    assert_eq!(gateway.ask("DELETE", "/api/v1/rules/other", None).0, 204);

    for (spec, field) in [
        (json!({"sql": "SELECT", "actions": [{"kafka": {"topic": "t"}}]}), "spec.sql"),
        (json!({"sql": "", "actions": []}), "spec.actions"),
        (json!({"sql": "", "actions": [{"kafak": {"topic": "t"}}]}), "spec.actions[0].kafak"),
        (json!({"sql": "", "actions": [{"kafka": {"topic": "drover.x"}}]}), "spec.actions[0].kafka.topic"),
    ] {
        let (status, refused) = gateway.ask("PUT", "/api/v1/rules/r", Some(json!({"spec": spec})));
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
}

#[test]
fn a_replay_goes_on_part_by_part() {
    let gateway = Running::start();
    let path = "/api/v1/rules/seen/replay";
    let (status, part) = gateway.ask("POST", path, Some(json!({"from": "errors"})));
    let counts = json!({"read": 1_000, "replayed": 1, "emitted": 0, "failed": 0, "skipped": 0, "left": 0, "next": "0:1000:1500"});
    assert_eq!((status, part), (200, counts));
    let order = json!({"from": "log", "since": "1970-01-01T00:00:07Z", "cursor": "0:1000:1500"});
    let (_, last) = gateway.ask("POST", path, Some(order));
    assert_eq!((&last["read"], &last["emitted"], last.get("next")), (&json!(500), &json!(7_000), None));
    for (order, field) in [
        (json!({"from": "log"}), "since"),
        (json!({"from": "log", "since": "soon"}), "since"),
        (json!({"from": "x"}), "from"),
    ] {
        let (status, refused) = gateway.ask("POST", path, Some(order));
        assert_eq!((status, refused["error"]["field"].as_str()), (400, Some(field)), "{refused}");
    }
}

#[test]
fn a_definition_is_shown_while_the_rules_service_is_away() {
    let gateway = Running::with(GatewayConfig::default(), &["registry"]);
    assert_eq!(gateway.ask("PUT", "/api/v1/rules/seen", Some(rule("t"))).0, 200);
    let (status, list) = gateway.ask("GET", "/api/v1/rules", None);
    assert_eq!((status, &list["items"][0]["status"]["conditions"][0]["reason"]), (200, &json!("StatusUnavailable")));
    let (status, health) = gateway.ask("GET", "/api/v1/health", None);
    assert_eq!((status, &health["registry"]), (200, &json!("ok")));
    assert_ne!(health["rules"], "ok");
}

#[test]
fn without_the_registry_answers_say_unavailable() {
    let gateway = Running::with(GatewayConfig::default(), &["rules"]);
    for path in ["/api/v1/health", "/api/v1/devices", "/api/v1/rules/r"] {
        let (status, refused) = gateway.ask("GET", path, None);
        assert_eq!((status, code(&refused)), (503, "unavailable"), "{path}: {refused}");
    }
}

#[test]
fn everything_but_healthz_and_the_document_demands_a_token() {
    let gateway = Running::start();
    assert_eq!(gateway.send("GET", "/healthz", &[], "").0, 200);
    assert_eq!(gateway.send("GET", "/", &[], "").0, 401);
    for path in ["/api/v1/devices", "/api/v1/health", "/api/v1/stream?filter=a", "/nowhere", "/api/v1/tenants/x/rules"]
    {
        for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", TOKEN)]] {
            let (status, refused) = gateway.send("GET", path, headers, "");
            assert_eq!((status, code(&refused)), (401, "unauthenticated"), "{path}: {refused}");
        }
    }
}

#[test]
fn who_looks_for_the_side_of_devices_is_told_where_it_is() {
    let gateway = Running::start();
    for path in ["/update?api_key=x", "/v1/topics/a", "/mqtt", "/api/v2/write"] {
        let (status, refused) = gateway.send("POST", path, &[], "");
        assert_eq!((status, code(&refused)), (404, "not_found"), "{path}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.ends_with("devices are served at 127.0.0.1:8080"), "{message}");
    }
}

#[test]
fn foreign_pages_are_refused_on_loopback() {
    let gateway = Running::start();
    let token = format!("Bearer {TOKEN}");
    for foreign in [("origin", "http://example.org"), ("host", "example.org"), ("origin", "null")] {
        let (status, refused) = gateway.send("GET", "/api/v1/devices", &[("authorization", &token), foreign], "");
        assert_eq!((status, code(&refused)), (403, "permission_denied"), "{foreign:?}: {refused}");
    }
    let own = ("origin", "http://localhost:8080");
    assert_eq!(gateway.send("GET", "/api/v1/devices", &[("authorization", &token), own], "").0, 200);
}

#[test]
fn what_is_no_request_of_ours_is_refused_in_the_one_shape() {
    let gateway = Running::start();
    let token = format!("Bearer {TOKEN}");
    for (method, path, body, status, expected) in [
        ("GET", "/nowhere", "", 404, "not_found"),
        ("GET", "/api/v1/nowhere", "", 404, "not_found"),
        ("DELETE", "/api/v1/devices", "", 501, "unimplemented"),
        ("POST", "/api/v1/tenants/home/rules", "{}", 501, "unimplemented"),
        ("POST", "/api/v1/devices", "{\"metadata\":", 400, "invalid_argument"),
        ("POST", "/api/v1/devices", "", 400, "invalid_argument"),
        ("POST", "/api/v1/devices", "[]", 400, "invalid_argument"),
        ("POST", "/api/v1/devices", "{\"metadata\": {\"name\": \"a/b\"}}", 400, "invalid_argument"),
        ("GET", "/api/v1/devices/a%2Fb", "", 400, "invalid_argument"),
        ("GET", "/api/v1/devices/%FF", "", 400, "invalid_argument"),
        ("GET", "/api/v1/tenants/A%20B/devices", "", 400, "invalid_argument"),
    ] {
        let (found, refused) = gateway.send(method, path, &[("authorization", &token)], body);
        assert_eq!((found, code(&refused)), (status, expected), "{method} {path} {body}: {refused}");
        assert!(refused["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

#[test]
fn a_body_is_taken_at_its_limit_and_refused_one_byte_over() {
    let config = GatewayConfig { body_max: ByteSize::from_bytes(1_024), ..GatewayConfig::default() };
    let gateway = Running::with(config, &["registry", "rules"]);
    let token = format!("Bearer {TOKEN}");
    let body = |bytes: usize| format!("{:<bytes$}", device("t-1").to_string());
    let (status, refused) = gateway.send("POST", "/api/v1/devices", &[("authorization", &token)], &body(1_025));
    assert_eq!((status, &refused["error"]["limit"], &refused["error"]["value"]), (400, &json!("1024"), &json!("1025")));
    assert_eq!(gateway.send("POST", "/api/v1/devices", &[("authorization", &token)], &body(1_024)).0, 201);
}

#[test]
fn requests_are_counted_by_route_and_never_by_id() {
    let gateway = Running::start();
    gateway.ask("GET", "/api/v1/tenants/home/devices/secret-name", None);
    gateway.ask("PATCH", "/api/v1/devices", None);
    let metrics = gateway.metrics.encode();
    let route = r#"drover_gateway_requests_total{method="GET",route="/api/v1/tenants/{tenant}/devices/{device}",status="404"} 1"#;
    assert!(metrics.contains(route), "{metrics}");
    assert!(metrics.contains(r#"method="other""#) && !metrics.contains("PATCH"), "{metrics}");
    assert!(!metrics.contains("secret-name"), "{metrics}");
}
