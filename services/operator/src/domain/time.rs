//! Times as Kubernetes writes them.

use jiff::Timestamp;

/// RFC 3339 in whole seconds, as `metav1.Time` is; the epoch where the clock is beyond all bounds.
pub fn rfc3339(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or_default();
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// Milliseconds since the Unix epoch of an RFC 3339 time; `None`: it is none.
pub fn milliseconds(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_whole_seconds_and_read_back() {
        assert_eq!(rfc3339(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(milliseconds("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        assert_eq!(milliseconds("yesterday"), None);
    }
}
