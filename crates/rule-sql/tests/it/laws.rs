//! Laws that hold for every text, tree and payload.

use drover_rule_sql::{Message, Rule, Template, parse, read_json};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::ask;

/// Expressions over integers, truth values and fields, as text; nothing is left to precedence.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-50i64..50).prop_map(|n| if n < 0 { format!("(- {})", -n) } else { n.to_string() }),
        "[ab]".prop_map(String::from),
        "'[x'0-2]{0,2}'".prop_map(|text| format!("'{}'", text[1..text.len() - 1].replace('\'', "''"))),
        Just("true".to_owned()),
        Just("missing".to_owned()),
        Just("o.k".to_owned()),
        Just("topic(2)".to_owned()),
    ];
    let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "=", "<>", "<", "<=", ">", ">=", "AND", "OR"]);
    leaf.prop_recursive(3, 12, 2, move |inner| {
        prop_oneof![
            (inner.clone(), operator.clone(), inner.clone()).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            inner.clone().prop_map(|e| format!("(NOT {e})")),
            inner.prop_map(|e| format!("(- {e})")),
        ]
    })
}

const FUNCTIONS: [&str; 40] = [
    "abs",
    "atan2",
    "bitand",
    "bitnot",
    "ceil",
    "chr",
    "concat",
    "decode",
    "encode",
    "exp",
    "floor",
    "get",
    "indexof",
    "length",
    "ln",
    "log",
    "lower",
    "lpad",
    "md5",
    "mod",
    "nanvl",
    "parse_time",
    "power",
    "regexp_matches",
    "regexp_replace",
    "regexp_substr",
    "replace",
    "round",
    "rpad",
    "sign",
    "sqrt",
    "startswith",
    "substring",
    "tan",
    "time_to_epoch",
    "topic",
    "transform",
    "trim",
    "trunc",
    "get_thing_shadow",
];

fn argument() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "a", "o", "t", "n", "*", "null", "missing", "true", "[]", "{'k': 1}", "o.k", "'base64'"
        ])
        .prop_map(String::from),
        "'[\\[\\]()*+?{}$\\\\a-zA-Z0-9 :/.€-]{0,12}'",
        "-?[0-9]{1,40}(\\.[0-9]{1,3})?(e-?[0-9]{1,4})?",
        "'[yMdHhmsSzGaEZXxDkKV :.\\[\\]-]{0,20}'",
    ]
}

/// What the reference says, computed the slow and plain way over a small domain; `None` is undefined.
mod oracle {
    use super::*;

