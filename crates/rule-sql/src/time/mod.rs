//! `parse_time` and `time_to_epoch`: times by the patterns of Java.

mod format;
mod pattern;
mod read;
mod zone;

use jiff::Timestamp;

use crate::evaluate::{Answer, undefined};
use crate::number::Number;
use crate::value::{Held, Value};

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

/// `parse_time(pattern, ms[, zone])`: milliseconds since the Unix epoch as text, by a pattern of Joda-Time.
pub(crate) fn parse_time(arguments: &[Held<'_>]) -> Answer<'static> {
    let text = |i: usize| arguments.get(i).and_then(|argument| argument.to_text());
    let zone = if arguments.len() > 2 { text(2).and_then(|name| zone::named(&name)) } else { zone::named("UTC") };
    let instant = arguments[1].to_int().and_then(|ms| i64::try_from(ms).ok());
    let instant = instant.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let Some(((pattern, instant), zone)) = text(0).zip(instant).zip(zone) else { return undefined() };
    let parts = pattern::parts(&pattern).filter(|_| pattern.len() <= PATTERN_BYTES_MAX);
    let formatted = parts.and_then(|parts| format::format(&parts, &instant.to_zoned(zone)));
    Ok(Held::Made(formatted.into()))
}

/// `time_to_epoch(text, pattern)`: milliseconds since the Unix epoch, by a pattern of `java.time`.
pub(crate) fn time_to_epoch(arguments: &[Held<'_>]) -> Answer<'static> {
    let Some((text, pattern)) = arguments[0].to_text().zip(arguments[1].to_text()) else { return undefined() };
    let parts = pattern::parts(&pattern).filter(|_| pattern.len() <= PATTERN_BYTES_MAX);
    let ms = parts.and_then(|parts| read::epoch_ms(&text, &parts));
    Ok(Held::Made(Value::from(ms.map(|ms| Number::Int(ms.into())))))
}
