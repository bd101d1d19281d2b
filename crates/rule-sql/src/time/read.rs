//! A text as time, by the letters of `java.time`. What a pattern does not name is the first of its kind: January, the
//! first, midnight, UTC.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::pattern::{DAYS, MONTHS, Part, SHORT};
use super::zone;

/// Most digits of a number without a width.
const DIGITS_MAX: usize = 19;
/// First year that two digits may mean.
const TWO_DIGITS_BASE: i64 = 2_000;

/// Milliseconds since the Unix epoch; `None` if the text has another form or means no time.
pub(super) fn epoch_ms(text: &str, parts: &[Part]) -> Option<i64> {
    let mut reading = Reading { rest: text, found: Found::default() };
    reading.parts(parts)?;
    if !reading.rest.is_empty() {
        return None;
    }
    reading.found.epoch_ms()
}

/// What was found so far.
#[derive(Clone, Default)]
struct Found {
    year: Option<i64>,
    before_christ: bool,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: Option<i64>,
    /// From 0 to 11, with `afternoon`.
    hour_of_half: Option<i64>,
    afternoon: bool,
    minute: i64,
    second: i64,
    nanosecond: i64,
    zone: Option<TimeZone>,
}

#[derive(Clone)]
struct Reading<'t> {
    rest: &'t str,
    found: Found,
}

impl<'t> Reading<'t> {
    fn parts(&mut self, parts: &[Part]) -> Option<()> {
        for (i, part) in parts.iter().enumerate() {
            match part {
                Part::Text(plain) => self.rest = self.rest.strip_prefix(plain.as_str())?,
                Part::Optional(parts) => {
                    let mut attempt = self.clone();
                    if attempt.parts(parts).is_some() {
                        *self = attempt;
                    }
                }
                Part::Field(letter, run) => {
                    let digits_follow =
                        matches!(parts.get(i + 1), Some(Part::Field(next, run)) if is_number(*next, *run));
                    self.field(*letter, *run, digits_follow)?;
                }
            }
        }
        Some(())
    }

    fn field(&mut self, letter: char, run: usize, digits_follow: bool) -> Option<()> {
        match letter {
            'G' => self.found.before_christ = self.one_of(&["AD", "BC", "CE", "BCE"])? % 2 == 1,
            'y' | 'u' if run == 2 => self.found.year = Some(TWO_DIGITS_BASE + self.digits(2, 2)?),
            'y' | 'u' => self.found.year = Some(self.year(run, digits_follow)?),
            'M' | 'L' if run >= SHORT => self.found.month = Some(self.name(&MONTHS, run)? + 1),
            'M' | 'L' => self.found.month = Some(self.number(run)?),
            'd' => self.found.day = Some(self.number(run)?),
            'D' => self.found.day_of_year = Some(self.number(run)?),
            'E' => drop(self.name(&DAYS, run)?),
            'a' => self.found.afternoon = self.one_of(&["AM", "PM"])? == 1,
            'H' => self.found.hour = Some(self.number(run)?),
            'k' => self.found.hour = Some(self.number(run)? % 24),
            'K' => self.found.hour_of_half = Some(self.number(run)?),
            'h' => self.found.hour_of_half = Some(self.number(run)? % 12),
            'm' => self.found.minute = self.number(run)?,
            's' => self.found.second = self.number(run)?,
            'S' => self.found.nanosecond = self.fraction(run)?,
            'n' => self.found.nanosecond = self.number(run)?,
            'V' | 'z' => self.found.zone = Some(self.zone()?),
            'X' | 'x' | 'Z' | 'O' => self.found.zone = Some(self.zone()?),
            _ => return None,
        }
        Some(())
    }

    /// Of `run` digits where that is more than one; else as many as there are.
    fn number(&mut self, run: usize) -> Option<i64> {
        if run == 1 { self.digits(1, DIGITS_MAX) } else { self.digits(run, run) }
    }

    /// With a sign if it is no year of our time; more digits than `run` unless another number follows.
    fn year(&mut self, run: usize, digits_follow: bool) -> Option<i64> {
        let negative = self.rest.starts_with('-');
        self.rest = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
        let year = self.digits(run, if digits_follow { run } else { DIGITS_MAX })?;
        Some(if negative { -year } else { year })
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let count = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        digits.parse().ok().filter(|_| count >= least)
    }

    /// Of `run` digits, in nanoseconds.
    fn fraction(&mut self, run: usize) -> Option<i64> {
        let digits = self.rest.get(..run).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        self.rest = &self.rest[run..];
        format!("{digits:0<9}").get(..9)?.parse().ok()
    }

    /// A short name, or a full one behind a longer run.
    fn name(&mut self, names: &[&str], run: usize) -> Option<i64> {
        let short: Vec<&str> = names.iter().map(|name| if run > SHORT { name } else { &name[..SHORT] }).collect();
        self.one_of(&short)
    }

    /// Which of some words comes, in any case; the longest that does.
    fn one_of(&mut self, words: &[&str]) -> Option<i64> {
        let comes = |word: &&str| self.rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let (i, word) = words.iter().enumerate().filter(|(_, word)| comes(word)).max_by_key(|(_, word)| word.len())?;
        self.rest = &self.rest[word.len()..];
        i64::try_from(i).ok()
    }

    fn zone(&mut self) -> Option<TimeZone> {
        let of_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'+' | b'-' | b':');
        let length = self.rest.bytes().take_while(|b| of_name(b)).count();
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        zone::named(name)
    }
}

/// Whether a field is read as digits.
fn is_number(letter: char, run: usize) -> bool {
    match letter {
        'M' | 'L' => run < SHORT,
        'y' | 'u' | 'd' | 'D' | 'H' | 'k' | 'K' | 'h' | 'm' | 's' | 'S' | 'n' => true,
        _ => false,
    }
}

impl Found {
    fn epoch_ms(self) -> Option<i64> {
        let date = self.date()?;
        let hour = self.hour.or_else(|| Some(self.hour_of_half? + if self.afternoon { 12 } else { 0 })).unwrap_or(0);
        let narrow = |number: i64| i8::try_from(number).ok();
        let nanosecond = i32::try_from(self.nanosecond).ok()?;
        let time = Time::new(narrow(hour)?, narrow(self.minute)?, narrow(self.second)?, nanosecond).ok()?;
        let zone = self.zone.unwrap_or(TimeZone::UTC);
        Some(zone.to_timestamp(DateTime::from_parts(date, time)).ok()?.as_millisecond())
    }

    fn date(&self) -> Option<Date> {
        let year = if self.before_christ { 1 - self.year? } else { self.year? };
        let year = i16::try_from(year).ok()?;
        if let Some(day) = self.day_of_year {
            let first = Date::new(year, 1, 1).ok()?;
            return first.with().day_of_year(i16::try_from(day).ok()?).build().ok();
        }
        let part = |number: Option<i64>| i8::try_from(number.unwrap_or(1)).ok();
        Date::new(year, part(self.month)?, part(self.day)?).ok()
    }
}
