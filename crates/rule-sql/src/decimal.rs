//! Decimal numbers of 34 digits, exact within them, rounded half to even beyond: the arithmetic of IEEE 754
//! decimal128 without its infinities. What overflows is no number (`None`); what underflows is 0.

use std::cmp::Ordering;
use std::fmt::{self, Write};

/// Digits a number keeps.
pub(crate) const DIGITS: u32 = 34;
/// Digits of the largest `u128`.
const DIGITS_BYTES: usize = 39;
/// Digits an `i128` holds for certain.
const WORK_DIGITS: u32 = 38;
/// Largest power of ten of a number's first digit, as of decimal128.
const EXPONENT_MAX: i32 = 6_144;
/// Smallest power of ten of a number's first digit; anything smaller is 0.
const EXPONENT_MIN: i32 = -EXPONENT_MAX;

/// Largest power of ten, and largest integer, below which an `f64` holds every integer exactly.
const EXACT_POWER_MAX: u32 = 15;
const EXACT_INT_MAX: u128 = 1 << 53;

/// Text that surely has at most 18 digits, which an `i64` holds.
const SHORT_BYTES_MAX: usize = 18;

/// Which way a number goes that lies between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    TowardsZero,
    Up,
    Down,
    /// To the nearest; halves away from 0.
    Nearest,
}

/// `coefficient` × 10^`exponent`. The coefficient has at most 34 digits and no trailing zero, so equal numbers are
/// equal field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    coefficient: i128,
    exponent: i32,
}

impl Decimal {
    /// The number 0.
    pub const ZERO: Decimal = Decimal { coefficient: 0, exponent: 0 };

    /// `coefficient` × 10^`exponent`, rounded. `None` on overflow.
    pub fn new(coefficient: i128, exponent: i32) -> Option<Self> {
        if let Ok(small) = i64::try_from(coefficient) {
            let (small, zeros) = without_trailing_zeros_64(small);
            return Self::in_range(small.into(), exponent.checked_add(zeros as i32)?);
        }
        let excess = digits(coefficient).saturating_sub(DIGITS);
        let rounded = if excess == 0 { coefficient } else { round(coefficient, excess) };
        let (coefficient, zeros) = without_trailing_zeros(rounded);
        Self::in_range(coefficient, exponent.checked_add((excess + zeros) as i32)?)
    }

    /// A number of at most 34 digits without trailing zeros.
    fn in_range(coefficient: i128, exponent: i32) -> Option<Self> {
        if coefficient == 0 {
            return Some(Self::ZERO);
        }
        let number = Self { coefficient, exponent };
        match number.magnitude() {
            EXPONENT_MIN..=EXPONENT_MAX => Some(number),
            ..EXPONENT_MIN => Some(Self::ZERO),
            _ => None,
        }
    }

