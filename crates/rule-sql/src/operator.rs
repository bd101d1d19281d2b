//! What operators make of their operands.

use std::borrow::Cow;

use drover_types::limits::PAYLOAD_BYTES_MAX;

use crate::ast::{BinaryOperator, UnaryOperator};
use crate::error::EvalError;
use crate::message::Message;
use crate::number::Number;
use crate::value::Value;

/// Longest text that an operator or a function makes, in bytes: no rule needs more than a payload may hold.
pub(crate) const TEXT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// An error if a text of so many bytes is too long to be made.
pub(crate) fn within_limit(bytes: usize) -> Result<(), EvalError> {
    if bytes > TEXT_BYTES_MAX { Err(EvalError::TextTooLong { bytes, limit: TEXT_BYTES_MAX }) } else { Ok(()) }
}

pub(crate) fn unary(operator: UnaryOperator, operand: &Value<'_>) -> Value<'static> {
    match operator {
        UnaryOperator::Not => operand.to_bool().map(|truth| !truth).into(),
        UnaryOperator::Negate => operand.to_number().and_then(|n| Number::Int(0).difference(n)).into(),
    }
}

pub(crate) fn binary(
    operator: BinaryOperator,
    left: &Value<'_>,
    right: &Value<'_>,
    message: &Message<'_>,
) -> Result<Value<'static>, EvalError> {
    let numbers = || left.to_number().zip(right.to_number());
    let order = |f: fn(&Number, &Number) -> bool| numbers().map(|(a, b)| f(&a, &b)).into();
    let arithmetic = |f: fn(Number, Number) -> Option<Number>| numbers().and_then(|(a, b)| f(a, b)).into();
    let truths = || left.to_bool().zip(right.to_bool());
    Ok(match operator {
        BinaryOperator::Or => truths().map(|(a, b)| a || b).into(),
        BinaryOperator::And => truths().map(|(a, b)| a && b).into(),
        BinaryOperator::Equal => left.equals(right).into(),
        BinaryOperator::NotEqual => left.equals(right).map(|equal| !equal).into(),
        BinaryOperator::Less => order(Number::lt),
        BinaryOperator::LessOrEqual => order(Number::le),
        BinaryOperator::Greater => order(Number::gt),
        BinaryOperator::GreaterOrEqual => order(Number::ge),
        BinaryOperator::In => return is_element(left, right, message),
        BinaryOperator::Add if matches!(left, Value::Text(_)) || matches!(right, Value::Text(_)) => {
            return concatenated(left, right);
        }
        BinaryOperator::Add => arithmetic(Number::sum),
        BinaryOperator::Subtract => arithmetic(Number::difference),
        BinaryOperator::Multiply => arithmetic(Number::product),
        BinaryOperator::Divide => arithmetic(Number::quotient),
        BinaryOperator::Remainder => arithmetic(Number::remainder),
    })
}

/// Whether an array has an element that equals; undefined without an array or an element.
fn is_element(element: &Value<'_>, array: &Value<'_>, message: &Message<'_>) -> Result<Value<'static>, EvalError> {
    let Value::Array(elements) = array else { return Ok(Value::Undefined) };
    if *element == Value::Undefined {
        return Ok(Value::Undefined);
    }
    message.charge(elements.len())?;
    Ok(Value::Bool(elements.iter().any(|found| found.equals(element) == Some(true))))
}

fn concatenated(left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let Some((left, right)) = left.to_text().zip(right.to_text()) else {
        return Ok(Value::Undefined);
    };
    within_limit(left.len() + right.len())?;
    Ok(Value::Text(Cow::Owned(left.into_owned() + &right)))
}
