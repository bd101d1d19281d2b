//! One question a line: a statement and a message as JSON in, the answer as JSON out. What `drover rule eval --stdin`
//! speaks, so that other implementations and tables of cases can be compared with this one.
//!
//! The payload is `payload` or `raw_b64`. A JSON string as `payload` is the payload's text; any other JSON value is the
//! payload itself, letter by letter. A row that is no JSON is answered as it came: as text, or as base64. JSON that is
//! longer or deeper than a payload may be is no answer to anybody: an error says so.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::json::{JsonError, read};
use crate::message::Message;
use crate::row::Row;
use crate::rule::{CompiledRule, Outcome, Rule};

/// Most statements that stay compiled.
const RULES_MAX: usize = 1_024;

/// Answers questions; keeps statements compiled.
#[derive(Debug, Default)]
pub struct Lines {
    rules: HashMap<String, CompiledRule>,
}

/// What a question need not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Defaults {
    /// What `timestamp()` says.
    pub timestamp_ms: u64,
    /// The message's id.
    pub id: [u8; 16],
}

#[derive(Deserialize)]
struct Question {
    sql: String,
    topic: String,
    #[serde(default, deserialize_with = "present")]
    payload: Option<Box<RawValue>>,
    raw_b64: Option<String>,
    ctx: Option<Context>,
}

/// A field that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

impl Lines {
    /// The answer to one line: `{"out": …}`, `{"no": true}` or `{"error": "…"}`, whatever the line is.
    pub fn answer(&mut self, line: &str, defaults: Defaults) -> String {
        self.answered(line, defaults).unwrap_or_else(|error| json!({ "error": error }).to_string())
    }

    fn answered(&mut self, line: &str, defaults: Defaults) -> Result<String, String> {
        let question: Question = serde_json::from_str(line).map_err(|error| format!("question: {error}"))?;
        let (payload, context) = (question.payload()?, question.ctx.unwrap_or_default());
        let mut message = Message::new(&question.topic, None, defaults.timestamp_ms, &payload);
        message.origin.id = defaults.id;
        context.describe(&mut message);
        let rule = self.rule(&question.sql)?;
        if !rule.listens_to(&message) {
            return Ok(json!({ "no": true }).to_string());
        }
        match rule.evaluate(&message) {
            Outcome::Row(row) => Ok(format!("{{\"out\":{}}}", shown(&row, question.raw_b64.is_some())?)),
            Outcome::NoMatch => Ok(json!({ "no": true }).to_string()),
            Outcome::Error(error) => Err(error.to_string()),
        }
    }

    fn rule(&mut self, sql: &str) -> Result<&CompiledRule, String> {
        if !self.rules.contains_key(sql) {
            let rule = Rule::compile(sql).map_err(|error| error.to_string())?;
            if self.rules.len() == RULES_MAX {
                self.rules.clear();
            }
            self.rules.insert(sql.to_owned(), rule);
        }
        self.rules.get(sql).ok_or_else(|| "statement was not kept".to_owned())
    }
}

/// The row as the JSON it is; what is no JSON as text, or in base64 if it came so.
fn shown(row: &Row<'_>, in_base64: bool) -> Result<String, String> {
    let Some(payload) = row.as_payload() else { return Ok(row.to_string()) };
    Ok(match (std::str::from_utf8(payload), read(payload)) {
        // On one line: JSON has line breaks between tokens only.
        (Ok(json), Ok(_)) => json.replace(['\n', '\r'], " "),
        (_, Err(limit @ (JsonError::TooDeep { .. } | JsonError::TooLong { .. }))) => return Err(limit.to_string()),
        (Ok(text), Err(_)) if !in_base64 => Json::from(text).to_string(),
        (Ok(_) | Err(_), _) => Json::from(STANDARD.encode(payload)).to_string(),
    })
}

impl Question {
    fn payload(&self) -> Result<Vec<u8>, String> {
        // `null` beside the other one is none.
        let payload = self.payload.as_deref().filter(|json| self.raw_b64.is_none() || json.get() != "null");
        match (payload, &self.raw_b64) {
            (Some(json), None) if json.get().starts_with('"') => {
                serde_json::from_str(json.get()).map(String::into_bytes).map_err(|error| format!("payload: {error}"))
            }
            (Some(json), None) => Ok(json.get().as_bytes().to_vec()),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("raw_b64: {error}")),
            (Some(_), Some(_)) | (None, None) => Err("question has exactly one of payload and raw_b64".to_owned()),
        }
    }
}
