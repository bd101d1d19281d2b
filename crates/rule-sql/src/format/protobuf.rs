//! Protocol Buffers by a descriptor set, as `protoc --include_imports --descriptor_set_out` writes it, in base64.
//!
//! Members have the names of the fields. Fields that cannot be missing are there with their defaults, others only if they
//! are set; numbers are numbers, enum values names where they have one, bytes base64.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field,
};

use super::{Budget, double, float, int, text};
use crate::error::EvalError;
use crate::value::Value;

/// The message that bytes are.
#[derive(Clone, Debug, PartialEq)]
pub struct Protobuf(MessageDescriptor);

impl Protobuf {
    pub(super) fn compile(set: &str, message: &str) -> Result<Self, String> {
        let base64: String = set.split_whitespace().collect();
        let bytes = STANDARD.decode(base64).map_err(|error| format!("descriptor set is not base64: {error}"))?;
        let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|error| format!("descriptor set: {error}"))?;
        let found = pool.get_message_by_name(message);
        found.map(Self).ok_or_else(|| format!("descriptor set has no message {message}"))
    }

    pub(super) fn decode(&self, bytes: &[u8], budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
        let decoded = DynamicMessage::decode(self.0.clone(), bytes);
        members(&decoded.map_err(|error| budget.malformed(error.to_string()))?, 0, budget)
    }
}

fn members(message: &DynamicMessage, depth: usize, budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
    budget.charge(0, depth)?;
    let mut members = Vec::new();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        budget.charge(field.name().len(), depth)?;
        let value = value(&message.get_field(&field), &field.kind(), depth + 1, budget)?;
        members.push((field.name().to_owned().into(), value));
    }
    Ok(Value::Object(members))
}

fn value(field: &Field, kind: &Kind, depth: usize, budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
    let bytes = match field {
        Field::String(text) => text.len(),
        Field::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    budget.charge(bytes, depth)?;
    Ok(match field {
        Field::Bool(truth) => Value::Bool(*truth),
        Field::I32(number) => int(*number),
        Field::I64(number) => int(*number),
        Field::U32(number) => int(*number),
        Field::U64(number) => int(*number),
        Field::F32(number) => float(*number),
        Field::F64(number) => double(*number),
        Field::String(plain) => text(plain.as_str()),
        Field::Bytes(bytes) => text(STANDARD.encode(bytes)),
        Field::EnumNumber(number) => match kind {
            Kind::Enum(kind) => kind.get_value(*number).map_or_else(|| int(*number), |value| text(value.name())),
            _ => int(*number),
        },
        Field::Message(message) => members(message, depth, budget)?,
        Field::List(items) => {
            let values = items.iter().map(|item| value(item, kind, depth + 1, budget));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Field::Map(entries) => {
            let of_value = match kind {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other.clone(),
            };
            let mut members: Vec<(Cow<'static, str>, Value<'static>)> = Vec::with_capacity(entries.len());
            for (key, item) in entries {
                let key = key_text(key);
                budget.charge(key.len(), depth)?;
                members.push((key.into(), value(item, &of_value, depth + 1, budget)?));
            }
            // The order of a map is nobody's: this one is the same each time.
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(members)
        }
    })
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
