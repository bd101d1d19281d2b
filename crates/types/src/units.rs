//! Quantities with their units, as configuration writes them: `30s`, `256KiB`.
//!
//! A bare number is refused: nobody should have to guess whether 30 is seconds or milliseconds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct InvalidQuantity {
    pub text: String,
    pub expected: &'static str,
}

/// Unit and its size in the smallest unit, smallest first.
type Units = [(&'static str, u64)];

fn parse(text: &str, units: &Units, expected: &'static str) -> Result<u64, InvalidQuantity> {
    let invalid = || InvalidQuantity { text: text.to_owned(), expected };
    let digits = text.trim().find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
    let (number, unit) = text.trim().split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let (_, size) = units.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(invalid)?;
    number.checked_mul(*size).ok_or_else(invalid)
}

/// The largest unit that needs no fraction.
fn show(value: u64, units: &Units, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, size) =
        units.iter().rev().find(|(_, size)| value >= *size && value.is_multiple_of(*size)).unwrap_or(&units[0]);
    write!(f, "{}{name}", value / size)
}

macro_rules! quantity {
    ($name:ident, $units:ident, $expected:literal) => {
        impl FromStr for $name {
            type Err = InvalidQuantity;

            fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
                parse(text, &$units, $expected).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(self.0, &$units, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

/// A span of time, whole milliseconds; written `250ms`, `30s`, `5m`, `12h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(u64);

const TIME: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
quantity!(Duration, TIME, "a duration with its unit, such as 250ms, 30s, 5m, 12h or 7d");

impl Duration {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms)
    }

    /// `s` seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(s * 1_000)
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// As the standard library has it.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.as_std()
    }
}

/// A number of bytes; written `512B`, `256KiB`, `10MiB`, `10GiB`, `1TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const SIZE: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
quantity!(ByteSize, SIZE, "a size with its unit, such as 512B, 256KiB, 10MiB or 10GiB");

impl ByteSize {
    /// `bytes` bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Number of bytes as a length in memory; more than memory can hold becomes the most it can.
    pub fn as_len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_shown_with_their_units() {
        for (text, ms) in [("250ms", 250), ("30s", 30_000), ("90 s", 90_000), ("5m", 300_000), ("7d", 604_800_000)] {
            assert_eq!(text.parse(), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (text, bytes) in [("0B", 0), ("512B", 512), ("256KiB", 262_144), ("10 GiB", 10 << 30)] {
            assert_eq!(text.parse(), Ok(ByteSize::from_bytes(bytes)), "{text}");
        }
        for (shown, duration) in [("0ms", 0), ("1500ms", 1_500), ("90s", 90_000), ("2m", 120_000), ("1d", 86_400_000)] {
            assert_eq!(Duration::from_millis(duration).to_string(), shown);
            assert_eq!(shown.parse(), Ok(Duration::from_millis(duration)));
        }
    }

    #[test]
    fn what_has_no_unit_or_overflows_is_refused() {
        for text in ["", "30", "s", "-1s", "1.5s", "30 sec", "30S", "18446744073709551615d", "184467440737095516160ms"]
        {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert!("256KB".parse::<ByteSize>().is_err());
        let error = serde_json::from_str::<Duration>("30").expect_err("a bare number");
        assert!(error.to_string().contains("a duration with its unit, such as 250ms, 30s"), "{error}");
    }
}
