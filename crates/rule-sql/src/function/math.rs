//! Functions of numbers that are exact; those of doubles are in the table itself.

use crate::decimal::Rounding;
use crate::number::Number;

/// Most places that `trunc` leaves, as many as a number has digits; as the reference has it.
const PLACES_MAX: i128 = 34;

pub(super) fn abs(number: Number) -> Option<Number> {
    if number < Number::Int(0) { Number::Int(0).difference(number) } else { Some(number) }
}

pub(super) fn ceil(number: Number) -> Option<Number> {
    number.rounded(0, Rounding::Up)
}

pub(super) fn floor(number: Number) -> Option<Number> {
    number.rounded(0, Rounding::Down)
}

/// Halves away from 0.
pub(super) fn round(number: Number) -> Option<Number> {
    number.rounded(0, Rounding::Nearest)
}

pub(super) fn sign(number: Number) -> Option<Number> {
    Some(Number::Int(number.cmp(&Number::Int(0)) as i128))
}

/// `trunc(x, n)`: `x` without what is behind `n` places after the point; a negative `n` counts as 0.
pub(super) fn trunc(number: Number, places: Number) -> Option<Number> {
    let places = places.clamp(Number::Int(0), Number::Int(PLACES_MAX)).truncated()?;
    number.rounded(i32::try_from(places).ok()?, Rounding::TowardsZero)
}

pub(super) fn bit_and(a: Number, b: Number) -> Option<Number> {
    Some(Number::Int(a.truncated()? & b.truncated()?))
}

pub(super) fn bit_or(a: Number, b: Number) -> Option<Number> {
    Some(Number::Int(a.truncated()? | b.truncated()?))
}

pub(super) fn bit_xor(a: Number, b: Number) -> Option<Number> {
    Some(Number::Int(a.truncated()? ^ b.truncated()?))
}

/// In two's complement: `-n - 1`.
pub(super) fn bit_not(number: Number) -> Option<Number> {
    Some(Number::Int(!number.truncated()?))
}
