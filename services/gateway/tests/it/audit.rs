//! The audit trail over REST. Roles and tenants are asked for in `tokens`.

use serde_json::{Value, json};

use crate::running::Running;

fn items(gateway: &Running, query: &str) -> (Vec<Value>, Value) {
    let (status, mut page) = gateway.ask("GET", &format!("/api/v1/tenants/home/audit{query}"), None);
    assert_eq!(status, 200, "{page}");
    (page["items"].as_array_mut().map(std::mem::take).expect("items"), page["nextPageToken"].take())
}

#[test]
fn entries_are_shown_newest_first_page_by_page_without_what_they_have_not() {
    let gateway = Running::start();
    let (first, next) = items(&gateway, "");
    let common = json!({"time": "2023-11-14T22:13:20Z", "actor": "token ci", "kind": "device", "name": "home-d", "revision": "7"});
    let with = |more: Value| {
        let mut entry = common.as_object().expect("an object").clone();
        entry.extend(more.as_object().expect("an object").clone());
        Value::Object(entry)
    };
    let updated = with(json!({"id": "3", "action": "updated", "changed": ["spec.enabled", "…"]}));
    assert_eq!(first, [with(json!({"id": "4", "action": "deleted"})), updated]);
    assert_eq!(next, "3");
    let (second, next) = items(&gateway, "?pageToken=3");
    assert_eq!(second[0], with(json!({"id": "2", "action": "created", "kind": "credential", "device": "d"})));
    assert_eq!(next, Value::Null, "this was the last page");
    let (_, of_default) = gateway.ask("GET", "/api/v1/audit", None);
    assert_eq!(of_default["items"][0]["name"], "default-d");
}

#[test]
fn filters_reach_the_registry_and_so_does_who_asks() {
    let gateway = Running::start();
    let query = "?from=1000&to=2023-11-14T22:13:20Z&kind=rule&name=r&actor=token%20ci&pageSize=9&pageToken=2";
    let (asked, _) = items(&gateway, query);
    assert_eq!(asked[0]["name"], "1000 1700000000000 rule r token ci 9");
    assert_eq!(asked[0]["actor"], "administrator");
    let (by_default, _) = items(&gateway, "?pageToken=2");
    assert_eq!(by_default[0]["name"], "0 0    100");

    let (_, made) = gateway.ask("POST", "/api/v1/tenants/home/tokens", Some(json!({"name": "ops", "role": "admin"})));
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    // What a client says of itself is not handed on.
    let headers = [("authorization", bearer.as_str()), ("drover-actor", "administrator")];
    let (status, page) = gateway.send("GET", "/api/v1/tenants/home/audit?pageToken=2", &headers, "");
    assert_eq!((status, &page["items"][0]["actor"]), (200, &json!("token ops")));
}

#[test]
fn a_query_that_makes_no_sense_is_refused_by_its_field() {
    let gateway = Running::start();
    for (query, field) in [
        ("from=yesterday", "from"),
        ("to=", "to"),
        ("from=2&to=2", "from"),
        ("pageSize=0", "pageSize"),
        ("pageSize=1001", "pageSize"),
        ("who=me", "query"),
    ] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/audit?{query}"), None);
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{query}");
    }
}
