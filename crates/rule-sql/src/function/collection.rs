//! Functions of arrays and objects, and of whether there is a value at all.

use super::Call;
use crate::error::EvalError;
use crate::evaluate::{Answer, undefined};
use crate::json::json_bytes;
use crate::operator::within_limit;
use crate::value::{Held, Value};

/// Largest array that `transform` makes, in bytes as JSON; as the reference has it.
const TRANSFORM_BYTES_MAX: usize = 128 * 1024;

/// `get(collection, key)`: an element of an array or a character of a text by its index from 0, a member of an object
/// by its name.
pub(super) fn get<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let (collection, key) = (&call.arguments[0], &call.arguments[1]);
    let index = || key.to_int().and_then(|n| usize::try_from(n).ok());
    if let Value::Text(text) = &**collection {
        let character = index().and_then(|n| text.chars().nth(n)).map(String::from);
        return Ok(Held::Made(character.into()));
    }
    let found = collection.clone().part(|collection| match (collection, &**key) {
        (Value::Array(elements), _) => index().and_then(|n| elements.get(n)),
        (Value::Object(_), Value::Text(name)) => collection.member(name),
        _ => None,
    });
    Ok(found)
}

/// `concat(…)`: an array of all if any is one, else their texts in a row.
pub(super) fn concat<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    if call.arguments.iter().any(|argument| matches!(**argument, Value::Array(_))) {
        return joined(call);
    }
    let mut text = String::new();
    for argument in call.arguments {
        let Some(part) = argument.to_text() else { return undefined() };
        within_limit(text.len() + part.len())?;
        text.push_str(&part);
    }
    if call.arguments.is_empty() { undefined() } else { Ok(Held::Made(text.into())) }
}

/// The elements of arrays and all other values; undefined ones are left out.
fn joined<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let mut elements = Vec::new();
    for argument in call.arguments {
        call.message.charge(argument.weight())?;
        match argument.clone().into_value() {
            Value::Array(more) => elements.extend(more),
            Value::Undefined => {}
            single => elements.push(single),
        }
    }
    Ok(Held::Made(Value::Array(elements)))
}

/// `transform('enrichArray', object, array)`: each object of the array with the members of the object.
pub(super) fn transform<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let [mode, object, array] = call.arguments else { return undefined() };
    let (Value::Text(mode), Value::Object(added), Value::Array(elements)) = (&**mode, &**object, &**array) else {
        return undefined();
    };
    if mode != "enrichArray" {
        return undefined();
    }
    let mut enriched = Vec::with_capacity(elements.len());
    let (mut bytes, added_weight) = ("[]".len(), object.weight());
    for element in elements {
        let Value::Object(members) = element else { return undefined() };
        call.message.charge(element.weight() + added_weight)?;
        let kept = members.iter().filter(|(name, _)| !added.iter().any(|(other, _)| other == name));
        let both = Value::Object(kept.chain(added).cloned().collect());
        bytes += usize::from(!enriched.is_empty()) + json_bytes(&both);
        if bytes > TRANSFORM_BYTES_MAX {
            return Err(EvalError::TextTooLong { bytes, limit: TRANSFORM_BYTES_MAX });
        }
        enriched.push(both);
    }
    Ok(Held::Made(Value::Array(enriched)))
}

/// `nanvl(a, b)`: `b` if `a` is null or undefined. There is no number that is none.
pub(super) fn nanvl<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let missing = matches!(*call.arguments[0], Value::Undefined | Value::Null);
    Ok(call.arguments[usize::from(missing)].clone())
}

pub(super) fn is_null(arguments: &[Held<'_>]) -> Answer<'static> {
    Ok(Held::Made(Value::Bool(*arguments[0] == Value::Null)))
}

pub(super) fn is_undefined(arguments: &[Held<'_>]) -> Answer<'static> {
    Ok(Held::Made(Value::Bool(*arguments[0] == Value::Undefined)))
}
