//! The reference by example: `data/conformance.jsonl` has a case a line, each named by the rule it is of. Asked through
//! the same lines that `drover rule eval --stdin` answers.

use std::collections::BTreeSet;

use drover_rule_sql::line::{Defaults, Lines};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

const CASES: &str = include_str!("data/conformance.jsonl");
/// Fewest cases that count as a list of the reference.
const CASES_MIN: usize = 250;

/// What messages are, where a case says nothing else.
const PAYLOAD: &str = r#"{
    "t": 30.5, "n": 7, "big": 9007199254740993, "whole": 10.0, "s": "abc", "num": "6", "yes": "TRUE", "no": false,
    "nil": null, "list": [1, 2, {"k": "v"}], "o": {"a": {"b": {"c": 5}}}, "o2": {"x": 1, "y": [2]}, "é": "accent"
}"#;
const TOPIC: &str = "sensors/kitchen/climate";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    expr: Option<String>,
    sql: Option<String>,
    payload: Option<String>,
    raw_b64: Option<String>,
    topic: Option<String>,
    ctx: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    is: Option<Box<RawValue>>,
    #[serde(default)]
    no: bool,
    error: Option<String>,
}

/// A field that is there, even if it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Case {
    fn question(&self) -> Value {
        let of_expr = self.expr.as_ref().map(|expr| format!("SELECT {expr} AS x FROM '#'"));
        let sql = of_expr.as_ref().or(self.sql.as_ref()).expect("a case has expr or sql");
        let usual_topic = if self.expr.is_some() { TOPIC } else { "a" };
        let mut question = json!({
            "sql": sql,
            "topic": self.topic.as_deref().unwrap_or(usual_topic),
            "ctx": self.ctx.clone().unwrap_or_else(|| json!({"clientId": "client-7"})),
        });
        match &self.raw_b64 {
            Some(raw) => question["raw_b64"] = raw.as_str().into(),
            None => question["payload"] = self.payload.as_deref().unwrap_or(PAYLOAD).into(),
        }
        question
    }

    /// The answer that would be right.
    fn expected(&self) -> String {
        match (&self.expr, &self.is, self.no) {
            (_, _, true) => r#"{"no":true}"#.to_owned(),
            (Some(_), Some(is), _) => format!(r#"{{"out":{{"x":{}}}}}"#, is.get()),
            (Some(_), None, _) => r#"{"out":{}}"#.to_owned(),
            (None, is, _) => format!(r#"{{"out":{}}}"#, is.as_ref().expect("a row").get()),
        }
    }

    fn is_met_by(&self, answer: &str) -> bool {
        match &self.error {
            None => answer == self.expected(),
            Some(part) => {
                let answer: Value = serde_json::from_str(answer).expect("JSON");
                answer["error"].as_str().is_some_and(|error| error.contains(part.as_str()))
            }
        }
    }
}

#[test]
fn the_reference_holds_case_by_case() {
    let cases: Vec<Case> = (CASES.lines().filter(|line| !line.starts_with("//")))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let rules: BTreeSet<&str> = cases.iter().map(|case| case.rule.as_str()).collect();
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());

    let (mut lines, mut wrong) = (Lines::default(), Vec::new());
    for case in &cases {
        let question = case.question();
        let answer = lines.answer(&question.to_string(), Defaults { timestamp_ms: 1_700_000_000_123, id: [7; 16] });
        if !case.is_met_by(&answer) {
            let expected = case.error.as_ref().map_or_else(|| case.expected(), |error| format!("error … {error}"));
            wrong.push(format!("[{}] {}\n    is       {answer}\n    expected {expected}", case.rule, question["sql"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases fail:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases of {} rules hold", cases.len(), rules.len());
}
