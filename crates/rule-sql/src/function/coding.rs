//! `encode`, `decode` and the hashes.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::Digest;

use super::Call;
use crate::ast::Prepared;
use crate::error::EvalError;
use crate::evaluate::{Answer, made, undefined};
use crate::format::Format;
use crate::json;
use crate::number::Number;
use crate::value::{Held, Value};

const SCHEME: &str = "base64";
/// Texts without padding are read as well.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `encode(value, 'base64')`: of a value's text form; of `*`, the payload's bytes.
pub(super) fn encode<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    if !is_base64(&call.arguments[1]) {
        return undefined();
    }
    if call.raw {
        return made(BASE64.encode(call.message.payload()));
    }
    made(call.arguments[0].to_text().map(|text| BASE64.encode(text.as_bytes())))
}

/// `decode(text, 'base64')`: a value if it is JSON, else a text; null if it cannot be decoded. `decode(value, scheme, …)`
/// by a schema: of the bytes that base64 stands for; of `*`, the payload's.
pub(super) fn decode<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    if let Some(Prepared::Format(format)) = call.prepared {
        return by_schema(format, call);
    }
    let Some(text) = call.arguments[0].to_text().filter(|_| is_base64(&call.arguments[1])) else { return undefined() };
    let Some(decoded) = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return made(Value::Null);
    };
    match json::read(decoded.as_bytes()) {
        Ok(value) => made(value.into_owned()),
        Err(_) => made(decoded),
    }
}

fn by_schema<'m>(format: &Format, call: &Call<'_, 'm, '_>) -> Answer<'m> {
    if call.raw {
        return format.decode(call.message.payload(), call.message).map(Held::Made);
    }
    let Some(text) = call.arguments[0].to_text() else { return undefined() };
    if format.is_of_text() {
        return format.decode(text.as_bytes(), call.message).map(Held::Made);
    }
    let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
        let reason = format!("the value is not base64: {error}");
        EvalError::Format { format: format.name(), reason }
    })?;
    format.decode(&bytes, call.message).map(Held::Made)
}

fn is_base64(scheme: &Value<'_>) -> bool {
    matches!(scheme, Value::Text(text) if text == SCHEME)
}

/// `bytes(value [, 'base64'])`: the bytes of a value's text form, or those that base64 stands for, as numbers from 0 to
/// 255; of `*`, the payload's. What payload codecs take.
pub(super) fn bytes<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let bytes = match (call.arguments, call.raw) {
        ([_], true) => call.message.payload().to_vec(),
        ([value], false) => match value.to_text() {
            Some(text) => text.as_bytes().to_vec(),
            None => return undefined(),
        },
        ([value, scheme], false) if is_base64(scheme) => {
            match value.to_text().and_then(|text| BASE64.decode(text.as_bytes()).ok()) {
                Some(bytes) => bytes,
                None => return undefined(),
            }
        }
        _ => return undefined(),
    };
    let number = |byte: u8| Value::Number(Number::Int(byte.into()));
    let numbers = Value::Array(bytes.into_iter().map(number).collect());
    call.message.charge(numbers.weight())?;
    Ok(Held::Made(numbers))
}

/// The hash of a value's text form, in lower-case hex.
pub(super) fn hash<D: Digest>(arguments: &[Held<'_>]) -> Answer<'static> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let Some(text) = arguments[0].to_text() else { return undefined() };
    let digest = D::digest(text.as_bytes());
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    made(digits.map(|digit| char::from(HEX[usize::from(digit)])).collect::<String>())
}
