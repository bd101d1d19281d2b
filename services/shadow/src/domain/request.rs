//! The payload of a request, read and checked.

use drover_types::limits::{CLIENT_TOKEN_BYTES_MAX, SHADOW_DEPTH_MAX, SHADOW_STATE_BYTES_MAX, SHADOW_VALUES_MAX};
use serde_json::{Map, Value};

use super::rejection::Rejection;

/// An object of JSON.
pub type Object = Map<String, Value>;

/// What a request says besides what it asks for.
#[derive(Debug, Default)]
pub struct Payload {
    body: Object,
    /// Given back in every answer.
    pub client_token: Option<String>,
}

/// What an update wants of one section.
#[derive(Debug, PartialEq)]
pub enum Patch {
    /// It is not spoken of.
    Keep,
    /// `null`: nothing is to be left.
    Clear,
    Merge(Object),
}

/// What an update wants.
#[derive(Debug, PartialEq)]
pub struct Update {
    pub desired: Patch,
    pub reported: Patch,
    /// The version that has to be there.
    pub version: Option<u64>,
}

impl Payload {
    /// Reads a payload; none at all is an empty object.
    pub fn read(payload: &[u8]) -> Result<Self, Rejection> {
        if payload.is_empty() {
            return Ok(Self::default());
        }
        let text = std::str::from_utf8(payload).map_err(|_| Rejection::Encoding)?;
        let Ok(Value::Object(body)) = serde_json::from_str(text) else { return Err(Rejection::Json) };
        let client_token = match body.get("clientToken") {
            None | Some(Value::Null) => None,
            Some(Value::String(token)) if token.len() <= CLIENT_TOKEN_BYTES_MAX => Some(token.clone()),
            Some(_) => return Err(Rejection::ClientToken),
        };
        Ok(Self { body, client_token })
    }

    /// What an update wants, within the limits.
    pub fn update(mut self) -> Result<Update, Rejection> {
        let version = match self.body.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(version.as_u64().ok_or(Rejection::Version)?),
        };
        let mut state = match self.body.shift_remove("state") {
            None => return Err(Rejection::StateMissing),
            Some(Value::Object(state)) => state,
            Some(_) => return Err(Rejection::StateNotObject),
        };
        let bytes = json_bytes(&state);
        if bytes > SHADOW_STATE_BYTES_MAX {
            return Err(Rejection::TooLarge { bytes });
        }
        let desired = patch(state.shift_remove("desired"), Rejection::DesiredNotObject)?;
        let reported = patch(state.shift_remove("reported"), Rejection::ReportedNotObject)?;
        if let Some(node) = state.keys().next() {
            return Err(Rejection::Node { node: node.clone() });
        }
        let values = [&desired, &reported].iter().map(|patch| patch.values()).sum();
        if values > SHADOW_VALUES_MAX {
            return Err(Rejection::TooManyValues { values });
        }
        Ok(Update { desired, reported, version })
    }
}

impl Patch {
    fn values(&self) -> usize {
        match self {
            Patch::Keep | Patch::Clear => 0,
            Patch::Merge(fields) => count_values(fields),
        }
    }

    /// The section as the request had it; `None`: not at all.
    pub fn as_sent(&self) -> Option<Value> {
        match self {
            Patch::Keep => None,
            Patch::Clear => Some(Value::Null),
            Patch::Merge(fields) => Some(Value::Object(fields.clone())),
        }
    }
}

fn patch(section: Option<Value>, not_an_object: Rejection) -> Result<Patch, Rejection> {
    match section {
        None => Ok(Patch::Keep),
        Some(Value::Null) => Ok(Patch::Clear),
        Some(Value::Object(fields)) => {
            check_fields(&fields, 1)?;
            Ok(Patch::Merge(fields))
        }
        Some(_) => Err(not_an_object),
    }
}

/// Levels of nesting; and no `null` within an array, where it cannot mean "delete".
fn check_fields(fields: &Object, level: usize) -> Result<(), Rejection> {
    fields.iter().try_for_each(|(name, value)| check_value(name, value, level, true))
}

