//! Payloads and statements that mean harm: an answer each, within bounds.

use drover_rule_sql::line::{Defaults, Lines};
use drover_rule_sql::{FILTERS_MAX, GROWTH_BYTES_MAX, Message, Outcome, Rule, Template, VARIABLES_MAX};

use crate::ask;

#[test]
fn depth_and_size_beyond_the_limits_are_errors_that_name_them() {
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let answer = ask("SELECT a FROM '#'", "x", deep.as_bytes());
    assert!(answer.contains("nested too deep, limit is 128"), "{answer}");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let answer = ask("SELECT a FROM '#'", "x", large.as_bytes());
    assert_eq!(answer, format!("error: payload is not JSON: payload has {} bytes, limit is 262144", large.len()));
    // Who does not read it passes it on.
    assert_eq!(ask("SELECT * FROM '#'", "x", large.as_bytes()).len(), large.len());
    assert_eq!(ask("SELECT topic() AS t FROM '#'", "x", deep.as_bytes()), r#"{"t":"x"}"#);
    // Damage anywhere is noticed, also in members that nobody touches.
    let answer = ask("SELECT a FROM '#'", "x", br#"{"a":1,"b":{"c":[1,}]}}"#);
    assert!(answer.starts_with("error: payload is not JSON"), "{answer}");
    for damaged in
        [&b"{\"a\":1,\"b\":\"\xff\"}"[..], b"{\"a\":1} x", b"{\"a\":1,\"b\":1e9999}", b"{\"a\":1,\"b\":\"\\ud800\"}"]
    {
        assert!(ask("SELECT a FROM '#'", "x", damaged).starts_with("error: payload is not JSON"));
    }
}

#[test]
fn numbers_beyond_2_to_the_53_keep_every_digit() {
    let payload =
        br#"{"a":9007199254740993,"b":-9223372036854775809,"c":0.1234567890123456789012345678901234,"d":1e400}"#;
    let row = ask("SELECT *, a + 1 AS e, a = 9007199254740992 AS f FROM '#'", "x", payload);
    let expected = r#"{"a":9007199254740993,"b":-9223372036854775809,"c":0.1234567890123456789012345678901234,"d":1E400,"e":9007199254740994,"f":false}"#;
    assert_eq!(row, expected);
}

/// A message with an array of 100 numbers and a text of 100,000 bytes.
fn payload() -> String {
    let numbers: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    format!("{{\"a\":[{}],\"t\":\"{}\"}}", numbers.join(","), "x".repeat(100_000))
}

#[test]
fn what_one_evaluation_makes_is_bounded_however_it_is_made() {
    let repeated = |item: &str, separator: &str, times: usize| vec![item; times].join(separator);
    let named: Vec<String> = (0..200).map(|i| format!("t AS t{i}")).collect();
    let doubled: Vec<String> = (1..30).map(|i| format!("@v{i} = [@v{}, @v{}]", i - 1, i - 1)).collect();
    let queries = "(SELECT VALUE (SELECT VALUE (SELECT VALUE x + y + z FROM a AS z) FROM a AS y) FROM a AS x)";
    for select in [
        format!("SELECT {} FROM '#'", named.join(", ")),
        format!("SELECT [{}] AS r FROM '#'", repeated("t", ", ", 200)),
        format!("SELECT concat([], {}) AS r FROM '#'", repeated("t", ", ", 200)),
        format!("SELECT {queries} AS r FROM '#'"),
        format!("SET @v0 = a, {} SELECT @v29 AS r FROM '#'", doubled.join(", ")),
    ] {
        let answer = ask(&select, "x", payload().as_bytes());
        let shown: String = select.chars().take(80).collect();
        assert!(answer.starts_with("error: "), "{shown}: {:.100}", answer);
        assert!(answer.contains(&GROWTH_BYTES_MAX.to_string()) || answer.contains("262144"), "{shown}: {answer}");
    }
    // The next message is not charged for it.
    let rule = Rule::compile("SELECT t AS t1, t AS t2 FROM '#'").expect("compiles");
    let payload = payload();
    let message = Message::new("x", None, 0, payload.as_bytes());
    for _ in 0..50 {
        assert!(matches!(rule.evaluate(&message), Outcome::Row(_)));
    }
}

#[test]
fn an_enriched_array_is_refused_beyond_128_kib_of_json() {
    let answer = |elements: usize| {
        let payload = format!("{{\"v\":[{}]}}", vec![r#"{"a":1}"#; elements].join(","));
        ask("SELECT VALUE transform('enrichArray', {'b': 2}, v) FROM '#'", "x", payload.as_bytes())
    };
    // 13 bytes each, 14 with the comma.
    assert_eq!(answer(9_362).len(), 131_069);
    assert_eq!(answer(9_363), "error: text grows to 131083 bytes, limit is 131072");
}

#[test]
fn texts_do_not_grow_beyond_their_limit() {
    for expression in ["t + t + t", "concat(t, t, t)", "replace(t, 'x', 'yyy')", "t + lpad(t, 1000) + t"] {
        let answer = ask(&format!("SELECT {expression} AS r FROM '#'"), "x", payload().as_bytes());
        assert!(answer.starts_with("error: text grows to 3") && answer.ends_with("limit is 262144"), "{answer:.200}");
    }
    assert_eq!(ask("SELECT regexp_replace(t, 'x', 'yyy') AS r FROM '#'", "x", payload().as_bytes()), "{}");
    let message = Message::new("x", None, 0, b"{\"t\":\"xx\"}");
    let rule = Rule::compile("SELECT * FROM '#'").expect("compiles");
    let Outcome::Row(row) = rule.evaluate(&message) else { panic!("no row") };
    let template = Template::compile(&"${lpad(t, 1000)}".repeat(300)).expect("compiles");
    assert!(template.render(&message, &row).expect_err("too long").to_string().starts_with("text grows to"));
}

#[test]
fn expressions_that_search_for_ever_have_no_answer() {
    let payload = format!("{{\"t\":\"{}\"}}", "a".repeat(10_000));
    assert_eq!(ask(r"SELECT regexp_matches(t, '^(a|a)*\1b$') AS r FROM '#'", "x", payload.as_bytes()), "{}");
    assert_eq!(ask("SELECT regexp_matches(t, '(a+)+b') AS r FROM '#'", "x", payload.as_bytes()), r#"{"r":false}"#);
}

#[test]
fn statements_are_accepted_at_their_bounds_and_refused_above() {
    let filters =
        |n: usize| format!("SELECT 1 AS a FROM {}", (0..n).map(|i| format!("'f/{i}'")).collect::<Vec<_>>().join(", "));
    assert!(Rule::compile(&filters(FILTERS_MAX)).is_ok());
    let error = Rule::compile(&filters(FILTERS_MAX + 1)).expect_err("too many").to_string();
    assert_eq!(error, "line 1, column 20: FROM names 17 filters, limit is 16");
    let variables = |n: usize| {
        let set: Vec<String> = (0..n).map(|i| format!("@v{i} = {i}")).collect();
        format!("SET {} SELECT @v0 FROM 'a'", set.join(", "))
    };
    assert!(Rule::compile(&variables(VARIABLES_MAX)).is_ok());
    let error = Rule::compile(&variables(VARIABLES_MAX + 1)).expect_err("too many").to_string();
    assert!(error.ends_with("SET makes 65 variables, limit is 64"), "{error}");
    let named = |chars: usize| Rule::compile(&format!("SET @{} = 1 SELECT 1 AS a FROM 'a'", "v".repeat(chars)));
    assert!(named(64).is_ok() && named(65).is_err());
    // Variables of variables do not nest without bound.
    let nested = format!("[{}]", "[".repeat(99) + "1" + &"]".repeat(99));
    let answer = ask(&format!("SET @a = {nested}, @b = {} SELECT @b FROM '#'", nested.replace('1', "@a")), "x", b"{}");
    assert_eq!(answer, "error: variable @b is nested too deep, limit is 128");
}

#[test]
fn look_ups_are_errors_where_there_is_nothing_to_look_in() {
    let answer = ask("SELECT device().labels.room AS r FROM '#'", "x", b"{}");
    assert_eq!(answer, "error: device: cannot be looked up here");
    let answer = ask("SELECT get_thing_shadow('t', 'role').state AS r FROM '#'", "x", b"{}");
    assert_eq!(answer, "error: get_thing_shadow: cannot be looked up here");
    assert_eq!(ask("SELECT get_or_default(device(), 1) AS r FROM '#'", "x", b"{}"), r#"{"r":1}"#);
}

#[test]
fn every_line_has_one_answer_whatever_it_is() {
    let mut lines = Lines::default();
    let mut error = |line: &str| {
        let answer = lines.answer(line, Defaults::default());
        assert!(!answer.contains('\n'), "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        answer["error"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let asked = |with: &str| format!(r#"{{"sql": "SELECT * FROM 'a'", "topic": "a", {with}}}"#);
    let nested = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(error(&asked(&format!(r#""payload": {nested}"#))).contains("nested too deep, limit is 128"));
    let large = format!(r#""payload": {{"a": "{}"}}"#, "x".repeat(10 * 1024 * 1024));
    assert!(error(&asked(&large)).contains("limit is 262144"));
    assert!(error(&asked(r#""raw_b64": "!""#)).starts_with("raw_b64: "));
    assert!(error(&asked(r#""payload": "\ud800""#)).starts_with("payload: "));
    assert!(
        error(&asked(&format!(r#""payload": 1, "ctx": {{"userProperties": {nested}}}"#))).starts_with("question: ")
    );
    assert!(error(&asked(r#""payload": 1, "payload": 2"#)).starts_with("question: "));
    for broken in ["", "{", "[]", "null", "{\"sql\": 1}", r#"{"sql": "SELECT 1 AS x FROM 'a'"}"#] {
        assert!(error(broken).starts_with("question: "), "{broken}");
    }
}
