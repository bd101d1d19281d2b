//! One question a line: a statement and a message as JSON in, the answer as JSON out. What `drover rule eval --stdin`
//! speaks, so that other implementations and tables of cases can be compared with this one.
//!
//! The payload is `payload` or `raw_b64`. A JSON string as `payload` is the payload's text; any other JSON value is the
//! payload itself, letter by letter. A row that is no JSON is answered as it came: as text, or as base64. JSON that is
//! longer or deeper than a payload may be is no answer to anybody: an error says so.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::json::{JsonError, read};
use crate::message::{LookupError, Lookups, Message, Origin, PayloadFormat, Properties};
use crate::row::Row;
use crate::rule::{CompiledRule, Outcome, Rule};
use crate::value::Value;

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

/// What surrounds the message. A shadow is named `thing`, or `thing/shadow` if it has a name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Context {
    client_id: Option<String>,
    /// Milliseconds since the Unix epoch.
    timestamp: Option<u64>,
    principal: Option<String>,
    source_ip: Option<String>,
    account_id: Option<String>,
    shadows: Option<BTreeMap<String, Box<RawValue>>>,
    device: Option<Box<RawValue>>,
    mqtt5: Option<Mqtt5>,
    user_properties: Option<Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mqtt5 {
    #[serde(alias = "contentType")]
    content_type: Option<String>,
    /// 0 and 1, or their names.
    #[serde(alias = "formatIndicator", alias = "payload_format_indicator", alias = "payloadFormatIndicator")]
    format_indicator: Option<Json>,
    #[serde(alias = "responseTopic")]
    response_topic: Option<String>,
    /// In base64.
    #[serde(alias = "correlationData")]
    correlation_data: Option<String>,
    #[serde(alias = "userProperties")]
    user_properties: Option<Json>,
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
        let payload = question.payload()?;
        let context = question.ctx.as_ref();
        let user = context.map_or(Ok(Vec::new()), Context::user_properties)?;
        let correlation = context.map_or(Ok(None), Context::correlation_data)?;
        let lookups = context.map(|context| context as &dyn Lookups).unwrap_or(&Nothing);
        let client = context.and_then(|context| context.client_id.as_deref());
        let timestamp_ms = context.and_then(|context| context.timestamp).unwrap_or(defaults.timestamp_ms);
        let mut message = Message::new(&question.topic, client, timestamp_ms, &payload);
        message.origin = Origin { id: defaults.id, lookups: Some(lookups), ..Origin::default() };
        if let Some(context) = context {
            context.describe(&mut message.origin)?;
        }
        message.origin.properties.user = &user;
        message.origin.properties.correlation_data = correlation.as_deref();
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

impl Context {
    fn describe<'c>(&'c self, origin: &mut Origin<'c>) -> Result<(), String> {
        origin.principal = self.principal.as_deref();
        origin.source_ip = self.source_ip.as_deref();
        origin.account = self.account_id.as_deref();
        if let Some(mqtt5) = &self.mqtt5 {
            origin.properties = Properties {
                content_type: mqtt5.content_type.as_deref(),
                payload_format: mqtt5.format_indicator.as_ref().map_or(Ok(None), payload_format)?,
                response_topic: mqtt5.response_topic.as_deref(),
                ..Properties::default()
            };
        }
        Ok(())
    }

    fn correlation_data(&self) -> Result<Option<Vec<u8>>, String> {
        let data = self.mqtt5.as_ref().and_then(|mqtt5| mqtt5.correlation_data.as_ref());
        data.map(|text| STANDARD.decode(text).map_err(|error| format!("correlation_data: {error}"))).transpose()
    }

    fn user_properties(&self) -> Result<Vec<(String, String)>, String> {
        let within = self.mqtt5.as_ref().and_then(|mqtt5| mqtt5.user_properties.as_ref());
        let mut pairs = Vec::new();
        if let Some(json) = self.user_properties.as_ref().or(within) {
            collect_pairs(json, &mut pairs).ok_or("userProperties is no list of keys and values")?;
        }
        Ok(pairs)
    }
}

/// `{"k": "v"}`, `{"k": ["v", "w"]}`, `{"key": "k", "value": "v"}`, `["k", "v"]`, and arrays of these.
fn collect_pairs(json: &Json, pairs: &mut Vec<(String, String)>) -> Option<()> {
    match json {
        Json::Null => {}
        Json::Array(entries) => match entries.as_slice() {
            [Json::String(key), Json::String(value)] => pairs.push((key.clone(), value.clone())),
            entries => entries.iter().try_for_each(|entry| collect_pairs(entry, pairs))?,
        },
        Json::Object(members) => match (members.get("key"), members.get("value"), members.len()) {
            (Some(Json::String(key)), Some(Json::String(value)), 2) => pairs.push((key.clone(), value.clone())),
            _ => {
                for (key, values) in members {
                    let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
                    for value in values {
                        pairs.push((key.clone(), value.as_str()?.to_owned()));
                    }
                }
            }
        },
        Json::Bool(_) | Json::Number(_) | Json::String(_) => return None,
    }
    Some(())
}

fn payload_format(json: &Json) -> Result<Option<PayloadFormat>, String> {
    match (json.as_u64(), json.as_str()) {
        (Some(0), _) | (_, Some("UNSPECIFIED_BYTES")) => Ok(Some(PayloadFormat::Unspecified)),
        (Some(1), _) | (_, Some("UTF8_DATA")) => Ok(Some(PayloadFormat::Utf8)),
        _ if json.is_null() => Ok(None),
        _ => Err(format!("format_indicator is {json}, expected 0, 1, UNSPECIFIED_BYTES or UTF8_DATA")),
    }
}

/// A context that knows nothing.
struct Nothing;

impl Lookups for Nothing {
    fn shadow(&self, _: &str, _: Option<&str>) -> Result<Option<Value<'static>>, LookupError> {
        Ok(None)
    }

    fn device(&self) -> Result<Option<Value<'static>>, LookupError> {
        Ok(None)
    }
}

impl Lookups for Context {
    fn shadow(&self, thing: &str, shadow: Option<&str>) -> Result<Option<Value<'static>>, LookupError> {
        let Some(shadows) = &self.shadows else { return Ok(None) };
        let of_thing = shadows.get(thing).map(|json| owned(json)).transpose()?;
        let Some(shadow) = shadow else { return Ok(of_thing) };
        match shadows.get(&format!("{thing}/{shadow}")) {
            Some(json) => owned(json).map(Some),
            None => Ok(of_thing.and_then(|of_thing| of_thing.member(shadow).cloned())),
        }
    }

    fn device(&self) -> Result<Option<Value<'static>>, LookupError> {
        self.device.as_deref().map(owned).transpose()
    }
}

fn owned(json: &RawValue) -> Result<Value<'static>, LookupError> {
    let value = read(json.get().as_bytes()).map_err(|error| LookupError { reason: error.to_string() })?;
    Ok(value.into_owned())
}
