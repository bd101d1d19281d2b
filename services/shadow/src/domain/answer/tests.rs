//! Requests against shadows, against AWS's letter; and the laws of merging and of delta.

use drover_types::limits::SHADOW_STATE_BYTES_MAX;
use proptest::prelude::*;

use super::*;

/// When the first request comes; each further one comes a second later.
const START_S: u64 = 1_795_000_000;

/// One shadow and what came of the requests to it.
struct Bench {
    key: ShadowKey,
    shadow: Option<Shadow>,
    now_s: u64,
}

impl Bench {
    fn new(key: &str) -> Self {
        Self { key: ShadowKey::parse(key).expect("a key"), shadow: None, now_s: START_S }
    }

    fn ask(&mut self, operation: ShadowOperation, payload: &[u8]) -> Outcome {
        let found = Found { key: &self.key, shadow: self.shadow.as_ref(), of_device: 0 };
        let outcome = answer(found, operation, payload, self.now_s);
        self.now_s += 1;
        if let Some(after) = &outcome.after {
            self.shadow = Some(after.clone());
        }
        outcome
    }

    fn update(&mut self, payload: Value) -> Outcome {
        self.ask(ShadowOperation::Update, payload.to_string().as_bytes())
    }

    fn get(&mut self) -> Value {
        parse(&self.ask(ShadowOperation::Get, b"").answer)
    }
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

fn notice(outcome: &Outcome, name: &str) -> Option<Value> {
    outcome.notices.iter().find(|(suffix, _)| *suffix == name).map(|(_, json)| parse(json))
}

/// The state after some updates; each accepted.
fn state_after(updates: &[Value]) -> Value {
    let mut bench = Bench::new("home/lamp");
    for state in updates {
        assert_eq!(bench.update(json!({"state": state})).code, 0, "{state}");
    }
    let mut state = bench.get()["state"].take();
    state.as_object_mut().expect("an object").shift_remove("delta");
    state
}

#[test]
fn an_update_is_answered_with_what_was_sent_and_when() {
    let mut bench = Bench::new("home/lamp");
    let sent =
        json!({"state": {"reported": {"on": true, "rgb": [1, 2], "a": {"b": 1, "c": null}}}, "clientToken": "t"});
    let outcome = bench.update(sent);
    let at = json!({"timestamp": START_S});
    assert_eq!(
        parse(&outcome.answer),
        json!({
            "state": {"reported": {"on": true, "rgb": [1, 2], "a": {"b": 1, "c": null}}},
            "metadata": {"reported": {"on": at, "rgb": [at, at], "a": {"b": at}}},
            "version": 1, "timestamp": START_S, "clientToken": "t",
        })
    );
    assert_eq!(notice(&outcome, "delta"), None, "nothing is desired");
    let current = json!({
        "state": {"reported": {"on": true, "rgb": [1, 2], "a": {"b": 1}}},
        "metadata": {"reported": {"on": at, "rgb": [at, at], "a": {"b": at}}},
        "version": 1,
    });
    let previous = json!({"state": {}, "metadata": {}, "version": 0});
    let documents = json!({"previous": previous, "current": current, "timestamp": START_S, "clientToken": "t"});
    assert_eq!(notice(&outcome, "documents"), Some(documents));
    let change = json!({
        "state": {"reported": {"on": true, "rgb": [1, 2], "a": {"b": 1, "c": null}}},
        "metadata": {"reported": {"on": at, "rgb": [at, at], "a": {"b": at}}},
        "version": 1, "timestamp": START_S,
    });
    assert_eq!(outcome.change.as_deref().map(parse), Some(change));
}

#[test]
fn updates_merge_as_aws_merges() {
    let lamp = json!({"desired": {"color": "red", "nested": {"x": 1, "y": {"z": 2}}, "list": [1, 2, 3]}});
    for (update, expected) in [
        (json!({}), lamp.clone()),
        (
            json!({"desired": {"nested": {"x": 5}}}),
            json!({"desired": {"color": "red", "nested": {"x": 5, "y": {"z": 2}}, "list": [1, 2, 3]}}),
        ),
        (
            json!({"desired": {"list": [9]}}),
            json!({"desired": {"color": "red", "nested": {"x": 1, "y": {"z": 2}}, "list": [9]}}),
        ),
        (
            json!({"desired": {"color": null}}),
            json!({"desired": {"nested": {"x": 1, "y": {"z": 2}}, "list": [1, 2, 3]}}),
        ),
        (
            json!({"desired": {"nested": {"y": {"z": null}}}}),
            json!({"desired": {"color": "red", "nested": {"x": 1}, "list": [1, 2, 3]}}),
        ),
        (
            json!({"desired": {"nested": 7, "list": {"a": 1}, "color": {}}}),
            json!({"desired": {"nested": 7, "list": {"a": 1}}}),
        ),
        (json!({"desired": null}), json!({})),
        (json!({"desired": {"none": null, "empty": {}}}), lamp.clone()),
        (json!({"desired": null, "reported": {"color": "blue"}}), json!({"reported": {"color": "blue"}})),
    ] {
        assert_eq!(state_after(&[lamp.clone(), update.clone()]), expected, "{update}");
    }
}

#[test]
fn metadata_tells_for_each_value_when_it_was_last_set_in_seconds() {
    let mut bench = Bench::new("home/lamp");
    bench.update(json!({"state": {"desired": {"a": 1, "b": {"c": 1, "d": 1}, "e": [1, {"f": 2}]}}}));
    bench.update(json!({"state": {"desired": {"a": 1, "b": {"d": 2}}}}));
    let (first, second) = (json!({"timestamp": START_S}), json!({"timestamp": START_S + 1}));
    let expected = json!({"desired": {"a": second, "b": {"c": first, "d": second}, "e": [first, {"f": first}]}});
    let document = bench.get();
    assert_eq!(document["metadata"], expected);
    assert_eq!((&document["version"], &document["timestamp"]), (&json!(2), &json!(START_S + 2)));
}

#[test]
fn delta_has_what_is_desired_and_not_reported_so_and_nothing_else() {
    for (desired, reported, delta) in [
        (json!({"a": 1}), json!({"a": 1}), None),
        (json!({"a": 21}), json!({"a": 21.0}), None),
        (json!({"a": 1}), json!({"a": 1, "b": 2}), None),
        (json!({"a": 1}), json!({}), Some(json!({"a": 1}))),
        (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 3}), Some(json!({"b": 2}))),
        (json!({"n": {"a": 1, "b": 2}}), json!({"n": {"a": 1, "b": 3}}), Some(json!({"n": {"b": 2}}))),
        (json!({"n": {"a": 1}}), json!({"n": 5}), Some(json!({"n": {"a": 1}}))),
        (json!({"l": [1, 2]}), json!({"l": [1, 2]}), None),
        (json!({"l": [1, 2]}), json!({"l": [2, 1]}), Some(json!({"l": [1, 2]}))),
        (json!({"s": "1"}), json!({"s": 1}), Some(json!({"s": "1"}))),
    ] {
        let mut bench = Bench::new("home/lamp");
        bench.update(json!({"state": {"reported": reported}}));
        let outcome = bench.update(json!({"state": {"desired": desired}, "clientToken": "t"}));
        let told = notice(&outcome, "delta");
        assert_eq!(told.as_ref().map(|told| &told["state"]), delta.as_ref(), "{desired} {reported}");
        assert_eq!(bench.get()["state"].get("delta"), delta.as_ref(), "{desired} {reported}");
        if let Some(told) = told {
            assert_eq!(told["version"], 2);
            assert_eq!((&told["timestamp"], &told["clientToken"]), (&json!(START_S + 1), &json!("t")));
        }
    }
}

