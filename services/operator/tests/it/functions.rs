//! Turns of functions.

use drover_operator::controller::Kind as _;
use drover_operator::crd::Function;
use serde_json::json;

use crate::stage::{Stage, condition, message, object, pair, status, with_status};

fn function(routine: &str) -> Function {
    let example = json!({"input": {"bytes": [1]}, "output": null});
    let spec = json!({"source": "function decode() { return null; }", "routine": routine, "examples": [example]});
    object("drover.dev/v1alpha1", "Function", "decode", spec)
}

#[tokio::test]
async fn a_function_can_be_called_once_the_registry_has_it_and_costs_nothing_then() {
    let stage = Stage::new();
    let (writes, events) = stage.turn(&function("decode")).await;
    let ready = status(&writes).expect("written");
    assert_eq!(condition(&ready, "Accepted"), pair("True", "Registered"));
    assert_eq!(condition(&ready, "Ready"), pair("True", "Callable"));
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(stage.platform.functions.lock().unwrap()["decode"].owner, "kubernetes");
    let known = with_status(&function("decode"), &writes);
    stage.clock.advance(3_600_000);
    assert!(stage.turn(&known).await.0.is_empty());
    known.cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.functions.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_registry_says_of_a_script_is_told() {
    let stage = Stage::new();
    let (writes, events) = stage.turn(&function("encode")).await;
    let refused = status(&writes).expect("written");
    assert_eq!(condition(&refused, "Accepted"), pair("False", "Invalid"));
    assert_eq!(message(&refused, "Accepted"), "spec.routine: the script has no such function");
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Invalid")));
}

#[tokio::test]
async fn a_function_that_was_changed_elsewhere_is_set_back_and_one_of_others_is_left_alone() {
    let stage = Stage::new();
    let (writes, _) = stage.turn(&function("decode")).await;
    let known = with_status(&function("decode"), &writes);
    let change = |source: &str, owner: &str| {
        let mut functions = stage.platform.functions.lock().unwrap();
        let found = functions.get_mut("decode").expect("there");
        (found.spec.source, found.owner) = (source.to_owned(), owner.to_owned());
    };
    change("decode", "kubernetes");
    let (_, events) = stage.turn(&known).await;
    assert_eq!((events.len(), events[0].body["reason"].as_str()), (1, Some("Drift")));
    assert!(stage.platform.functions.lock().unwrap()["decode"].spec.source.starts_with("function"));
    change("decode", "");
    let (writes, _) = stage.turn(&known).await;
    assert_eq!(condition(&status(&writes).expect("written"), "Accepted"), pair("False", "NotOurs"));
    known.cleanup(&stage.context).await.expect("nothing is away");
    assert!(stage.platform.functions.lock().unwrap().contains_key("decode"));
}
