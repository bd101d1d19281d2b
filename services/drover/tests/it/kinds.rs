//! Device types and groups, from the command line to the registry.

use serde_json::{Value, json};

use crate::platform::Platform;

fn apply(platform: &Platform, noun: &str, kind: &str, name: &str, spec: Value) -> String {
    let object = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let file = platform.file("object.json", &object.to_string());
    platform.says(&[noun, "apply", "-f", &file])
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[test]
fn types_and_groups_are_applied_shown_and_deleted_and_devices_listed_by_them() {
    let platform = Platform::start();
    for (name, device_type, room) in [("a", "lamp", "hall"), ("b", "fan", "hall"), ("c", "lamp", "attic")] {
        let label = format!("room={room}");
        platform.says(&["device", "create", name, "--type", device_type, "--label", &label]);
    }
    let fields = json!({"brightness": {"type": "double", "unit": "lm"}});
    let applied = apply(&platform, "type", "DeviceType", "lamp", json!({"description": "Lights", "fields": fields}));
    assert_eq!(applied, "devicetype lamp is applied\n");
    assert_eq!(platform.json(&["type", "get", "lamp"])["spec"]["fields"], fields);
    assert!(platform.says(&["type", "list"]).contains("Lights"));
    assert_eq!(names(&platform.json(&["type", "list", "-n", "away"])), [""; 0], "P9");

    assert_eq!(apply(&platform, "group", "DeviceGroup", "house", json!({})), "devicegroup house is applied\n");
    let hall = json!({"selector": {"matchLabels": {"room": "hall"}}, "parent": "house"});
    apply(&platform, "group", "DeviceGroup", "hall", hall);
    assert!(platform.says(&["group", "list"]).lines().any(|line| line.contains("hall") && line.contains("house")));
    assert_eq!(names(&platform.json(&["group", "devices", "house"])), ["a", "b", "c"]);
    assert_eq!(names(&platform.json(&["group", "devices", "hall", "--all"])), ["a", "b"]);
    assert_eq!(names(&platform.json(&["group", "devices", "hall", "--type", "lamp"])), ["a"]);
    platform.refuses(&["group", "devices", "hall", "-n", "away"]);

    assert_eq!(names(&platform.json(&["device", "list", "--selector", "room=hall"])), ["a", "b"]);
    let chosen = ["device", "list", "--selector", "room in (hall,attic),!old", "--type", "lamp", "--all"];
    assert_eq!(names(&platform.json(&chosen)), ["a", "c"]);
    let refused = platform.refuses(&["device", "list", "-l", "room>1"]);
    assert!(refused.contains("labelSelector: expected =, ==, !=, in or notin at byte 5"), "{refused}");

    let refused = platform.refuses(&["group", "delete", "house"]);
    assert!(refused.contains("group hall is within house"), "{refused}");
    assert_eq!(platform.says(&["group", "delete", "hall"]), "devicegroup hall is deleted\n");
    platform.says(&["group", "delete", "house"]);
    assert_eq!(platform.says(&["type", "delete", "lamp"]), "devicetype lamp is deleted\n");
    platform.refuses(&["type", "get", "lamp"]);
}
