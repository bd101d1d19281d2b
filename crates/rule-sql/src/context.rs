//! What surrounds a message, as JSON: who sent it, its MQTT 5 properties, and what its rules look up.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::json::read;
use crate::message::{LookupError, Lookups, Message, Origin, PayloadFormat, Properties};
use crate::value::Value;

/// `{"clientId", "timestamp", "principal", "sourceIp", "accountId", "shadows", "device", "mqtt5", "userProperties"}`, of
/// which each may be missing. A shadow is named `thing`, or `thing/shadow` if it has a name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(try_from = "Declared")]
pub struct Context {
    declared: Declared,
    payload_format: Option<PayloadFormat>,
    correlation_data: Option<Vec<u8>>,
    user_properties: Vec<(String, String)>,
}

/// A context as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Declared {
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

#[derive(Clone, Debug, Default, Deserialize)]
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

impl TryFrom<Declared> for Context {
    type Error = String;

    fn try_from(declared: Declared) -> Result<Self, String> {
        let mqtt5 = declared.mqtt5.as_ref();
        let format = mqtt5.and_then(|mqtt5| mqtt5.format_indicator.as_ref());
        let correlation = mqtt5.and_then(|mqtt5| mqtt5.correlation_data.as_ref());
        let decoded = |text: &String| STANDARD.decode(text).map_err(|error| format!("correlation_data: {error}"));
        let user = declared.user_properties.as_ref().or(mqtt5.and_then(|mqtt5| mqtt5.user_properties.as_ref()));
        let mut user_properties = Vec::new();
        if let Some(json) = user {
            collect_pairs(json, &mut user_properties).ok_or("userProperties is no list of keys and values")?;
        }
        Ok(Self {
            payload_format: format.map_or(Ok(None), payload_format)?,
            correlation_data: correlation.map(decoded).transpose()?,
            user_properties,
            declared,
        })
    }
}

impl Context {
    /// Says it of a message; what the context does not have of client and time stays as it is.
    pub fn describe<'c>(&'c self, message: &mut Message<'c>) {
        let Declared { client_id, timestamp, principal, source_ip, account_id, mqtt5, .. } = &self.declared;
        message.client_id = client_id.as_deref().or(message.client_id);
        message.timestamp_ms = timestamp.unwrap_or(message.timestamp_ms);
        let mqtt5 = mqtt5.as_ref();
        message.origin = Origin {
            principal: principal.as_deref(),
            source_ip: source_ip.as_deref(),
            account: account_id.as_deref(),
            properties: Properties {
                content_type: mqtt5.and_then(|mqtt5| mqtt5.content_type.as_deref()),
                payload_format: self.payload_format,
                response_topic: mqtt5.and_then(|mqtt5| mqtt5.response_topic.as_deref()),
                correlation_data: self.correlation_data.as_deref(),
                user: &self.user_properties,
            },
            lookups: Some(self),
            ..message.origin
        };
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

impl Lookups for Context {
    fn shadow(&self, thing: &str, shadow: Option<&str>) -> Result<Option<Value<'static>>, LookupError> {
        let Some(shadows) = &self.declared.shadows else { return Ok(None) };
        let of_thing = shadows.get(thing).map(|json| owned(json)).transpose()?;
        let Some(shadow) = shadow else { return Ok(of_thing) };
        match shadows.get(&format!("{thing}/{shadow}")) {
            Some(json) => owned(json).map(Some),
            None => Ok(of_thing.and_then(|of_thing| of_thing.member(shadow).cloned())),
        }
    }

    fn device(&self) -> Result<Option<Value<'static>>, LookupError> {
        self.declared.device.as_deref().map(owned).transpose()
    }
}

fn owned(json: &RawValue) -> Result<Value<'static>, LookupError> {
    let value = read(json.get().as_bytes()).map_err(|error| LookupError { reason: error.to_string() })?;
    Ok(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        serde_json::from_str::<Context>(json).expect_err(json).to_string()
    }

    #[test]
    fn what_is_wrong_with_a_context_is_named() {
        assert!(refused(r#"{"userProperties": 1}"#).starts_with("userProperties is no list of keys and values"));
        assert!(refused(r#"{"mqtt5": {"format_indicator": 2}}"#).starts_with("format_indicator is 2, expected 0, 1, "));
        assert!(refused(r#"{"mqtt5": {"correlationData": "!"}}"#).starts_with("correlation_data: "));
    }

    #[test]
    fn client_and_time_stay_as_they_are_unless_the_context_has_them() {
        let told = |json: &str| {
            let context: Context = serde_json::from_str(json).expect("a context");
            let mut message = Message::new("a", Some("c"), 7, b"");
            context.describe(&mut message);
            (message.client_id.map(str::to_owned), message.timestamp_ms)
        };
        assert_eq!(told("{}"), (Some("c".to_owned()), 7));
        assert_eq!(told(r#"{"clientId": "d", "timestamp": 8}"#), (Some("d".to_owned()), 8));
    }
}