    /// Reads `-?digits[.digits][e[+-]digits]`, whose form the caller has checked. `None` on overflow.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let negative = mantissa.starts_with('-');
        let point = mantissa.find('.').map_or(0, |point| mantissa.len() - point - 1);
        if mantissa.len() <= SHORT_BYTES_MAX {
            let digits = mantissa.bytes().filter(u8::is_ascii_digit);
            let coefficient = digits.fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0'));
            let exponent = parse_exponent(exponent).checked_sub(i32::try_from(point).ok()?)?;
            return Self::new(i128::from(if negative { -coefficient } else { coefficient }), exponent);
        }
        let (mut coefficient, mut dropped, mut sticky) = (0i128, 0i32, false);
        for digit in mantissa.bytes().filter(u8::is_ascii_digit).map(|b| i128::from(b - b'0')) {
            if digits(coefficient) < WORK_DIGITS - 1 {
                coefficient = coefficient * 10 + digit;
            } else {
                dropped = dropped.checked_add(1)?;
                sticky |= digit != 0;
            }
        }
        if coefficient == 0 {
            return Some(Self::ZERO);
        }
        let exponent = parse_exponent(exponent).checked_sub(i32::try_from(point).ok()?)?.checked_add(dropped)?;
        let coefficient = with_sticky(coefficient, 1, sticky);
        Self::new(if negative { -coefficient } else { coefficient }, exponent)
    }

    /// The nearest `f64`, infinite beyond its range.
    pub fn to_f64(self) -> f64 {
        let power = self.exponent.unsigned_abs();
        if self.coefficient.unsigned_abs() <= EXACT_INT_MAX && power <= EXACT_POWER_MAX {
            // Both are exact, so the one operation rounds once.
            let (coefficient, power) = (self.coefficient as f64, 10u64.pow(power) as f64);
            return if self.exponent < 0 { coefficient / power } else { coefficient * power };
        }
        format!("{}e{}", self.coefficient, self.exponent).parse().expect("digits and an exponent are a number")
    }

    /// Whether there is no fractional part.
    pub fn is_whole(self) -> bool {
        self.exponent >= 0
    }

    /// Whether it is 0.
    pub fn is_zero(self) -> bool {
        self.coefficient == 0
    }

    /// The integer part, towards zero; `None` if it has more digits than an integer may have.
    pub fn truncated(self) -> Option<i128> {
        if self.exponent < 0 {
            return Some(10i128.checked_pow(self.exponent.unsigned_abs()).map_or(0, |unit| self.coefficient / unit));
        }
        scaled(self.coefficient, self.exponent.unsigned_abs()).filter(|whole| digits(*whole) <= DIGITS)
    }

    /// Sum.
    pub fn sum(self, other: Self) -> Option<Self> {
        if self.is_zero() || other.is_zero() {
            return Some(if self.is_zero() { other } else { self });
        }
        let (high, low) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let apart = (high.exponent - low.exponent).unsigned_abs();
        // One digit is left free for the carry.
        let up = apart.min((WORK_DIGITS - 1) - digits(high.coefficient));
        let raised = high.coefficient * 10i128.pow(up);
        let lowered = shifted(low.coefficient, apart - up);
        Self::new(raised + lowered, high.exponent - up as i32)
    }

    /// Difference.
    pub fn difference(self, other: Self) -> Option<Self> {
        self.sum(other.negated())
    }

    /// Product.
    pub fn product(self, other: Self) -> Option<Self> {
        let exponent = self.exponent.checked_add(other.exponent)?;
        match self.coefficient.checked_mul(other.coefficient) {
            Some(product) if digits(product) <= WORK_DIGITS => Self::new(product, exponent),
            Some(_) | None => {
                let (product, dropped) = wide_product(self.coefficient, other.coefficient);
                Self::new(product, exponent.checked_add(dropped)?)
            }
        }
    }

    /// Quotient; `None` also by 0.
    pub fn quotient(self, other: Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let divisor = other.coefficient.abs();
        let mut quotient = self.coefficient.abs() / divisor;
        let mut rest = self.coefficient.abs() % divisor;
        let mut exponent = self.exponent.checked_sub(other.exponent)?;
        while rest != 0 && digits(quotient) < WORK_DIGITS - 1 {
            quotient = quotient * 10 + rest * 10 / divisor;
            rest = rest * 10 % divisor;
            exponent = exponent.checked_sub(1)?;
        }
        let quotient = with_sticky(quotient, 1, rest != 0);
        let negative = (self.coefficient < 0) != (other.coefficient < 0);
        Self::new(if negative { -quotient } else { quotient }, exponent)
    }

    /// What truncating division leaves; has the sign of `self`. `None` by 0.
    pub fn remainder(self, other: Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let apart = (i64::from(self.exponent) - i64::from(other.exponent)).unsigned_abs() as u32;
        if self.exponent < other.exponent {
            return match scaled(other.coefficient, apart) {
                Some(divisor) => Self::new(self.coefficient % divisor, self.exponent),
                None => Some(self),
            };
        }
        // Bounded: exponents lie within twice EXPONENT_MAX of each other.
        let rest = (0..apart).fold(self.coefficient % other.coefficient, |rest, _| rest * 10 % other.coefficient);
        Self::new(rest, other.exponent)
    }

    /// The number with at most `places` digits behind the point; before it, if `places` is negative.
    pub(crate) fn rounded(self, places: i32, rounding: Rounding) -> Option<Self> {
        let excess = self.exponent.checked_neg()?.saturating_sub(places);
        if excess <= 0 {
            return Some(self);
        }
        let sign = self.coefficient.signum();
        let unit = 10i128.checked_pow(excess.unsigned_abs());
        let (whole, rest) =
            unit.map_or((0, self.coefficient), |unit| (self.coefficient / unit, self.coefficient % unit));
        let away = match rounding {
            Rounding::TowardsZero => false,
            Rounding::Up => rest > 0,
            Rounding::Down => rest < 0,
            Rounding::Nearest => unit.is_some_and(|unit| rest.abs() >= unit - rest.abs()),
        };
        Self::new(whole + if away { sign } else { 0 }, places.checked_neg()?)
    }

    /// Writes it plain where that needs at most 34 digits or 5 zeros behind the point, as Java's `BigDecimal` has it, else
    /// scientific; a JSON number either way.
    pub(crate) fn write(self, out: &mut impl Write) -> fmt::Result {
        out.write_str(if self.coefficient < 0 { "-" } else { "" })?;
        let digits = Digits::of(self.coefficient.unsigned_abs());
        let digits = digits.as_str();
        match (self.exponent, self.magnitude()) {
            (0.., magnitude) if magnitude < DIGITS as i32 => {
                out.write_str(digits)?;
                write_zeros(out, self.exponent.unsigned_abs())
            }
            (..0, magnitude @ 0..) => {
                let (whole, fraction) = digits.split_at(magnitude.unsigned_abs() as usize + 1);
                out.write_str(whole)?;
                out.write_char('.')?;
                out.write_str(fraction)
            }
            (..0, magnitude @ -6..0) => {
                out.write_str("0.")?;
                write_zeros(out, magnitude.unsigned_abs() - 1)?;
                out.write_str(digits)
            }
            (_, magnitude) => {
                let (first, rest) = digits.split_at(1);
                let point = if rest.is_empty() { "" } else { "." };
                write!(out, "{first}{point}{rest}E{magnitude}")
            }
        }
    }

    /// The number with the other sign.
    pub fn negated(self) -> Self {
        Self { coefficient: -self.coefficient, ..self }
    }

    /// Exponent of the first digit.
    fn magnitude(self) -> i32 {
        self.exponent + digits(self.coefficient) as i32 - 1
    }
}

