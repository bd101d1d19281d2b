//! Functions called by many at once.

use std::thread;

use drover_functions::{CallError, Pool};
use serde_json::value::RawValue;

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

#[test]
fn many_at_once_are_answered_each_with_its_own() {
    let pool = Pool::default();
    let callers = (0..16).map(|n| {
        let pool = pool.clone();
        thread::spawn(move || {
            let (number, text) = (json(&n.to_string()), json("\"x\""));
            pool.call("var seen = 0; function f(n, t) { return [++seen, n, t]; }", "f", &[&number, &text])
        })
    });
    let callers: Vec<_> = callers.collect();
    for (n, caller) in (0..).zip(callers) {
        assert_eq!(caller.join().expect("no panic"), Ok(Some(format!("[1,{n},\"x\"]"))));
    }
}

#[test]
fn what_returns_nothing_is_told_apart_from_what_fails() {
    let pool = Pool::default();
    assert_eq!(pool.call("function f() {}", "f", &[]), Ok(None));
    assert_eq!(pool.call("function f() { return null; }", "f", &[]), Ok(Some("null".to_owned())));
    assert!(matches!(pool.call("function f() { for (;;) {} }", "f", &[]), Err(CallError::Slow(_))));
    let failed = pool.call("function f() { throw new Error('no'); }", "f", &[]).expect_err("failed");
    assert!(failed.to_string().starts_with("f threw: Error: no"), "{failed}");
    let absent = Pool::in_processes("/nowhere/drover".into());
    let refused = absent.call("function f() {}", "f", &[]).expect_err("no program");
    assert!(matches!(&refused, CallError::Unavailable(why) if why.contains("cannot be reached")), "{refused}");
}
