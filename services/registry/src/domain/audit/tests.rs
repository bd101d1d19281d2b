//! What an entry says of a change, and what it does not.

use drover_types::object::RuleSpec;
use drover_types::{DeviceId, TenantId};

use super::*;
use crate::conformance::device;
use crate::object::{Credential, CredentialKind, Meta, NONCE_BYTES, Sealed};

fn change(before: Option<Object>, after: Option<Object>) -> Change {
    let key = after.as_ref().or(before.as_ref()).expect("one of both").key();
    Change { key, before, after, time_ms: 5, actor: "token ci".into(), revision: 7 }
}

fn changed(before: &Object, after: &Object) -> Vec<String> {
    entry(&change(Some(before.clone()), Some(after.clone()))).map(|entry| entry.changed).unwrap_or_default()
}

fn rule(spec: Value) -> Object {
    let spec: RuleSpec = serde_json::from_value(spec).expect("a spec");
    Object { spec: Spec::Rule(Box::new(spec)), ..device("r") }
}

#[test]
fn an_entry_says_who_did_what_to_which_object_and_when() {
    let d = device("d");
    let made = entry(&change(None, Some(d.clone()))).expect("an entry");
    assert_eq!((made.action, made.actor.as_str(), made.time_ms, made.revision), (Action::Created, "token ci", 5, 7));
    assert_eq!((made.kind, made.name.as_str(), made.changed.len()), (Kind::Device, "d", 0));
    let gone = entry(&Change { actor: String::new(), ..change(Some(d), None) }).expect("an entry");
    assert_eq!((gone.action, gone.actor.as_str()), (Action::Deleted, UNKNOWN));
}

#[test]
fn an_update_names_what_differs_and_no_value() {
    let mut before = device("d");
    before.meta.labels.insert("room".into(), "hall".into());
    let mut after = before.clone();
    after.meta.labels.insert("room".into(), "kitchen".into());
    after.meta.labels.insert("floor".into(), "1".into());
    if let Spec::Device(spec) = &mut after.spec {
        spec.enabled = !spec.enabled;
        spec.attributes.insert("serial".into(), "A-17".into());
    }
    let expected = ["metadata.labels.floor", "metadata.labels.room", "spec.attributes.serial", "spec.enabled"];
    assert_eq!(changed(&before, &after), expected);
}

#[test]
fn within_a_list_of_the_same_length_the_place_is_told_and_else_the_list() {
    let republish = |topic: &str| json!({"republish": {"topic": topic}});
    let one = rule(json!({"sql": "SELECT 1 FROM 'a'", "actions": [republish("a"), republish("b")]}));
    let other = rule(json!({"sql": "SELECT 2 FROM 'a'", "actions": [republish("a"), republish("c")]}));
    let fewer = rule(json!({"sql": "SELECT 1 FROM 'a'", "actions": [republish("a")]}));
    assert_eq!(changed(&one, &other), ["spec.actions[1].republish.topic", "spec.sql"]);
    assert_eq!(changed(&one, &fewer), ["spec.actions"]);
    let failing = rule(json!({"sql": "SELECT 1 FROM 'a'", "actions": [republish("a")], "errorAction": republish("e")}));
    let both = ["spec.errorAction.republish.qos", "spec.errorAction.republish.topic"];
    assert_eq!(changed(&fewer, &failing), both, "the QoS that was not named is shown as well");
}

#[test]
fn what_differs_only_in_being_there_is_told_too() {
    let mut found = Vec::new();
    differences(&json!({"a": {"b": null}, "c": {}}), &json!({"a": {}}), String::new(), 0, &mut found);
    assert_eq!(found, ["a", "c"]);
}

