//! Functions of texts. Whatever has a text form is a text to them; null and undefined values have none.

use std::borrow::Cow;

use super::Call;
use crate::ast::Prepared;
use crate::evaluate::{Answer, made, undefined};
use crate::number::Number;
use crate::operator::within_limit;
use crate::pattern::Pattern;
use crate::value::{Held, Value};

/// Most blanks that `lpad` and `rpad` add.
const PADDING_MAX: i128 = 1_000;
/// Last character that `chr` knows.
const ASCII_MAX: i128 = 127;

type Arguments<'s, 'm> = &'s [Held<'m>];

fn int(number: usize) -> Value<'static> {
    Value::Number(Number::Int(number as i128))
}

/// What `f` makes of the text of one argument.
fn of(arguments: Arguments<'_, '_>, f: impl Fn(&str) -> String) -> Answer<'static> {
    let Some(text) = arguments[0].to_text() else { return undefined() };
    let text = f(&text);
    within_limit(text.len())?;
    made(text)
}

pub(super) fn lower(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of(arguments, str::to_lowercase)
}

pub(super) fn upper(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of(arguments, str::to_uppercase)
}

pub(super) fn trim(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of(arguments, |text| text.trim().to_owned())
}

pub(super) fn trim_left(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of(arguments, |text| text.trim_start().to_owned())
}

pub(super) fn trim_right(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of(arguments, |text| text.trim_end().to_owned())
}

/// In characters.
pub(super) fn length(arguments: Arguments<'_, '_>) -> Answer<'static> {
    arguments[0].to_text().map_or(undefined(), |text| made(int(text.chars().count())))
}

/// In bytes of UTF-8.
pub(super) fn num_bytes(arguments: Arguments<'_, '_>) -> Answer<'static> {
    arguments[0].to_text().map_or(undefined(), |text| made(int(text.len())))
}

/// `chr(n)`: the ASCII character.
pub(super) fn chr(arguments: Arguments<'_, '_>) -> Answer<'static> {
    let code = arguments[0].to_number().and_then(Number::truncated);
    let code = code.filter(|code| (0..=ASCII_MAX).contains(code)).and_then(|code| u8::try_from(code).ok());
    made(code.map(|code| char::from(code).to_string()))
}

/// What `f` makes of the texts of two arguments.
fn of_two(arguments: Arguments<'_, '_>, f: impl Fn(&str, &str) -> Value<'static>) -> Answer<'static> {
    arguments[0].to_text().zip(arguments[1].to_text()).map_or(undefined(), |(a, b)| made(f(&a, &b)))
}

pub(super) fn starts_with(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of_two(arguments, |text, start| Value::Bool(text.starts_with(start)))
}

pub(super) fn ends_with(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of_two(arguments, |text, end| Value::Bool(text.ends_with(end)))
}

/// The character at which the second text first begins in the first, from 0; -1 if nowhere.
pub(super) fn index_of(arguments: Arguments<'_, '_>) -> Answer<'static> {
    of_two(arguments, |text, part| match text.find(part) {
        Some(at) => int(text[..at].chars().count()),
        None => Value::Number(Number::Int(-1)),
    })
}

pub(super) fn pad_left(arguments: Arguments<'_, '_>) -> Answer<'static> {
    pad(arguments, |text, blanks| format!("{blanks}{text}"))
}

pub(super) fn pad_right(arguments: Arguments<'_, '_>) -> Answer<'static> {
    pad(arguments, |text, blanks| format!("{text}{blanks}"))
}

fn pad(arguments: Arguments<'_, '_>, join: impl Fn(&str, &str) -> String) -> Answer<'static> {
    let text = arguments[0].to_text();
    let Some((text, blanks)) = text.zip(clamped(&arguments[1], PADDING_MAX)) else { return undefined() };
    within_limit(text.len() + blanks)?;
    made(join(&text, &" ".repeat(blanks)))
}

/// A number or numeric text between 0 and `most`, without its fraction; what lies beyond becomes the bound.
fn clamped(value: &Value<'_>, most: i128) -> Option<usize> {
    let number = value.to_number()?.clamp(Number::Int(0), Number::Int(most));
    number.truncated().and_then(|number| usize::try_from(number).ok())
}

/// `substring(text, from[, to])`: by characters from 0, without the one at `to`; places beyond become the bounds.
pub(super) fn substring(arguments: Arguments<'_, '_>) -> Answer<'static> {
    let Some(text) = arguments[0].to_text() else { return undefined() };
    let length = text.chars().count();
    let place = |i: usize| clamped(&arguments[i], length as i128);
    let to = if arguments.len() == 3 { place(2) } else { Some(length) };
    match place(1).zip(to) {
        Some((from, to)) => made(text.chars().skip(from).take(to.saturating_sub(from)).collect::<String>()),
        None => undefined(),
    }
}

/// `replace(text, part, other)`: every occurrence.
pub(super) fn replace(arguments: Arguments<'_, '_>) -> Answer<'static> {
    let texts = arguments[0].to_text().zip(arguments[1].to_text()).zip(arguments[2].to_text());
    let Some(((text, part), other)) = texts else { return undefined() };
    let occurrences = text.matches(&*part).count();
    within_limit((text.len() - occurrences * part.len()).saturating_add(occurrences.saturating_mul(other.len())))?;
    made(text.replace(&*part, &other))
}

pub(super) fn regexp_matches<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    made(searched(call).and_then(|(text, pattern)| pattern.matches(&text)))
}

/// The first match; undefined if there is none.
pub(super) fn regexp_substr<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    made(searched(call).and_then(|(text, pattern)| pattern.first(&text).map(str::to_owned)))
}

/// Every match, by a replacement that may name groups.
pub(super) fn regexp_replace<'m>(call: &Call<'_, 'm, '_>) -> Answer<'m> {
    let searched = searched(call).zip(call.arguments[2].to_text());
    made(searched.and_then(|((text, pattern), replacement)| pattern.replace(&text, &replacement)))
}

/// The text to search, and the regular expression: the rule's own or made of the second argument.
fn searched<'s>(call: &Call<'s, '_, '_>) -> Option<(Cow<'s, str>, Cow<'s, Pattern>)> {
    let text = call.arguments[0].to_text()?;
    let pattern = match call.prepared {
        Some(Prepared::Pattern(pattern)) => Cow::Borrowed(pattern),
        Some(Prepared::Format(_)) | None => Cow::Owned(Pattern::compile(&call.arguments[1].to_text()?)?),
    };
    Some((text, pattern))
}