    /// Reads one fully parenthesised expression and its rest.
    pub fn value<'t>(text: &'t str, payload: &Value) -> (Option<Value>, &'t str) {
        if let Some(rest) = text.strip_prefix("(NOT ") {
            let (operand, rest) = value(rest, payload);
            return (truth(&operand).map(|t| json!(!t)), &rest[1..]);
        }
        if let Some(rest) = text.strip_prefix("(- ") {
            let (operand, rest) = value(rest, payload);
            return (number(&operand).map(|n| json!(-n)), &rest[1..]);
        }
        if let Some(rest) = text.strip_prefix('(') {
            let (left, rest) = value(rest, payload);
            let (operator, rest) = rest[1..].split_once(' ').expect("an operator");
            let (right, rest) = value(rest, payload);
            return (binary(operator, left, right), &rest[1..]);
        }
        leaf(text, payload)
    }

    fn leaf<'t>(text: &'t str, payload: &Value) -> (Option<Value>, &'t str) {
        if let Some(body) = text.strip_prefix('\'') {
            let mut end = 0;
            while body[end..].starts_with("''") || !body[end..].starts_with('\'') {
                end += if body[end..].starts_with("''") { 2 } else { 1 };
            }
            return (Some(json!(body[..end].replace("''", "'"))), &body[end + 1..]);
        }
        let end = if text.starts_with("topic") { 8 } else { text.find([' ', ')']).unwrap_or(text.len()) };
        let (word, rest) = text.split_at(end);
        let value = match word {
            "true" => Some(json!(true)),
            "topic(2)" => Some(json!("y")),
            "o.k" => payload["o"].get("k").cloned(),
            digits if digits.parse::<i64>().is_ok() => digits.parse::<i64>().ok().map(Value::from),
            field => payload.get(field).cloned(),
        };
        (value, rest)
    }

    fn truth(value: &Option<Value>) -> Option<bool> {
        match value.as_ref()? {
            Value::Bool(t) => Some(*t),
            Value::String(s) => s.to_ascii_lowercase().parse().ok(),
            _ => None,
        }
    }

    fn number(value: &Option<Value>) -> Option<i64> {
        match value.as_ref()? {
            Value::Number(n) => n.as_i64(),
            Value::String(s) if s.trim_start_matches('-').len() + 1 >= s.len() && !s.contains('+') => s.parse().ok(),
            _ => None,
        }
    }

    fn binary(operator: &str, left: Option<Value>, right: Option<Value>) -> Option<Value> {
        let numbers = || Some((number(&left)?, number(&right)?));
        let compare = |f: fn(&i64, &i64) -> bool| numbers().map(|(a, b)| json!(f(&a, &b)));
        let truths = || Some((truth(&left)?, truth(&right)?));
        match operator {
            "AND" => truths().map(|(a, b)| json!(a && b)),
            "OR" => truths().map(|(a, b)| json!(a || b)),
            "=" => Some(json!(left? == right?)),
            "<>" => Some(json!(left? != right?)),
            "<" => compare(i64::lt),
            "<=" => compare(i64::le),
            ">" => compare(i64::gt),
            ">=" => compare(i64::ge),
            "+" if matches!(left, Some(Value::String(_))) || matches!(right, Some(Value::String(_))) => {
                let plain = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                Some(json!(plain(left?) + &plain(right?)))
            }
            "+" | "-" | "*" | "/" | "%" => arithmetic(operator, numbers()?),
            other => panic!("no operator {other}"),
        }
    }

    fn arithmetic(operator: &str, (a, b): (i64, i64)) -> Option<Value> {
        Some(json!(match operator {
            "+" => a + b,
            "-" => a - b,
            "*" => a * b,
            "%" => a.checked_rem(b)?,
            "/" => a.checked_div(b)?,
            other => panic!("no operator {other}"),
        }))
    }
}

