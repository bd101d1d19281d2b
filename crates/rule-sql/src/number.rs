//! Numbers: integers of 34 digits, and decimals for everything else.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use crate::decimal::{DIGITS, Decimal, Digits, Rounding};

/// Largest integer, 34 digits; what an operation carries beyond becomes a decimal.
const INT_MAX: i128 = 10i128.pow(DIGITS) - 1;

/// Digits that an `i64` holds for certain.
const SHORT_DIGITS_MAX: usize = 18;

/// A number. The kind matters for division: `7 / 2` is 3, `'7' / 2` is 3.5. A number that is read is an integer if it
/// is whole (`7.0` is 7); what arithmetic on decimals yields stays a decimal. Equal numbers of different kinds are
/// equal, and a whole decimal prints as an integer.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Int(i128),
    Decimal(Decimal),
}

impl Number {
    /// Reads a number as JSON writes it; an integer if it is whole. The caller has checked the form. `None`: out of
    /// range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E')) {
            return Decimal::parse(text).map(|decimal| Number::Decimal(decimal).normal());
        }
        if text.len() <= SHORT_DIGITS_MAX {
            return text.parse().ok().map(|short: i64| Number::Int(short.into()));
        }
        match text.parse().ok().filter(|int: &i128| int.abs() <= INT_MAX) {
            Some(int) => Some(Number::Int(int)),
            None => Decimal::parse(text).map(Number::Decimal),
        }
    }

    /// Reads a text of the form `-?\d+(\.\d+)?(E-?\d+)?`, in any case; `None` for all others.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let exponent = exponent.strip_prefix('-').unwrap_or(exponent);
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if all_digits(whole) && all_digits(fraction) && all_digits(exponent) {
            Decimal::parse(text).map(Number::Decimal)
        } else {
            None
        }
    }

    /// The number nearest to a double, by the fewest digits that tell it from others; `None` if it is not finite.
    pub(crate) fn from_f64(double: f64) -> Option<Self> {
        if !double.is_finite() {
            return None;
        }
        Decimal::parse(&format!("{double:e}")).map(Number::Decimal)
    }

    /// An integer if it is whole and has at most 34 digits.
    pub(crate) fn normal(self) -> Self {
        match self {
            Number::Decimal(decimal) if decimal.is_whole() => decimal.truncated().map_or(self, Number::Int),
            Number::Int(_) | Number::Decimal(_) => self,
        }
    }

    /// Without what is behind `places` digits after the point; an integer if nothing is left there.
    pub(crate) fn rounded(self, places: i32, rounding: Rounding) -> Option<Self> {
        match self {
            Number::Int(_) if places >= 0 => Some(self),
            Number::Int(_) | Number::Decimal(_) => {
                self.decimal().rounded(places, rounding).map(|decimal| Number::Decimal(decimal).normal())
            }
        }
    }

    /// Whether it is 0.
    pub(crate) fn is_zero(self) -> bool {
        match self {
            Number::Int(int) => int == 0,
            Number::Decimal(decimal) => decimal.is_zero(),
        }
    }

    /// The number as a decimal.
    pub fn decimal(self) -> Decimal {
        match self {
            Number::Int(int) => int.into(),
            Number::Decimal(decimal) => decimal,
        }
    }

    /// The integer part, towards zero; `None` beyond 34 digits.
    pub fn truncated(self) -> Option<i128> {
        match self {
            Number::Int(int) => Some(int),
            Number::Decimal(decimal) => decimal.truncated(),
        }
    }

    /// The nearest `f64`; `None` beyond its range.
    pub fn to_f64(self) -> Option<f64> {
        let nearest = match self {
            Number::Int(int) => int as f64,
            Number::Decimal(decimal) => decimal.to_f64(),
        };
        Some(nearest).filter(|number| number.is_finite())
    }

    /// Writes it as a JSON number.
    pub(crate) fn write(self, out: &mut impl Write) -> fmt::Result {
        match self {
            Number::Int(int) => {
                out.write_str(if int < 0 { "-" } else { "" })?;
                out.write_str(Digits::of(int.unsigned_abs()).as_str())
            }
            Number::Decimal(decimal) => decimal.write(out),
        }
    }

    /// Sum; `None` on overflow, as below.
    pub fn sum(self, other: Self) -> Option<Self> {
        self.apply(other, i128::checked_add, Decimal::sum)
    }

    /// Difference.
    pub fn difference(self, other: Self) -> Option<Self> {
        self.apply(other, i128::checked_sub, Decimal::difference)
    }

    /// Product.
    pub fn product(self, other: Self) -> Option<Self> {
        self.apply(other, i128::checked_mul, Decimal::product)
    }

    /// Quotient, of two integers truncated; `None` also by 0.
    pub fn quotient(self, other: Self) -> Option<Self> {
        self.apply(other, i128::checked_div, Decimal::quotient)
    }

    /// What truncating division leaves, with the sign of `self`; `None` by 0.
    pub fn remainder(self, other: Self) -> Option<Self> {
        self.apply(other, i128::checked_rem, Decimal::remainder)
    }

    fn apply(
        self,
        other: Self,
        ints: fn(i128, i128) -> Option<i128>,
        decimals: fn(Decimal, Decimal) -> Option<Decimal>,
    ) -> Option<Self> {
        if let (Number::Int(a), Number::Int(b)) = (self, other)
            && let Some(int) = ints(a, b).filter(|int| int.abs() <= INT_MAX)
        {
            return Some(Number::Int(int));
        }
        decimals(self.decimal(), other.decimal()).map(Number::Decimal)
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a.cmp(b),
            (Number::Int(_) | Number::Decimal(_), _) => self.decimal().cmp(&other.decimal()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}
