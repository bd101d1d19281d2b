//! Times and spans as people write them: ISO 8601, milliseconds since the Unix epoch, `now`, `-1h`.
//!
//! Domain layer, no I/O: what time it is arrives as an argument.

use drover_host::Duration;
use drover_types::ApiError;
use jiff::Timestamp;

/// A span of a request that does not say where it begins: the last hour.
const SPAN_MS: u64 = 3_600_000;

/// From one moment up to, and without, another; milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_ms: u64,
    pub to_ms: u64,
}

impl Span {
    /// The span of a query; absent parts: from an hour before its end, up to now.
    pub fn parse(from: Option<&str>, to: Option<&str>, now_ms: u64) -> Result<Self, ApiError> {
        let to_ms = to.map_or(Ok(now_ms), |text| moment("to", text, now_ms))?;
        let from_ms = from.map_or(Ok(to_ms.saturating_sub(SPAN_MS)), |text| moment("from", text, now_ms))?;
        if from_ms >= to_ms {
            return Err(ApiError::invalid("from", "is not before the end of the span").over(to_ms, from_ms));
        }
        Ok(Self { from_ms, to_ms })
    }
}

/// The moment that `text` means, milliseconds since the Unix epoch.
pub fn moment(field: &str, text: &str, now_ms: u64) -> Result<u64, ApiError> {
    let unknown = |reason: String| {
        let message = format!("is none of now, -1h, milliseconds since 1970 and an ISO 8601 time: {reason}");
        ApiError::invalid(field, message).over("a moment", text)
    };
    if text == "now" {
        return Ok(now_ms);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago: Duration = ago.parse().map_err(|error: drover_host::InvalidQuantity| unknown(error.to_string()))?;
        return Ok(now_ms.saturating_sub(ago.as_millis()));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().map_err(|_| unknown("it is too large".to_owned()));
    }
    let time: Timestamp = text.parse().map_err(|error: jiff::Error| unknown(error.to_string()))?;
    u64::try_from(time.as_millisecond()).map_err(|_| unknown("it is before 1970".to_owned()))
}

/// The width of a step, `10s` for example, in milliseconds; absent: 0, no steps.
pub fn step(text: Option<&str>) -> Result<u64, ApiError> {
    let Some(text) = text else { return Ok(0) };
    match text.parse::<Duration>() {
        Ok(step) if step.as_millis() > 0 => Ok(step.as_millis()),
        Ok(_) => Err(ApiError::invalid("step", "is nothing").over("more than 0ms", text)),
        Err(error) => Err(ApiError::invalid("step", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_moment_is_written_in_four_ways() {
        for (text, ms) in [
            ("now", NOW),
            ("-1h", NOW - 3_600_000),
            ("-250ms", NOW - 250),
            ("0", 0),
            ("1700000000001", NOW + 1),
            ("2023-11-14T22:13:20Z", NOW),
            ("2023-11-14T23:13:20+01:00", NOW),
        ] {
            assert_eq!(moment("from", text, NOW), Ok(ms), "{text}");
        }
        for text in
            ["", "-", "-1", "-1 day", "yesterday", "1e3", "2023-11-14", "1969-01-01T00:00:00Z", "99999999999999999999"]
        {
            assert_eq!(moment("from", text, NOW).expect_err("refused").field.as_deref(), Some("from"), "{text}");
        }
    }

    #[test]
    fn a_span_is_the_last_hour_unless_told_otherwise_and_never_empty() {
        assert_eq!(Span::parse(None, None, NOW), Ok(Span { from_ms: NOW - SPAN_MS, to_ms: NOW }));
        assert_eq!(Span::parse(Some("-2h"), Some("-1h"), NOW).map(|s| s.to_ms - s.from_ms), Ok(3_600_000));
        for (from, to) in [("now", "now"), ("-1h", "-2h")] {
            assert!(Span::parse(Some(from), Some(to), NOW).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn a_step_has_a_width_with_its_unit() {
        assert_eq!((step(None), step(Some("10s"))), (Ok(0), Ok(10_000)));
        for text in ["", "10", "0s", "-1s"] {
            assert_eq!(step(Some(text)).expect_err("refused").field.as_deref(), Some("step"), "{text}");
        }
    }
}
