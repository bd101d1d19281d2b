//! `drover rule eval --stdin`: the rule language alone, a JSON line in, a JSON line out.
//!
//! Needs no platform: other implementations and test tables are compared with ours through it.

use std::io::{BufRead, Write};

use drover_host::{SystemClock, SystemRandom};
use drover_rule_sql::line::{Defaults, Lines};
use drover_types::{Clock, Random};

use super::stdin;

/// Answers line by line: `{"out": …}`, `{"no": true}` or `{"error": "…"}`, each at once.
pub fn lines(questions: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut lines = Lines::default();
    stdin::answers(questions, out, |line| {
        let mut id = [0; 16];
        SystemRandom.fill(&mut id);
        lines.answer(line, Defaults { timestamp_ms: SystemClock.now_ms(), id })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answered(question: Value) -> String {
        let mut out = Vec::new();
        lines(&mut format!("{question}\n\n").as_bytes(), &mut out).expect("answers");
        String::from_utf8(out).expect("text").trim_end().to_owned()
    }

    #[test]
    fn a_question_is_answered_by_a_row_by_no_or_by_an_error() {
        let sql = "SELECT t, topic(2) AS d, clientid() AS c, timestamp() AS at FROM 'a/+' WHERE t > 3";
        let ctx = json!({"clientId": "me", "timestamp": 5});
        let ask =
            |payload: Value, topic: &str| answered(json!({"sql": sql, "topic": topic, "payload": payload, "ctx": ctx}));
        assert_eq!(ask(json!({"t": 4}), "a/b"), r#"{"out":{"t":4,"d":"b","c":"me","at":5}}"#);
        assert_eq!(ask(json!("{\"t\": 4}"), "a/b"), r#"{"out":{"t":4,"d":"b","c":"me","at":5}}"#);
        assert_eq!(ask(json!({"t": 3}), "a/b"), r#"{"no":true}"#);
        assert_eq!(ask(json!({"t": 4}), "b"), r#"{"no":true}"#);
        let raw = json!({"sql": "SELECT * FROM 'a'", "topic": "a", "raw_b64": "eyJ4IjoxfQ=="});
        assert_eq!(answered(raw), r#"{"out":{"x":1}}"#);
        let both = json!({"sql": "SELECT * FROM 'a'", "topic": "a", "payload": null, "raw_b64": "eyJ4IjoxfQ=="});
        assert_eq!(answered(both), r#"{"out":{"x":1}}"#);
        let null = json!({"sql": "SELECT isNull(*) AS n FROM 'a'", "topic": "a", "payload": null, "raw_b64": null});
        assert_eq!(answered(null), r#"{"out":{"n":true}}"#);
    }

    #[test]
    fn numbers_keep_their_digits_and_rows_their_order() {
        let payload = r#"{"z": 9007199254740993, "a": 0.1000000000000000000000001, "m": 1e300}"#;
        let line = format!(r#"{{"sql": "SELECT *, z + 1 AS y FROM 'a'", "topic": "a", "payload": {payload}}}"#);
        let mut out = Vec::new();
        lines(&mut line.as_bytes(), &mut out).expect("answers");
        let expected =
            r#"{"out":{"z":9007199254740993,"a":0.1000000000000000000000001,"m":1E300,"y":9007199254740994}}"#;
        assert_eq!(String::from_utf8_lossy(&out).trim_end(), expected);
    }

    #[test]
    fn a_row_that_is_no_json_comes_back_as_it_came() {
        let text = json!({"sql": "SELECT * FROM 'a'", "topic": "a", "payload": "plain"});
        assert_eq!(answered(text), r#"{"out":"plain"}"#);
        let raw = json!({"sql": "SELECT * FROM 'a'", "topic": "a", "raw_b64": "/wD+"});
        assert_eq!(answered(raw), r#"{"out":"/wD+"}"#);
    }

    #[test]
    fn what_is_wrong_is_the_answer_and_the_next_line_goes_on() {
        let mut out = Vec::new();
        let good = r#"{"sql": "SELECT * FROM 'a'", "topic": "a", "payload": {"x": 1}}"#;
        let bad = r#"{"sql": "SELECT FROM", "topic": "a", "payload": "{}"}"#;
        let mut questions = format!("nonsense\n{bad}\n{{\"sql\": \"\", \"topic\": \"a\"}}\n").into_bytes();
        questions.extend(b"\xff\xfe\n");
        questions.extend(good.as_bytes());
        lines(&mut questions.as_slice(), &mut out).expect("answers");
        let answers: Vec<Value> = out
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).expect("JSON"))
            .collect();
        assert!(answers[0]["error"].as_str().is_some_and(|e| e.starts_with("question: ")), "{}", answers[0]);
        assert!(answers[1]["error"].as_str().is_some_and(|e| e.contains("line 1")), "{}", answers[1]);
        assert!(answers[2]["error"].as_str().is_some_and(|e| e.contains("exactly one of")), "{}", answers[2]);
        assert!(answers[3]["error"].as_str().is_some_and(|e| e.contains("UTF-8")), "{}", answers[3]);
        assert_eq!(answers[4], json!({"out": {"x": 1}}));
    }
}