impl From<i128> for Decimal {
    fn from(whole: i128) -> Self {
        Self::new(whole, 0).expect("39 digits are far below the largest exponent")
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let signs = self.coefficient.signum().cmp(&other.coefficient.signum());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let magnitudes = self.magnitude().cmp(&other.magnitude()).then_with(|| {
            // Same first digit's place: the one with more digits after it has the lower exponent.
            let unit = self.exponent.min(other.exponent);
            let aligned = |n: &Self| n.coefficient.abs() * 10i128.pow((n.exponent - unit).unsigned_abs());
            aligned(self).cmp(&aligned(other))
        });
        if self.coefficient < 0 { magnitudes.reverse() } else { magnitudes }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// The decimal digits of a number, where they stand: a row is written without memory for each of its numbers.
pub(crate) struct Digits {
    bytes: [u8; DIGITS_BYTES],
    start: usize,
}

impl Digits {
    pub fn of(n: u128) -> Self {
        let (mut digits, mut rest) = (Self { bytes: [b'0'; DIGITS_BYTES], start: DIGITS_BYTES }, n);
        while rest > u128::from(u64::MAX) {
            digits.push((rest % 10) as u8);
            rest /= 10;
        }
        // Divisions of 64 bits take a fraction of those of 128.
        let mut rest = rest as u64;
        loop {
            digits.push((rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                return digits;
            }
        }
    }

    fn push(&mut self, digit: u8) {
        self.start -= 1;
        self.bytes[self.start] = b'0' + digit;
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[self.start..]).expect("digits are ASCII")
    }
}

fn write_zeros(out: &mut impl Write, count: u32) -> fmt::Result {
    (0..count).try_for_each(|_| out.write_char('0'))
}

/// Number of decimal digits; 0 for 0.
fn digits(n: i128) -> u32 {
    n.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1)
}

/// `n` × 10^`power`, if an `i128` holds it.
fn scaled(n: i128, power: u32) -> Option<i128> {
    if n == 0 { Some(0) } else { 10i128.checked_pow(power).and_then(|unit| n.checked_mul(unit)) }
}

/// `n` without its last `excess` digits (at most 38), rounded half to even.
fn round(n: i128, excess: u32) -> i128 {
    let unit = 10i128.pow(excess);
    let (quotient, rest) = (n / unit, (n % unit).abs());
    let up = match rest.cmp(&(unit / 2)) {
        Ordering::Less => false,
        Ordering::Equal => quotient % 2 != 0,
        Ordering::Greater => true,
    };
    if up { quotient + n.signum() } else { quotient }
}

fn without_trailing_zeros_64(mut n: i64) -> (i64, u32) {
    let mut zeros = 0;
    while n != 0 && n % 10 == 0 {
        n /= 10;
        zeros += 1;
    }
    (n, zeros)
}

fn without_trailing_zeros(mut n: i128) -> (i128, u32) {
    let mut zeros = 0;
    while n != 0 && n % 10 == 0 {
        n /= 10;
        zeros += 1;
    }
    (n, zeros)
}

/// `n` without its last `places` digits, marked if those were not all 0.
fn shifted(n: i128, places: u32) -> i128 {
    match 10i128.checked_pow(places) {
        Some(unit) => with_sticky(n / unit, n.signum(), n % unit != 0),
        None => n.signum(),
    }
}

/// Marks that digits other than 0 were dropped behind `kept`, by a step in the direction of `sign` wherever the rest
/// looks exact or like a tie. Harmless as long as `kept` has a digit more than the 34 that count.
fn with_sticky(kept: i128, sign: i128, inexact: bool) -> i128 {
    if inexact && kept % 5 == 0 { kept + sign } else { kept }
}

/// A product too long for an `i128`: its first 37 digits and how many were dropped.
fn wide_product(a: i128, b: i128) -> (i128, i32) {
    let negative = (a < 0) != (b < 0);
    let (a, mut b) = (a.abs(), b.abs());
    // Long multiplication from the last digit of `b` on: `low` takes the digits that are final.
    let (mut high, mut low, mut places) = (0i128, 0i128, 0u32);
    while b != 0 {
        high += a * (b % 10);
        low += (high % 10) * 10i128.pow(places);
        high /= 10;
        places += 1;
        b /= 10;
    }
    let kept = (WORK_DIGITS - 1).saturating_sub(digits(high)).min(places);
    let unit = 10i128.pow(places - kept);
    let product = with_sticky(high * 10i128.pow(kept) + low / unit, 1, low % unit != 0);
    (if negative { -product } else { product }, (places - kept) as i32)
}

/// An exponent; what is beyond all bounds becomes a number that is beyond them as well.
fn parse_exponent(text: &str) -> i32 {
    let beyond = 100_000_000;
    text.parse::<i64>().map(|exponent| exponent.clamp(-beyond, beyond) as i32).unwrap_or(if text.starts_with('-') {
        -beyond as i32
    } else {
        beyond as i32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn d(text: &str) -> Decimal {
        Decimal::parse(text).expect("in range")
    }

    #[test]
    fn a_decimal_becomes_the_f64_that_its_text_reads_as() {
        for text in ["0.1", "21.5", "-1e15", "1e16", "9007199254740993", "1e-400", "1.7976931348623157e308", "123e-15"]
        {
            assert_eq!(d(text).to_f64(), text.parse::<f64>().expect("a number"), "{text}");
        }
        assert_eq!(d("-1e309").to_f64(), f64::NEG_INFINITY);
    }

    #[test]
    fn results_are_exact_to_34_digits_and_rounded_half_to_even_beyond() {
        assert_eq!(d("0.1").sum(d("0.2")), Some(d("0.3")));
        assert_eq!(d("1").quotient(d("3")).expect("quotient").to_string(), format!("0.{}", "3".repeat(34)));
        assert_eq!(d("2").quotient(d("3")).expect("quotient").to_string(), format!("0.{}7", "6".repeat(33)));
        let nines = "9".repeat(34);
        assert_eq!(d(&nines).sum(d("1")), Some(d("1e34")));
        assert_eq!(d(&nines).sum(d("0.4")), Some(d(&nines)));
        assert_eq!(d(&nines).product(d(&nines)).expect("product").to_string(), format!("9.{}8E67", "9".repeat(32)));
        let tie = format!("1{}0", "0".repeat(32));
        assert_eq!(d(&tie).sum(d("0.5")), Some(d(&tie)));
        assert_eq!(d(&tie).sum(d("0.5000000000000000000001")), Some(d(&tie).sum(d("1")).expect("sum")));
        assert_eq!(d(&tie).difference(d("1e-6000")), Some(d(&tie)));
    }

    #[test]
    fn what_overflows_is_no_number_and_what_underflows_is_zero() {
        assert_eq!(Decimal::parse("1e6145"), None);
        assert_eq!(Decimal::parse("1e99999999999999999999"), None);
        assert_eq!(d("9e6144").product(d("10")), None);
        assert_eq!(d("1e-6145"), Decimal::ZERO);
        assert_eq!(d("0e99999"), Decimal::ZERO);
        assert_eq!(d("1").quotient(Decimal::ZERO), None);
        assert_eq!(d("1").remainder(Decimal::ZERO), None);
    }

    #[test]
    fn numbers_print_plain_until_that_gets_long() {
        for (text, printed) in [
            ("10.0", "10"),
            ("-0.50", "-0.5"),
            ("1e3", "1000"),
            ("0.000001", "0.000001"),
            ("0.0000012", "0.0000012"),
            ("0.0000001", "1E-7"),
            ("1e34", "1E34"),
            ("12345e40", "1.2345E44"),
            ("-0", "0"),
        ] {
            assert_eq!(d(text).to_string(), printed);
        }
    }

    #[test]
    fn remainders_have_the_sign_of_the_dividend() {
        assert_eq!(d("-7.5").remainder(d("2")), Some(d("-1.5")));
        assert_eq!(d("1e50").remainder(d("7")), Some(d("2")));
        assert_eq!(d("5").remainder(d("1e60")), Some(d("5")));
        assert_eq!(d("5.25").remainder(d("50")), Some(d("5.25")));
    }

    proptest! {
        #[test]
        fn small_numbers_agree_with_integer_arithmetic(
            a in -1_000_000_000i128..1_000_000_000, b in -1_000_000_000i128..1_000_000_000, e in 0i32..6
        ) {
            let (x, y) = (Decimal::new(a, -e).expect("small"), Decimal::new(b, -e).expect("small"));
            prop_assert_eq!(x.sum(y), Decimal::new(a + b, -e));
            prop_assert_eq!(x.difference(y), Decimal::new(a - b, -e));
            prop_assert_eq!(x.product(y), Decimal::new(a * b, -2 * e));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(Decimal::parse(&x.to_string()), Some(x));
            if b != 0 {
                prop_assert_eq!(x.remainder(y), Decimal::new(a % b, -e));
            }
        }

        #[test]
        fn long_products_agree_with_division(a in 1i128..10i128.pow(34), b in 1i128..10i128.pow(34)) {
            let (x, y) = (Decimal::from(a), Decimal::from(b));
            let back = x.product(y).and_then(|product| product.quotient(y)).expect("in range");
            let error = back.difference(x).expect("in range");
            let bound = x.product(d("1e-32")).expect("in range");
            prop_assert!(error <= bound && error.negated() <= bound, "{} {}", back, x);
        }

        #[test]
        fn every_text_of_digits_parses_and_prints_back(text in "-?[0-9]{1,60}(\\.[0-9]{1,60})?([eE][+-]?[0-9]{1,5})?") {
            if let Some(number) = Decimal::parse(&text) {
                prop_assert_eq!(Decimal::parse(&number.to_string()), Some(number));
            }
        }
    }
}