#[test]
fn delta_is_told_after_every_update_while_it_lasts_with_the_time_of_the_wish() {
    let mut bench = Bench::new("home/lamp");
    bench.update(json!({"state": {"desired": {"on": true, "dim": 5}}}));
    let told = notice(&bench.update(json!({"state": {"reported": {"on": true}}})), "delta").expect("dim differs");
    assert_eq!((&told["state"], &told["version"]), (&json!({"dim": 5}), &json!(2)));
    assert_eq!(told["metadata"], json!({"dim": {"timestamp": START_S}}));
    assert_eq!(notice(&bench.update(json!({"state": {"reported": {"dim": 5}}})), "delta"), None);
}

#[test]
fn what_is_rejected_has_a_code_and_changes_nothing() {
    let mut bench = Bench::new("home/lamp/config");
    let missing = bench.ask(ShadowOperation::Get, br#"{"clientToken": "g"}"#);
    let message = "No shadow exists with name: 'config'";
    let expected = json!({"code": 404, "message": message, "timestamp": START_S, "clientToken": "g"});
    assert_eq!((missing.code, parse(&missing.answer)), (404, expected));
    assert_eq!(bench.ask(ShadowOperation::Delete, b"").code, 404);
    assert_eq!(
        parse(&Bench::new("home/lamp").ask(ShadowOperation::Get, b"").answer)["message"],
        "No shadow exists with name: 'lamp'"
    );

    assert_eq!(bench.update(json!({"state": {"desired": {"a": 1}}, "version": 1})).code, 409, "there is none yet");
    assert_eq!(bench.update(json!({"state": {"desired": {"a": 1}}, "version": 0})).code, 0);
    for (payload, code, message) in [
        (json!({"state": {"desired": {"a": 2}}, "version": 5, "clientToken": "c"}), 409, "Version conflict"),
        (json!({"clientToken": "c"}), 400, "Missing required node: state"),
    ] {
        let outcome = bench.update(payload);
        let answer = parse(&outcome.answer);
        assert_eq!(
            (&answer["code"], &answer["message"], &answer["clientToken"]),
            (&json!(code), &json!(message), &json!("c"))
        );
        assert_eq!((outcome.after, outcome.notices, outcome.change), (None, vec![], None));
    }
    assert_eq!(bench.get()["version"], 1);
}

#[test]
fn a_state_that_grows_over_its_limit_by_small_updates_is_rejected() {
    let mut bench = Bench::new("home/lamp");
    let half = "x".repeat(SHADOW_STATE_BYTES_MAX / 2);
    assert_eq!(bench.update(json!({"state": {"reported": {"a": half}}})).code, 0);
    assert_eq!(bench.update(json!({"state": {"reported": {"b": half}}})).code, 413);
    assert_eq!(bench.update(json!({"state": {"reported": {"a": null, "b": half}}})).code, 0);
}

#[test]
fn a_deleted_shadow_is_gone_and_its_version_goes_on() {
    let mut bench = Bench::new("home/lamp");
    bench.update(json!({"state": {"desired": {"a": 1}}}));
    let outcome = bench.ask(ShadowOperation::Delete, br#"{"clientToken": "d"}"#);
    assert_eq!(parse(&outcome.answer), json!({"version": 2, "timestamp": START_S + 1, "clientToken": "d"}));
    assert_eq!(bench.get()["code"], 404);
    assert_eq!(parse(&bench.update(json!({"state": {"reported": {"b": 1}}})).answer)["version"], 3);
    assert_eq!(bench.get()["state"], json!({"reported": {"b": 1}}));
}

#[test]
fn a_device_has_so_many_shadows_and_no_more() {
    let key = ShadowKey::parse("home/lamp/one-more").expect("a key");
    let ask = |of_device| {
        let found = Found { key: &key, shadow: None, of_device };
        answer(found, ShadowOperation::Update, br#"{"state": {"desired": {"a": 1}}}"#, START_S).code
    };
    assert_eq!((ask(SHADOWS_PER_DEVICE_MAX - 1), ask(SHADOWS_PER_DEVICE_MAX)), (0, 400));
}

/// A state of few names, so that updates meet.
fn fields() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        prop::collection::vec(0..3i64, 0..3).prop_map(Value::from),
    ];
    let object = leaf.prop_recursive(3, 20, 3, |inner| {
        prop::collection::btree_map("[abc]", inner, 0..4).prop_map(|fields| fields.into_iter().collect())
    });
    prop::collection::btree_map("[abc]", object, 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn updates() -> impl Strategy<Value = Vec<Value>> {
    let section = || prop::option::of(prop_oneof![9 => fields(), 1 => Just(Value::Null)]);
    let update = (section(), section()).prop_map(|(desired, reported)| {
        let sections = [("desired", desired), ("reported", reported)];
        let state: Object = sections.into_iter().filter_map(|(n, v)| Some((n.to_owned(), v?))).collect();
        json!({"state": state})
    });
    prop::collection::vec(update, 1..12)
}

/// Merging by the definition of JSON merge patch (RFC 7396), which is AWS's but for empty objects.
fn merge_patch(target: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            merged.shift_remove(name);
        } else {
            let inner = merge_patch(merged.get(name).unwrap_or(&Value::Null), value);
            merged.insert(name.clone(), inner);
        }
    }
    merged.into_iter().filter(|(_, value)| value.as_object().is_none_or(|fields| !fields.is_empty())).collect()
}

/// Every path to a value, with the value.
fn leaves(path: &str, value: &Value) -> Vec<(String, Value)> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| leaves(&format!("{path}/{name}"), value)).collect()
        }
        value => vec![(path.to_owned(), value.clone())],
    }
}

