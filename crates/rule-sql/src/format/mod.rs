//! Payloads that are not JSON: `decode(value, scheme, schema…)`, by a schema that stands in the statement and is compiled
//! with it.
//!
//! What is decoded is counted as any other value that an evaluation makes, while it is decoded: no few bytes make a
//! large value. What does not follow its schema is an error of that row.

mod avro;
mod cbor;
mod columns;
mod protobuf;

use std::borrow::Cow;

use drover_types::limits::PAYLOAD_BYTES_MAX;

use crate::error::EvalError;
use crate::json::DEPTH_MAX;
use crate::message::Message;
use crate::number::Number;
use crate::value::Value;

use avro::Avro;
use columns::Columns;
use protobuf::Protobuf;

/// What a value costs besides its text, in bytes of what an evaluation may make.
const VALUE_BYTES: usize = 16;

/// How bytes become a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    Cbor,
    Csv(Columns),
    Protobuf(Protobuf),
    Avro(Avro),
}

impl Format {
    /// The format of a scheme, with the texts behind it; `None`: there is none of this name. The error says what a schema
    /// lacks.
    pub(crate) fn compile(scheme: &str, schema: &[&str]) -> Option<Result<Self, String>> {
        let takes = |what: &str| Err(format!("'{scheme}' takes {what}"));
        Some(match (scheme, schema) {
            ("cbor", []) => Ok(Self::Cbor),
            ("cbor", _) => takes("no schema"),
            ("csv", []) => Ok(Self::Csv(Columns::named_by_the_first_line())),
            ("csv", [columns]) => Columns::compile(columns).map(Self::Csv),
            ("csv", _) => takes("the columns, or none where the first line names them"),
            ("proto", [set, message]) => Protobuf::compile(set, message).map(Self::Protobuf),
            ("proto", _) => takes("a descriptor set in base64 and the name of a message"),
            ("avro", [schema]) => Avro::compile(schema).map(Self::Avro),
            ("avro", _) => takes("a schema as JSON"),
            _ => return None,
        })
    }

    /// Whether a text is what is decoded, and not base64 of it.
    pub(crate) fn is_of_text(&self) -> bool {
        matches!(self, Self::Csv(_))
    }

    /// The value that the bytes stand for; all of them.
    pub(crate) fn decode(&self, bytes: &[u8], message: &Message<'_>) -> Result<Value<'static>, EvalError> {
        let budget = Budget { message, format: self.name() };
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(budget.malformed(format!("{} bytes, limit is {PAYLOAD_BYTES_MAX}", bytes.len())));
        }
        match self {
            Self::Cbor => cbor::decode(bytes, budget),
            Self::Csv(columns) => columns.decode(bytes, budget),
            Self::Protobuf(protobuf) => protobuf.decode(bytes, budget),
            Self::Avro(avro) => avro.decode(bytes, budget),
        }
    }

    /// What errors call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Cbor => "CBOR",
            Self::Csv(_) => "CSV",
            Self::Protobuf(_) => "Protobuf",
            Self::Avro(_) => "Avro",
        }
    }
}

/// What may be made of one message, and of what.
#[derive(Clone, Copy)]
struct Budget<'b, 'p> {
    message: &'b Message<'p>,
    format: &'static str,
}

impl Budget<'_, '_> {
    /// Counts a value of so many bytes, nested so deep.
    fn charge(self, bytes: usize, depth: usize) -> Result<(), EvalError> {
        if depth > DEPTH_MAX {
            return Err(self.malformed(format!("nested too deep, limit is {DEPTH_MAX}")));
        }
        self.message.charge(VALUE_BYTES + bytes)
    }

    fn malformed(self, reason: impl Into<String>) -> EvalError {
        EvalError::Format { format: self.format, reason: reason.into() }
    }
}

fn text(text: impl Into<String>) -> Value<'static> {
    Value::Text(Cow::Owned(text.into()))
}

fn int(int: impl Into<i128>) -> Value<'static> {
    Value::Number(Number::Int(int.into()))
}

/// JSON has no number for what is not finite.
fn double(double: f64) -> Value<'static> {
    Number::from_f64(double).map_or(Value::Null, |number| Value::Number(number.normal()))
}

/// The number that the fewest digits tell from other floats.
fn float(float: f32) -> Value<'static> {
    float.to_string().parse().map_or(Value::Null, double)
}