fn payload() -> impl Strategy<Value = Value> {
    let value = prop_oneof![(-9i64..10).prop_map(Value::from), any::<bool>().prop_map(Value::from), Just(json!("7"))];
    (value.clone(), prop::option::of(value.clone()), value).prop_map(|(a, b, k)| {
        let mut members = Map::new();
        members.insert("a".to_owned(), a);
        members.extend(b.map(|b| ("b".to_owned(), b)));
        members.insert("o".to_owned(), json!({"k": k}));
        Value::Object(members)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}", sql in "(SELECT|SET|FROM|WHERE|VALUE|AS|AND|NOT|IN|EXISTS|CASE|WHEN|THEN|ELSE|END|@a|a|'x'|\"|'|[0-9.*(){}:=,+-]|\\[|\\]|topic\\(|cast\\(|encode\\(\\*| ){0,30}") {
        for text in [&text, &sql] {
            // Either answer is fine; that there is one is the law.
            let (rule, template) = (Rule::compile(text), Template::compile(&format!("${{{text}}}")));
            prop_assert!(rule.is_ok() || rule.is_err() || template.is_ok());
        }
    }

    #[test]
    fn no_call_makes_evaluation_panic(
        function in prop::sample::select(FUNCTIONS.to_vec()), arguments in prop::collection::vec(argument(), 0..4)
    ) {
        let sql = format!("SELECT {function}({}) AS x FROM '#'", arguments.join(", "));
        if let Ok(rule) = Rule::compile(&sql) {
            let message = Message::new("a/b", None, 1_700_000_000_000, br#"{"a":[1,"x",{"b":null}],"o":{"k":-2.5e300},"t":"2015-12-18","n":7}"#);
            // Any answer is fine; that there is one is the law.
            let answered = format!("{:?}", rule.evaluate(&message));
            prop_assert!(!answered.is_empty());
        }
    }

    #[test]
    fn compound_forms_print_and_parse_back(
        a in expression(), b in expression(), c in expression(), form in 0usize..9
    ) {
        let expr = match form {
            0 => format!("CASE {a} WHEN {b} THEN {c} ELSE 1 END"),
            1 => format!("CASE WHEN {a} THEN {b} END"),
            2 => format!("{a} IN [{b}, {c}]"),
            3 => format!("{a} NOT IN ({b}, {c}) AND true"),
            4 => format!("(SELECT {a} AS x, * FROM [{b}] AS e WHERE {c})"),
            5 => format!("NOT EXISTS (SELECT VALUE {a} FROM {b} WHERE {c})"),
            6 => format!("{{'k': {a}, 'l': [{b}, {{}}]}}.k"),
            7 => format!("cast({a} AS Int) + get(*, {b}) + regexp_substr({c}, 'a+')"),
            _ => format!("@v + {a} * (- {b})"),
        };
        let statement = parse(&format!("SET @v = {a} SELECT {expr} AS x FROM 'a', 'b/#' WHERE {expr}")).expect("generated");
        prop_assert_eq!(parse(&statement.to_string()), Ok(statement));
    }

    #[test]
    fn reading_members_agrees_with_reading_the_whole(
        payload in r#"\{("[a-c]":(1|-0\.5|"x\\n"|null|\{"b":[1,\{\}]\}|\[\]|1e5|nope),? ?){0,6}"a":true\}?"#
    ) {
        let whole = read_json(payload.as_bytes()).ok().and_then(|value| value.member("b").cloned());
        let row = ask("SELECT VALUE get_or_default(b, 'none') FROM '#'", "x", payload.as_bytes());
        match (read_json(payload.as_bytes()).is_ok(), whole) {
            (_, Some(value)) if value.to_text().is_some() => prop_assert_eq!(row, value.to_string()),
            _ => prop_assert_eq!(row, r#""none""#),
        }
    }

    #[test]
    fn a_printed_statement_parses_to_the_same_statement(
        items in prop::collection::vec((expression(), "[a-z_][a-z0-9_]{0,5}x"), 1..4), condition in expression(),
        star in any::<bool>(), value in any::<bool>()
    ) {
        let list: Vec<String> = items.iter().map(|(expr, name)| format!("{expr} AS {name}")).collect();
        let select = match (value, star) {
            (true, _) => format!("VALUE ({})", items[0].0),
            (false, true) => format!("*, {}", list.join(", ")),
            (false, false) => list.join(", "),
        };
        let statement = parse(&format!("SELECT {select} FROM 'a/+/#' WHERE {condition}")).expect("generated");
        prop_assert_eq!(parse(&statement.to_string()), Ok(statement));
    }

    #[test]
    fn evaluation_agrees_with_a_naive_oracle(expression in expression(), payload in payload()) {
        // Quotients of numeric texts are decimals, which the oracle does not know: their own tests cover them.
        prop_assume!(!expression.contains('/') || !(expression.contains('\'') || payload.to_string().contains("\"7\"")));
        let (expected, rest) = oracle::value(&expression, &payload);
        prop_assert_eq!(rest, "");
        let answer = ask(&format!("SELECT {expression} AS v FROM '#'"), "x/y", payload.to_string().as_bytes());
        let row: Value = serde_json::from_str(&answer).expect("a row");
        prop_assert_eq!(row.get("v").cloned(), expected, "{} of {}", expression, payload);
    }

    #[test]
    fn no_payload_makes_evaluation_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[\\[\\]{}:,\"a0-9.e\\\\u -]{0,30}") {
        for payload in [bytes.as_slice(), text.as_bytes()] {
            prop_assert!(!ask("SELECT *, a.b + 1 AS c FROM '#' WHERE topic() = 'x' OR a = 1", "x", payload).is_empty());
        }
    }
}