proptest! {
    #[test]
    fn updates_in_a_row_are_the_fold_of_their_patches_and_versions_have_no_gap(updates in updates()) {
        let (mut bench, mut folded) = (Bench::new("home/lamp"), json!({}));
        for (count, update) in (1u64..).zip(&updates) {
            let outcome = bench.update(update.clone());
            prop_assert_eq!(outcome.after.as_ref().map(|after| after.version), Some(count));
            folded = merge_patch(&folded, &update["state"]);
        }
        let state = bench.shadow.and_then(|shadow| shadow.state).expect("updated");
        prop_assert_eq!(Value::Object(state.values()), folded);
    }

    #[test]
    fn delta_is_the_desired_values_that_are_not_reported_so(updates in updates()) {
        let mut bench = Bench::new("home/lamp");
        updates.iter().for_each(|update| drop(bench.update(update.clone())));
        let state = bench.shadow.and_then(|shadow| shadow.state).expect("updated");
        let (desired, reported) = (Value::Object(state.desired.values.clone()), Value::Object(state.reported.values.clone()));
        let differs = |(path, value): &(String, Value)| reported.pointer(path) != Some(value);
        let expected: Vec<_> = leaves("", &desired).into_iter().filter(differs).collect();
        let delta = state.delta();
        prop_assert_eq!(leaves("", &Value::Object(delta.values.clone())), expected);
    }

    #[test]
    fn values_and_metadata_have_one_shape_and_documents_read_back(updates in updates()) {
        fn shape(value: &Value, metadata: &Value) -> bool {
            match (value, metadata) {
                (Value::Object(v), Value::Object(m)) => {
                    v.len() == m.len() && v.iter().all(|(name, v)| m.get(name).is_some_and(|m| shape(v, m)))
                }
                (Value::Array(v), Value::Array(m)) => v.len() == m.len(),
                (_, m) => m["timestamp"].is_u64(),
            }
        }
        let mut bench = Bench::new("home/lamp");
        updates.iter().for_each(|update| drop(bench.update(update.clone())));
        let shadow = bench.shadow.expect("updated");
        let state = shadow.state.as_ref().expect("there");
        prop_assert!(shape(&Value::Object(state.values()), &Value::Object(state.metadata())));
        prop_assert_eq!(Shadow::from_json(&shadow.to_json()), Ok(shadow.clone()));
    }
}
