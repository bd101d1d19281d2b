//! CBOR (RFC 8949). Byte strings become base64, tags fall away, keys that are numbers become texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciborium::Value as Cbor;
use ciborium::de::{Error, from_reader_with_recursion_limit};

use super::{Budget, double, int, text};
use crate::error::EvalError;
use crate::json::{DEPTH_MAX, keep_last};
use crate::value::Value;

/// The value of exactly one item.
pub(super) fn decode(bytes: &[u8], budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
    let mut rest = bytes;
    let read: Result<Cbor, Error<std::io::Error>> = from_reader_with_recursion_limit(&mut rest, DEPTH_MAX);
    let item = read.map_err(|error| budget.malformed(told(&error)))?;
    if !rest.is_empty() {
        return Err(budget.malformed(format!("{} bytes behind the first item", rest.len())));
    }
    value(item, 0, budget)
}

fn told(error: &Error<std::io::Error>) -> String {
    match error {
        Error::Io(_) => "ends within an item".to_owned(),
        Error::Syntax(at) => format!("byte {at} has no meaning"),
        Error::Semantic(Some(at), reason) => format!("byte {at}: {reason}"),
        Error::Semantic(None, reason) => reason.clone(),
        Error::RecursionLimitExceeded => format!("nested too deep, limit is {DEPTH_MAX}"),
    }
}

fn value(item: Cbor, depth: usize, budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
    let bytes = match &item {
        Cbor::Bytes(bytes) => bytes.len(),
        Cbor::Text(text) => text.len(),
        _ => 0,
    };
    budget.charge(bytes, depth)?;
    Ok(match item {
        Cbor::Integer(number) => int(i128::from(number)),
        Cbor::Bytes(bytes) => text(STANDARD.encode(bytes)),
        Cbor::Float(number) => double(number),
        Cbor::Text(plain) => text(plain),
        Cbor::Bool(truth) => Value::Bool(truth),
        Cbor::Null => Value::Null,
        Cbor::Tag(_, item) => value(*item, depth + 1, budget)?,
        Cbor::Array(items) => {
            let values = items.into_iter().map(|item| value(item, depth + 1, budget));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Cbor::Map(pairs) => {
            let mut members = Vec::with_capacity(pairs.len());
            for (key, item) in pairs {
                let key = match key {
                    Cbor::Text(key) => key,
                    Cbor::Integer(key) => i128::from(key).to_string(),
                    _ => return Err(budget.malformed("a key is neither text nor integer")),
                };
                budget.charge(key.len(), depth)?;
                members.push((key.into(), value(item, depth + 1, budget)?));
            }
            keep_last(&mut members);
            Value::Object(members)
        }
        _ => return Err(budget.malformed("an item of an unknown kind")),
    })
}