#[test]
fn paths_are_bounded_in_number_and_length() {
    let (before, mut after) = (device("d"), device("d"));
    for i in 0..PATHS_MAX {
        after.meta.labels.insert(format!("l{i:02}"), "x".into());
    }
    assert_eq!(changed(&before, &after).len(), PATHS_MAX);
    after.meta.labels.insert("more".into(), "x".into());
    let found = changed(&before, &after);
    assert_eq!((found.len(), found.last().map(String::as_str)), (PATHS_MAX + 1, Some(MORE)));
    let mut long = device("d");
    long.meta.labels.insert("é".repeat(PATH_BYTES_MAX), "x".into());
    let found = changed(&before, &long);
    assert!(found[0].len() <= PATH_BYTES_MAX && found[0].ends_with("é…"), "{found:?}");
}

#[test]
fn a_secret_that_is_only_sealed_anew_is_no_entry_and_a_credentials_entry_names_its_device() {
    let credential = |nonce: u8| {
        let sealed = Some(Sealed { master_key: "k".into(), nonce: [nonce; NONCE_BYTES], secret: vec![nonce; 48] });
        let device = DeviceId::new("d").expect("valid");
        let kind = CredentialKind::PreSharedKey;
        let meta = Meta { tenant: TenantId::default_tenant(), name: "id".into(), ..device_meta() };
        Object { meta, spec: Spec::Credential(Credential { device, kind, expires_ms: None, digest: [7; 32], sealed }) }
    };
    assert_eq!(entry(&change(Some(credential(1)), Some(credential(2)))), None);
    let made = entry(&change(None, Some(credential(1)))).expect("an entry");
    assert_eq!((made.kind, made.name.as_str(), made.device.as_deref()), (Kind::Credential, "id", Some("d")));
}

fn device_meta() -> Meta {
    device("d").meta
}

#[test]
fn a_query_wants_what_all_of_its_filters_want_and_a_devices_name_its_credentials() {
    let page = PageRequest { tenant: TenantId::default_tenant(), size: 0, after: String::new() };
    let any = Query { page, from_ms: 0, to_ms: 0, kind: None, name: String::new(), actor: String::new() };
    let made = entry(&change(None, Some(device("d")))).expect("an entry");
    let credential = Entry { kind: Kind::Credential, name: "id".into(), device: Some("d".into()), ..made.clone() };
    let wanted = |query: &Query| [query.wants(&made), query.wants(&credential)];
    assert_eq!(wanted(&any), [true, true]);
    assert_eq!(wanted(&Query { name: "d".into(), ..any.clone() }), [true, true]);
    assert_eq!(wanted(&Query { name: "id".into(), ..any.clone() }), [false, true]);
    assert_eq!(wanted(&Query { kind: Some(Kind::Device), name: "d".into(), ..any.clone() }), [true, false]);
    assert_eq!(wanted(&Query { actor: "administrator".into(), ..any.clone() }), [false, false]);
    let long = Query { actor: "a".repeat(ACTOR_BYTES_MAX + 1), ..any };
    assert_eq!(long.check().expect_err("too long").field.as_deref(), Some("actor"));
}

#[test]
fn a_page_begins_where_the_one_before_ended_and_never_behind_its_end() {
    let page = |after: &str| PageRequest { tenant: TenantId::default_tenant(), size: 0, after: after.to_owned() };
    let query = |to_ms, after: &str| Query {
        page: page(after),
        from_ms: 0,
        to_ms,
        kind: None,
        name: String::new(),
        actor: String::new(),
    };
    let begins = |query: Query| query.beginning(1_000).map(|position| position.to_string());
    assert_eq!(begins(query(0, "")), Ok(Position::at(1_000 + AHEAD_MS).to_string()));
    assert_eq!(begins(query(900, "")), Ok("900.0.".to_owned()));
    assert_eq!(begins(query(900, "800.3.device/d")), Ok("800.3.device/d".to_owned()));
    assert_eq!(begins(query(900, "950.3.device/d")), Ok("900.0.".to_owned()));
    let refused = begins(query(0, "device/d")).expect_err("no position");
    assert_eq!(refused.field.as_deref(), Some("page_token"));
}
