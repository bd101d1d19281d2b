//! Durations as resources write them, `8760h` or `1h30m`.

use drover_types::ApiError;

/// Seconds of a duration made of hours, minutes and seconds; `field` is named by the error.
pub fn seconds(field: &str, text: &str) -> Result<u64, ApiError> {
    let invalid =
        || ApiError::invalid(field, "is no duration such as 8760h or 1h30m").over("hours, minutes, seconds", text);
    let (mut total, mut number) = (0_u64, None::<u64>);
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                let digit = u64::from(c) - u64::from('0');
                let grown = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                number = Some(grown.ok_or_else(invalid)?);
                continue;
            }
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(invalid()),
        };
        let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
    }
    if number.is_some() || text.is_empty() { Err(invalid()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_minutes_and_seconds_are_added_and_all_else_is_refused() {
        for (text, expected) in [("8760h", 31_536_000), ("1h30m", 5_400), ("1m1s", 61), ("0s", 0)] {
            assert_eq!(seconds("f", text), Ok(expected), "{text}");
        }
        for text in ["", "5", "h", "1d", "-1h", "1h 5m", "99999999999999999999h", "9999999999999999h"] {
            assert_eq!(seconds("f", text).expect_err(text).field.as_deref(), Some("f"));
        }
    }
}
