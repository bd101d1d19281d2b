//! Spans of time as the language writes them: `250ms`, `30s`, `5m`, `1h`, `7d`.

use std::fmt;

/// Units and their milliseconds, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Milliseconds; prints as a whole number of the longest unit that is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub u64);

impl Span {
    /// `number` of `unit`; `None` if there is no such unit, or the number is not whole or too large.
    pub fn read(number: &str, unit: &str) -> Option<Self> {
        let (_, each) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        number.parse::<u64>().ok()?.checked_mul(*each).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, each)| self.0 > 0 && self.0.is_multiple_of(*each));
        let (unit, each) = exact.unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", self.0 / each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_whole_numbers_of_a_unit_and_print_as_the_longest() {
        for (number, unit, printed) in [("90", "s", "90s"), ("60", "S", "1m"), ("24", "h", "1d"), ("0", "s", "0ms")] {
            assert_eq!(Span::read(number, unit).expect("a span").to_string(), printed);
        }
        for (number, unit) in [("1.5", "s"), ("1", "w"), ("18446744073709551615", "s")] {
            assert_eq!(Span::read(number, unit), None);
        }
    }
}