fn check_value(name: &str, value: &Value, level: usize, may_be_null: bool) -> Result<(), Rejection> {
    if level > SHADOW_DEPTH_MAX {
        return Err(Rejection::TooDeep);
    }
    match value {
        Value::Null if !may_be_null => Err(Rejection::Node { node: name.to_owned() }),
        Value::Object(fields) if may_be_null => check_fields(fields, level + 1),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| check_value(name, value, level + 1, false)),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(name, item, level + 1, false)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Values that get a timestamp, an empty object or array for one of them: it is part of an answer too.
pub fn count_values(fields: &Object) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Null => 0,
            Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
            Value::Array(items) => items.iter().map(of).sum::<usize>().max(1),
            Value::Object(fields) => count_values(fields).max(1),
        }
    }
    fields.values().map(of).sum()
}

/// Length as JSON without spaces.
pub fn json_bytes(fields: &Object) -> usize {
    serde_json::to_vec(fields).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn update(payload: Value) -> Result<Update, Rejection> {
        Payload::read(payload.to_string().as_bytes())?.update()
    }

    #[test]
    fn what_is_malformed_is_told_as_aws_tells_it() {
        let node = |node: &str| Rejection::Node { node: node.into() };
        for (payload, expected) in [
            (json!({}), Rejection::StateMissing),
            (json!({"state": 5}), Rejection::StateNotObject),
            (json!({"state": null}), Rejection::StateNotObject),
            (json!({"state": {"desired": 1}}), Rejection::DesiredNotObject),
            (json!({"state": {"reported": [1]}}), Rejection::ReportedNotObject),
            (json!({"state": {"delta": {}}}), node("delta")),
            (json!({"state": {"desired": {"a": [1, null]}}}), node("a")),
            (json!({"state": {"desired": {"a": [{"b": null}]}}}), node("b")),
            (json!({"state": {}, "version": "1"}), Rejection::Version),
            (json!({"state": {}, "version": -1}), Rejection::Version),
            (json!({"state": {}, "version": 1.5}), Rejection::Version),
            (json!({"state": {}, "clientToken": 7}), Rejection::ClientToken),
            (json!([]), Rejection::Json),
        ] {
            assert_eq!(update(payload.clone()), Err(expected), "{payload}");
        }
        assert!(matches!(Payload::read(b"{\"state\":"), Err(Rejection::Json)));
        assert!(matches!(Payload::read(b"\"\xff\""), Err(Rejection::Encoding)));
        let wanted = update(json!({"state": {"desired": null, "reported": {"a": null}}, "version": 3})).expect("valid");
        assert_eq!((wanted.version, &wanted.desired), (Some(3), &Patch::Clear));
        assert_eq!(wanted.reported.as_sent(), Some(json!({"a": null})));
    }

    #[test]
    fn limits_hold_at_and_over() {
        let token = |bytes: usize| Payload::read(json!({"clientToken": "t".repeat(bytes)}).to_string().as_bytes());
        assert_eq!(token(CLIENT_TOKEN_BYTES_MAX).expect("at the limit").client_token.map(|t| t.len()), Some(64));
        assert!(matches!(token(CLIENT_TOKEN_BYTES_MAX + 1), Err(Rejection::ClientToken)));

        let nested = |levels: usize| {
            let mut value = json!(1);
            (1..levels).for_each(|_| value = json!({"a": value}));
            update(json!({"state": {"desired": {"a": value}}}))
        };
        assert!(nested(SHADOW_DEPTH_MAX).is_ok());
        assert_eq!(nested(SHADOW_DEPTH_MAX + 1), Err(Rejection::TooDeep));

        let empty = json_bytes(json!({"desired": {"a": ""}}).as_object().expect("an object"));
        let sized = |bytes: usize| update(json!({"state": {"desired": {"a": "x".repeat(bytes - empty)}}}));
        assert!(sized(SHADOW_STATE_BYTES_MAX).is_ok());
        assert_eq!(sized(SHADOW_STATE_BYTES_MAX + 1), Err(Rejection::TooLarge { bytes: SHADOW_STATE_BYTES_MAX + 1 }));

        let many = |values: usize| update(json!({"state": {"desired": {"a": vec![1; values]}}}));
        assert!(many(SHADOW_VALUES_MAX).is_ok());
        let values = SHADOW_VALUES_MAX + 1;
        assert_eq!(many(values), Err(Rejection::TooManyValues { values }));
    }
}
