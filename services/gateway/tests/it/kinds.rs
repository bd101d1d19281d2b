//! Device types and groups over REST, and devices that are chosen.

use serde_json::{Value, json};

use crate::running::Running;

fn names(list: &Value) -> String {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("name")).collect()
}

#[test]
fn a_type_is_put_shown_listed_and_deleted() {
    let gateway = Running::start();
    let fields = json!({"temperature": {"type": "double", "unit": "°C"}, "mode": {"type": "text"}});
    let spec = json!({"description": "A thermostat", "fields": fields});
    let path = "/api/v1/tenants/home/types/thermostat";
    let (status, put) = gateway.ask("PUT", path, Some(json!({"kind": "DeviceType", "spec": spec})));
    assert_eq!((status, &put["kind"], &put["apiVersion"]), (200, &json!("DeviceType"), &json!("drover.dev/v1alpha1")));
    assert_eq!((&put["spec"], &put["metadata"]["generation"]), (&spec, &json!(1)));
    assert_eq!(gateway.ask("GET", path, None), (200, put.clone()));
    assert_eq!(gateway.ask("GET", "/api/v1/types", None).1, json!({"items": []}), "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/types/thermostat", None).0, 404, "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/tenants/home/types", None), (200, json!({"items": [put]})));
    for (spec, field) in [
        (json!({"fields": {"a": {"type": "integer"}}}), "spec.fields.a.type"),
        (json!({"fields": {"a": {}}}), "spec.fields.a"),
        (json!({"field": {}}), "spec.field"),
    ] {
        let (status, refused) = gateway.ask("PUT", path, Some(json!({"spec": spec})));
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
    assert_eq!(gateway.ask("DELETE", path, None), (204, Value::Null));
    assert_eq!(gateway.ask("GET", path, None).0, 404);
}

#[test]
fn a_group_is_put_shown_listed_and_deleted() {
    let gateway = Running::start();
    let expressions =
        json!([{"key": "floor", "operator": "NotIn", "values": ["2"]}, {"key": "a", "operator": "Exists"}]);
    let selector = json!({"matchLabels": {"room": "hall"}, "matchExpressions": expressions});
    let spec = json!({"selector": selector, "types": ["lamp"], "parent": "house"});
    let path = "/api/v1/tenants/home/groups/hall";
    let (status, put) = gateway.ask("PUT", path, Some(json!({"kind": "DeviceGroup", "spec": spec})));
    assert_eq!((status, &put["kind"], &put["spec"]), (200, &json!("DeviceGroup"), &spec), "{put}");
    assert_eq!(gateway.ask("GET", path, None), (200, put.clone()));
    assert_eq!(gateway.ask("GET", "/api/v1/groups", None).1, json!({"items": []}), "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/groups/hall", None).0, 404, "P9");
    assert_eq!(gateway.ask("GET", "/api/v1/tenants/home/groups", None), (200, json!({"items": [put]})));
    let (_, everything) = gateway.ask("PUT", "/api/v1/groups/all", Some(json!({})));
    assert_eq!(everything["spec"], json!({"selector": {}}));
    let unknown = json!([{"key": "a", "operator": "Gt", "values": ["1"]}]);
    for (spec, field) in [
        (json!({"selector": {"matchExpressions": unknown}}), "spec.selector.matchExpressions[0].operator"),
        (json!({"selector": {"labels": {}}}), "spec.selector.labels"),
        (json!({"within": "house"}), "spec.within"),
    ] {
        let (status, refused) = gateway.ask("PUT", path, Some(json!({"spec": spec})));
        assert_eq!((status, &refused["error"]["field"]), (400, &json!(field)), "{refused}");
    }
    assert_eq!(gateway.ask("DELETE", path, None), (204, Value::Null));
    assert_eq!(gateway.ask("GET", path, None).0, 404);
}

#[test]
fn devices_are_listed_by_labels_by_type_and_by_group() {
    let gateway = Running::start();
    for (name, device_type, room, group) in
        [("a", "lamp", "hall", "g"), ("b", "fan", "hall", "g"), ("c", "lamp", "attic", "h")]
    {
        let metadata = json!({"name": name, "labels": {"room": room, "group": group}});
        let device = json!({"metadata": metadata, "spec": {"type": device_type}});
        assert_eq!(gateway.ask("POST", "/api/v1/devices", Some(device)).0, 201);
    }
    for (path, expected) in [
        ("devices?labelSelector=room%3Dhall", "ab"),
        ("devices?labelSelector=room%20in%20(hall%2Cattic)%2C!old&type=lamp", "ac"),
        ("devices?type=fan", "b"),
        ("devices?labelSelector=&type=", "abc"),
        ("devices?type=lamp&pageSize=1&pageToken=a", "c"),
        ("groups/g/devices", "ab"),
        ("groups/g/devices?type=lamp", "a"),
        ("tenants/away/groups/g/devices", ""),
    ] {
        let (status, list) = gateway.ask("GET", &format!("/api/v1/{path}"), None);
        assert_eq!((status, names(&list).as_str()), (200, expected), "{path}: {list}");
    }
    for (query, field) in [("labelSelector=a%3E1", "labelSelector"), ("pageSize=0", "pageSize"), ("pageSize=x", "")] {
        let (status, refused) = gateway.ask("GET", &format!("/api/v1/devices?{query}"), None);
        assert_eq!((status, refused["error"]["code"].as_str()), (400, Some("invalid_argument")), "{refused}");
        assert!(refused["error"]["field"].as_str().unwrap_or_default().starts_with(field), "{refused}");
    }
    assert_eq!(gateway.ask("GET", "/api/v1/devices?labels=a", None).0, 400);
}
