//! `drover rule eval --stdin`: the rule language alone, a JSON line in, a JSON line out.
//!
//! Needs no platform: other implementations and test tables are compared with ours through it.

use std::io::{BufRead, Write};

use base64::Engine;
use drover_rule_sql::{Message, Outcome, Rule};
use drover_types::matches;
use serde::Deserialize;
use serde_json::{Value, json};

/// One question.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
    topic: String,
    /// Text as it is; any other JSON value as its text.
    payload: Option<Value>,
    /// The payload's bytes in base64, instead of `payload`.
    raw_b64: Option<String>,
    #[serde(default)]
    ctx: Context,
}

/// What surrounds the message.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Context {
    client_id: Option<String>,
    /// What `timestamp()` says, milliseconds since the Unix epoch.
    timestamp: u64,
}

/// Answers line by line: `{"out": …}`, `{"no": true}` or `{"error": "…"}`.
pub fn lines(questions: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    for line in questions.lines() {
        let line = line?;
        if !line.trim().is_empty() {
            let answer = answer(&line).unwrap_or_else(|error| json!({"error": error}));
            writeln!(out, "{answer}")?;
        }
    }
    Ok(())
}

fn answer(line: &str) -> Result<Value, String> {
    let question: Question = serde_json::from_str(line).map_err(|error| format!("question: {error}"))?;
    let payload = payload(&question)?;
    let rule = Rule::compile(&question.sql).map_err(|error| error.to_string())?;
    if !matches(rule.filter().as_str(), &question.topic) {
        return Ok(json!({"no": true}));
    }
    let client_id = question.ctx.client_id.as_deref();
    let message = Message::new(&question.topic, client_id, question.ctx.timestamp, &payload);
    match rule.evaluate(&message) {
        Outcome::Row(row) => Ok(json!({"out": shown(&row.to_bytes())})),
        Outcome::NoMatch => Ok(json!({"no": true})),
        Outcome::Error(error) => Err(error.to_string()),
    }
}

fn payload(question: &Question) -> Result<Vec<u8>, String> {
    match (&question.payload, &question.raw_b64) {
        (Some(Value::String(text)), None) => Ok(text.clone().into_bytes()),
        (Some(json), None) => Ok(json.to_string().into_bytes()),
        (None, Some(text)) => {
            base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| format!("raw_b64: {error}"))
        }
        (Some(_), Some(_)) | (None, None) => Err("question has exactly one of payload and raw_b64".to_owned()),
    }
}

/// The row as the JSON it is; a payload passed on that is no JSON as text.
fn shown(row: &[u8]) -> Value {
    serde_json::from_slice(row).unwrap_or_else(|_| String::from_utf8_lossy(row).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(question: Value) -> Value {
        let mut out = Vec::new();
        lines(&mut format!("{question}\n\n").as_bytes(), &mut out).expect("answers");
        serde_json::from_slice(&out).expect("one JSON line")
    }

    #[test]
    fn a_question_is_answered_by_a_row_by_no_or_by_an_error() {
        let sql = "SELECT t, topic(2) AS d, clientid() AS c, timestamp() AS at FROM 'a/+' WHERE t > 3";
        let ctx = json!({"clientId": "me", "timestamp": 5});
        let ask =
            |payload: Value, topic: &str| answered(json!({"sql": sql, "topic": topic, "payload": payload, "ctx": ctx}));
        assert_eq!(ask(json!({"t": 4}), "a/b"), json!({"out": {"t": 4, "d": "b", "c": "me", "at": 5}}));
        assert_eq!(ask(json!("{\"t\": 4}"), "a/b")["out"]["t"], 4);
        assert_eq!(ask(json!({"t": 3}), "a/b"), json!({"no": true}));
        assert_eq!(ask(json!({"t": 4}), "b"), json!({"no": true}));
        let raw = json!({"sql": "SELECT * FROM 'a'", "topic": "a", "raw_b64": "eyJ4IjoxfQ=="});
        assert_eq!(answered(raw), json!({"out": {"x": 1}}));
    }

    #[test]
    fn what_is_wrong_is_the_answer_and_the_next_line_goes_on() {
        let mut out = Vec::new();
        let good = r#"{"sql": "SELECT * FROM 'a'", "topic": "a", "payload": {"x": 1}}"#;
        let bad = r#"{"sql": "SELECT FROM", "topic": "a", "payload": "{}"}"#;
        lines(&mut format!("nonsense\n{bad}\n{{\"sql\": \"\", \"topic\": \"a\"}}\n{good}\n").as_bytes(), &mut out)
            .expect("answers");
        let answers: Vec<Value> = out
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).expect("JSON"))
            .collect();
        assert!(answers[0]["error"].as_str().is_some_and(|e| e.starts_with("question: ")), "{}", answers[0]);
        assert!(answers[1]["error"].as_str().is_some_and(|e| e.contains("line 1")), "{}", answers[1]);
        assert!(answers[2]["error"].as_str().is_some_and(|e| e.contains("exactly one of")), "{}", answers[2]);
        assert_eq!(answers[3], json!({"out": {"x": 1}}));
    }
}
