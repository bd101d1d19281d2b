//! A time as text, by the letters of Joda-Time.

use jiff::Zoned;
use jiff::civil::Era;

use super::pattern::{DAYS, MONTHS, Part, SHORT};

/// `None` if a letter means nothing.
pub(super) fn format(parts: &[Part], time: &Zoned) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            // Joda-Time knows no brackets: they are plain.
            Part::Optional(parts) => text.push_str(&format!("[{}]", format(parts, time)?)),
            Part::Field(letter, run) => text.push_str(&field(*letter, *run, time)?),
        }
    }
    Some(text)
}

fn field(letter: char, run: usize, time: &Zoned) -> Option<String> {
    let number = |number: i64| Some(format!("{number:0run$}"));
    let date = time.date();
    let (year_of_era, era) = date.era_year();
    let year = |year: i64| if run == 2 { Some(format!("{:02}", year.rem_euclid(100))) } else { number(year) };
    let hour = i64::from(time.hour());
    let week = date.iso_week_date();
    match letter {
        'G' => Some(if era == Era::CE { "AD" } else { "BC" }.to_owned()),
        'C' => number(i64::from(year_of_era) / 100),
        'Y' => year(year_of_era.into()),
        'y' | 'u' => year(date.year().into()),
        'x' => year(week.year().into()),
        'w' => number(week.week().into()),
        'e' => number(date.weekday().to_monday_one_offset().into()),
        'E' => Some(name(DAYS[usize::try_from(date.weekday().to_monday_zero_offset()).ok()?], run)),
        'D' => number(date.day_of_year().into()),
        'M' | 'L' if run >= SHORT => Some(name(MONTHS[usize::try_from(date.month()).ok()?.checked_sub(1)?], run)),
        'M' | 'L' => number(date.month().into()),
        'd' => number(date.day().into()),
        'a' => Some(if hour < 12 { "AM" } else { "PM" }.to_owned()),
        'K' => number(hour % 12),
        'h' => number((hour + 11) % 12 + 1),
        'H' => number(hour),
        'k' => number((hour + 23) % 24 + 1),
        'm' => number(time.minute().into()),
        's' => number(time.second().into()),
        'S' => Some(fraction(time.subsec_nanosecond(), run)),
        'z' => Some(zone_name(time)),
        'Z' => Some(offset(run, time)),
        _ => None,
    }
}

fn name(full: &str, run: usize) -> String {
    if run > SHORT { full.to_owned() } else { full[..SHORT].to_owned() }
}

/// The first `run` digits of the fraction of a second.
fn fraction(nanoseconds: i32, run: usize) -> String {
    let digits = format!("{nanoseconds:09}");
    format!("{:0<run$}", &digits[..run.min(digits.len())])
}

/// The abbreviation; an offset for a zone without a name.
fn zone_name(time: &Zoned) -> String {
    let zone = time.time_zone();
    if zone.iana_name().is_none() {
        return offset(2, time);
    }
    zone.to_offset_info(time.timestamp()).abbreviation().to_owned()
}

/// `+0100`, `+01:00`, or the zone's name.
fn offset(run: usize, time: &Zoned) -> String {
    if run >= SHORT {
        return time.time_zone().iana_name().map_or_else(|| offset(2, time), str::to_owned);
    }
    let seconds = time.offset().seconds();
    let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs() / 60);
    let colon = if run == 2 { ":" } else { "" };
    format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
}
