//! Selectors by tables: what they select, how they are read, and what is refused.

use super::*;
use crate::ErrorCode;

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').expect("a pair"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn parsed(text: &str) -> LabelSelector {
    LabelSelector::parse("labelSelector", text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

#[test]
fn a_text_selects_what_it_selects_in_kubernetes() {
    let kitchen = "room=kitchen floor=2 env=a empty=";
    for (selector, of, expected) in [
        ("", kitchen, true),
        ("  ", kitchen, true),
        ("room=kitchen", kitchen, true),
        ("room==kitchen", kitchen, true),
        (" room = kitchen ", kitchen, true),
        ("room=hall", kitchen, false),
        ("site=north", kitchen, false),
        ("floor!=2", kitchen, false),
        ("floor!=3", kitchen, true),
        ("site!=north", kitchen, true),
        ("env in (a,b)", kitchen, true),
        ("env in ( b , c )", kitchen, false),
        ("site in (a)", kitchen, false),
        ("env notin (a,b)", kitchen, false),
        ("env notin (b)", kitchen, true),
        ("site notin (a)", kitchen, true),
        ("room", kitchen, true),
        ("site", kitchen, false),
        ("!site", kitchen, true),
        ("! room", kitchen, false),
        ("empty=", kitchen, true),
        ("room=", kitchen, false),
        ("empty in (,x)", kitchen, true),
        ("room=kitchen,floor!=3,env in (a,b),!old", kitchen, true),
        ("room=kitchen,floor!=3,env in (a,b),!env", kitchen, false),
        ("in in (notin)", "in=notin", true),
        ("in,!notin", "in=notin", true),
        ("example.org/tier-1=a_b.c", "example.org/tier-1=a_b.c", true),
        ("room=küche", "room=küche", true),
    ] {
        assert_eq!(parsed(selector).matches(&labels(of)), expected, "{selector:?}");
    }
}

#[test]
fn a_text_that_is_no_selector_is_refused_with_the_place() {
    for (text, message) in [
        (",", "expected a key at byte 1"),
        ("a,", "expected a key at byte 3"),
        ("a,,b", "expected a key at byte 3"),
        ("=b", "expected a key at byte 1"),
        ("!", "expected a key at byte 2"),
        ("!a=b", "expected a comma at byte 3"),
        ("a b", "expected =, ==, !=, in or notin at byte 3"),
        ("a>1", "expected =, ==, !=, in or notin at byte 2"),
        ("a IN (b)", "expected =, ==, !=, in or notin at byte 3"),
        ("a in b", "expected ( at byte 6"),
        ("a in (b", "expected a comma or ) at byte 8"),
        ("a in (b c)", "expected a comma or ) at byte 9"),
        ("a=b c", "expected a comma at byte 5"),
        ("a===b", "expected a comma at byte 4"),
        ("a in (b) c", "expected a comma at byte 10"),
    ] {
        let refused = LabelSelector::parse("labelSelector", text).expect_err(text);
        assert_eq!((refused.code, refused.message.as_str()), (ErrorCode::InvalidArgument, message), "{text}");
        assert_eq!((refused.field.as_deref(), refused.value.as_deref()), (Some("labelSelector"), Some(text)));
    }
    for text in ["ä=b", "a$=b", &format!("{}=b", "k".repeat(129)), &format!("a={}", "v".repeat(257))] {
        let refused = LabelSelector::parse("labelSelector", text).expect_err(text);
        assert_eq!(refused.field.as_deref(), Some("labelSelector"), "{text}");
        assert!(refused.limit.is_some(), "{refused:?}");
    }
}

#[test]
fn a_text_is_bounded() {
    let requirements = |count: usize| (0..count).map(|i| format!("k{i}")).collect::<Vec<_>>().join(",");
    assert_eq!(parsed(&requirements(SELECTOR_REQUIREMENTS_MAX)).match_expressions.len(), SELECTOR_REQUIREMENTS_MAX);
    let values = |count: usize| format!("a in ({})", vec!["v"; count].join(","));
    assert_eq!(parsed(&values(SELECTOR_VALUES_MAX)).match_expressions[0].values.len(), SELECTOR_VALUES_MAX);
    assert_eq!(parsed(&format!("{:>SELECTOR_BYTES_MAX$}", "a")).match_expressions.len(), 1);
    for (text, limit) in [
        (requirements(SELECTOR_REQUIREMENTS_MAX + 1), SELECTOR_REQUIREMENTS_MAX),
        (values(SELECTOR_VALUES_MAX + 1), SELECTOR_VALUES_MAX),
        (format!("{:>width$}", "a", width = SELECTOR_BYTES_MAX + 1), SELECTOR_BYTES_MAX),
    ] {
        let refused = LabelSelector::parse("labelSelector", &text).expect_err("too much");
        assert_eq!(refused.limit, Some(limit.to_string()), "{refused:?}");
        assert!(refused.value.is_some(), "{refused:?}");
    }
}

#[test]
fn an_object_selects_by_labels_and_expressions_together() {
    let selector: LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"room": "kitchen"},
        "matchExpressions": [
            {"key": "floor", "operator": "NotIn", "values": ["2", "3"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }))
    .expect("as Kubernetes has it");
    assert_eq!(selector.check("spec.selector"), Ok(()));
    for (of, expected) in [
        ("room=kitchen", true),
        ("room=kitchen floor=1", true),
        ("room=kitchen floor=3", false),
        ("room=kitchen old=yes", false),
        ("floor=1", false),
    ] {
        assert_eq!(selector.matches(&labels(of)), expected, "{of}");
    }
    assert!(LabelSelector::default().matches(&labels("")) && LabelSelector::default().matches(&labels("a=b")));
}

#[test]
fn an_object_is_checked_in_every_part() {
    let refused = |json: serde_json::Value| {
        let selector: LabelSelector = serde_json::from_value(json).expect("shape");
        selector.check("spec.selector").expect_err("refused").field.expect("a field")
    };
    let expression = |operator: &str, values: serde_json::Value| {
        refused(serde_json::json!({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}))
    };
    let many = vec!["v"; SELECTOR_VALUES_MAX + 1];
    for (operator, values) in [
        ("In", serde_json::json!([])),
        ("NotIn", serde_json::json!([])),
        ("Exists", serde_json::json!(["v"])),
        ("DoesNotExist", serde_json::json!(["v"])),
        ("In", serde_json::json!(many)),
        ("In", serde_json::json!(["a\nb"])),
        ("In", serde_json::json!(["v".repeat(LABEL_BYTES_MAX + 1)])),
    ] {
        assert_eq!(expression(operator, values.clone()), "spec.selector.matchExpressions[0].values", "{values}");
    }
    let no_key = serde_json::json!({"matchExpressions": [{"key": "", "operator": "Exists"}]});
    assert_eq!(refused(no_key), "spec.selector.matchExpressions[0].key");
    assert_eq!(refused(serde_json::json!({"matchLabels": {"a": "b\t"}})), "spec.selector.matchLabels");
    let long: serde_json::Map<_, _> = (0..32).map(|i| (format!("k{i}"), "v".repeat(200).into())).collect();
    assert_eq!(refused(serde_json::json!({"matchLabels": long})), "spec.selector");
}
