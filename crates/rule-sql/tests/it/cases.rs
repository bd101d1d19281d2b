//! The language by example: each row is an expression or statement and what it yields.

use crate::ask;

/// What expressions see as their payload.
const PAYLOAD: &str = r#"{
    "t": 30.5, "n": 7, "big": 9007199254740993, "whole": 10.0, "s": "abc", "num": "6", "yes": "TRUE", "no": false,
    "nil": null, "list": [1, 2, {"k": "v"}], "o": {"a": {"b": {"c": 5}}, "from": 1}, "o2": {"x": 1, "y": [2]},
    "o3": {"y": [2.0], "x": 1.0}, "value": 3, "é": "accent"
}"#;

/// Expressions and their value; `undefined` for none.
const EXPRESSIONS: &[(&str, &str)] = &[
    // Fields
    ("t", "30.5"),
    ("o.a.b.c", "5"),
    ("o.from", "1"),
    ("o.missing.c", "undefined"),
    ("missing", "undefined"),
    ("missing.a.b", "undefined"),
    ("s.length", "undefined"),
    ("nil", "null"),
    ("list", r#"[1,2,{"k":"v"}]"#),
    ("value", "3"),
    ("é", r#""accent""#),
    ("T", "undefined"),
    // Literals
    ("1", "1"),
    ("1.50", "1.5"),
    ("1e3", "1000"),
    ("'it''s'", r#""it's""#),
    (r#""double ""quoted""""#, r#""double \"quoted\"""#),
    ("TRUE", "true"),
    ("false", "false"),
    ("Null", "null"),
    // Numbers stay exact
    ("big", "9007199254740993"),
    ("big + 1", "9007199254740994"),
    ("9223372036854775807 + 1", "9223372036854775808"),
    ("0.1 + 0.2", "0.3"),
    ("whole", "10"),
    ("1234567890123456789 * 1000000000000000", "1234567890123456789000000000000000"),
    ("'1' / 3", "0.3333333333333333333333333333333333"),
    // Arithmetic
    ("7 / 2", "3"),
    ("-7 / 2", "-3"),
    ("7.0 / 2", "3"),
    ("'6' / 4", "1.5"),
    ("num * 2", "12"),
    ("7 % 4", "3"),
    ("-7 % 4", "-3"),
    ("7.5 % 2", "1.5"),
    ("1 / 0", "undefined"),
    ("1.5 / 0", "undefined"),
    ("1 % 0", "undefined"),
    ("n - 0.5", "6.5"),
    ("-n", "-7"),
    ("- -n", "7"),
    ("-'1.5'", "-1.5"),
    ("-s", "undefined"),
    ("true + 1", "undefined"),
    ("nil + 1", "undefined"),
    ("missing + 1", "undefined"),
    ("list * 2", "undefined"),
    ("2 + 3 * 4", "14"),
    ("(2 + 3) * 4", "20"),
    ("10 - 3 - 2", "5"),
    ("1e6144 * 10", "undefined"),
    // Concatenation
    ("1 + 'a'", r#""1a""#),
    ("'a' + 1.50", r#""a1.5""#),
    ("'a' + true", r#""atrue""#),
    ("num + 4", r#""64""#),
    ("'l=' + list", r#""l=[1,2,{\"k\":\"v\"}]""#),
    ("'a' + missing", "undefined"),
    ("'a' + nil", "undefined"),
    // Comparison
    ("2 < '10'", "true"),
    ("'2' < '10'", "true"),
    ("t > 30", "true"),
    ("t >= 30.5", "true"),
    ("t <= 30.4", "false"),
    ("list > 2", "undefined"),
    ("s > 2", "undefined"),
    ("no < 1", "undefined"),
    ("nil < 1", "undefined"),
    ("missing < 1", "undefined"),
    ("9007199254740993 > 9007199254740992", "true"),
    ("1 = 1.0", "true"),
    ("whole = 10", "true"),
    ("1 = 'x'", "false"),
    ("1 = '1'", "false"),
    ("1 <> 'x'", "true"),
    ("1 != 2", "true"),
    ("'a' = 'a'", "true"),
    ("'a' = 'A'", "false"),
    ("Null <> Null", "false"),
    ("nil = NULL", "true"),
    ("nil = 0", "false"),
    ("missing = 1", "undefined"),
    ("missing <> 1", "undefined"),
    ("o2 = o3", "true"),
    ("o2 = o", "false"),
    ("list = list", "true"),
    ("o2 = list", "false"),
    // Logic
    ("true AND 'TRUE'", "true"),
    ("yes and not no", "true"),
    ("1 AND true", "undefined"),
    ("missing OR true", "undefined"),
    ("false AND missing", "undefined"),
    ("NOT 'false'", "true"),
    ("NOT 1", "undefined"),
    ("NOT no AND no", "false"),
    ("true OR false AND false", "true"),
    ("NOT n = 7", "false"),
    ("n > 5 AND n < 9", "true"),
    // Functions
    ("topic()", r#""sensors/kitchen/climate""#),
    ("topic(1)", r#""sensors""#),
    ("TOPIC(2)", r#""kitchen""#),
    ("topic('3')", r#""climate""#),
    ("topic(4)", "undefined"),
    ("topic(0)", "undefined"),
    ("topic(-1)", "undefined"),
    ("timestamp()", "1700000000123"),
    ("timestamp() % 1000", "123"),
    ("clientid()", r#""client-7""#),
    ("ClientId() + '/' + topic(2)", r#""client-7/kitchen""#),
    ("get(list, 1)", "2"),
    ("get(list, 2).k", r#""v""#),
    ("get(list, 3)", "undefined"),
    ("get(list, -1)", "undefined"),
    ("get(o2, 'x')", "1"),
    ("get(o2, 'z')", "undefined"),
    ("get(s, 0)", r#""a""#),
    ("get(n, 0)", "undefined"),
];

#[test]
fn expressions_yield_what_the_reference_says() {
    for (expression, expected) in EXPRESSIONS {
        let row = ask(&format!("SELECT {expression} AS x FROM '#'"), "sensors/kitchen/climate", PAYLOAD.as_bytes());
        let expected = if *expected == "undefined" { "{}".to_owned() } else { format!("{{\"x\":{expected}}}") };
        assert_eq!(row, expected, "{expression}");
    }
}

#[test]
fn statements_yield_rows() {
    let small = r#"{"a": 1, "b": {"c": 2}, "d": null}"#;
    for (sql, payload, expected) in [
        ("SELECT * FROM 'x'", small, small),
        ("select * from 'x'", small, small),
        ("SELECT VALUE * FROM 'x'", small, small),
        ("SELECT a FROM 'x'", small, r#"{"a":1}"#),
        ("SELECT b.c FROM 'x'", small, r#"{"c":2}"#),
        ("SELECT a AS z, b FROM \"x\"", small, r#"{"z":1,"b":{"c":2}}"#),
        ("SELECT d, missing FROM 'x'", small, r#"{"d":null}"#),
        ("SELECT *, 15 AS speed FROM 'x'", small, r#"{"a":1,"b":{"c":2},"d":null,"speed":15}"#),
        ("SELECT *, 9 AS a FROM 'x'", small, r#"{"a":9,"b":{"c":2},"d":null}"#),
        ("SELECT 9 AS a, * FROM 'x'", small, r#"{"a":1,"b":{"c":2},"d":null}"#),
        ("SELECT a, b.c AS a FROM 'x'", small, r#"{"a":2}"#),
        ("SELECT VALUE b FROM 'x'", small, r#"{"c":2}"#),
        ("SELECT VALUE a + 1 FROM 'x'", small, "2"),
        ("SELECT VALUE (a) FROM 'x'", small, "1"),
        ("SELECT VALUE topic() FROM 'x'", small, "\"x\""),
        ("SELECT VALUE missing FROM 'x'", small, "error: SELECT VALUE of an undefined value"),
        ("SELECT value FROM 'x'", r#"{"value": 4}"#, r#"{"value":4}"#),
        ("SELECT value * 2 AS v, value AS w FROM 'x'", r#"{"value": 4}"#, r#"{"v":8,"w":4}"#),
        ("SELECT a FROM 'x' WHERE a = 1", small, r#"{"a":1}"#),
        ("SELECT a FROM 'x' WHERE a > 1", small, "no match"),
        ("SELECT a FROM 'x' WHERE missing > 1", small, "no match"),
        ("SELECT a AS z FROM 'x' WHERE z = 1", small, "no match"),
        ("SELECT a FROM 'x' WHERE a", small, "no match"),
        ("SELECT a FROM 'x' WHERE 'true'", small, "no match"),
        ("SELECT a FROM 'x'", r#"{"a": 1, "a": 2}"#, r#"{"a":2}"#),
    ] {
        assert_eq!(ask(sql, "x", payload.as_bytes()), expected, "{sql}");
    }
}

#[test]
fn a_payload_that_is_not_json_stops_only_rules_that_read_it() {
    let damaged = "error: payload is not JSON: line 1, column 6: expected a JSON value";
    for (sql, expected) in [
        ("SELECT * FROM 'x'", r#"{"a":nope}"#),
        ("SELECT topic() AS t FROM 'x' WHERE topic(1) = 'x'", r#"{"t":"x"}"#),
        ("SELECT a FROM 'x'", damaged),
        ("SELECT *, 1 AS b FROM 'x'", damaged),
        ("SELECT 1 AS b FROM 'x' WHERE a = 1", damaged),
    ] {
        assert_eq!(ask(sql, "x", br#"{"a":nope}"#), expected, "{sql}");
    }
    assert_eq!(Ok(ask("SELECT * FROM 'x'", "x", b"\xff\0")), String::from_utf8(b"\xef\xbf\xbd\0".to_vec()));
    let object = "error: SELECT * with further items needs a JSON object as payload";
    assert_eq!(ask("SELECT *, 1 AS b FROM 'x'", "x", b"[1]"), object);
    assert_eq!(ask("SELECT a FROM 'x'", "x", b"[1]"), "{}");
}

#[test]
fn texts_do_not_grow_without_bound() {
    let payload = format!("{{\"a\": \"{}\"}}", "x".repeat(200_000));
    let answer = ask("SELECT a + a AS b FROM 'x'", "x", payload.as_bytes());
    assert_eq!(answer, "error: text grows to 400000 bytes, limit is 262144");
}
