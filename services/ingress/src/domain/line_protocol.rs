//! InfluxDB's line protocol: `measurement[,tag=value…] field=value[,field=value…] [time]`, and the message that a line becomes.
//!
//! Domain layer, pure. A line ends with its line break, but for those between the quotes of a value. Numbers that are those of
//! JSON stay as they are written, digit by digit.

use drover_types::{ApiError, DeviceId};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::batch::AHEAD_MS_MAX;

/// What a backslash takes the meaning from in a measurement; elsewhere in front of a value also `=`.
const IN_MEASUREMENTS: [char; 2] = [',', ' '];
const IN_KEYS: [char; 3] = [',', ' ', '='];
/// The member that tags are kept in.
const TAGS: &str = "tags";
/// Bytes that an error shows of what is wrong.
const SHOWN_BYTES_MAX: usize = 64;

/// What the times of a request count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    Ns,
    Us,
    Ms,
    S,
}

impl Precision {
    /// Milliseconds since the Unix epoch; `None`: it is before that, or beyond what can be counted.
    fn to_ms(self, time: i64) -> Option<u64> {
        let time = u64::try_from(time).ok()?;
        match self {
            Precision::Ns => Some(time / 1_000_000),
            Precision::Us => Some(time / 1_000),
            Precision::Ms => Some(time),
            Precision::S => time.checked_mul(1_000),
        }
    }
}

/// The lines of a text without the spaces around them, and the number of the line that each begins in, from 1 on.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut rest, mut next) = (text, 1);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, number) = (&rest[..end_of_line(rest)], next);
        rest = rest.get(line.len() + 1..).unwrap_or_default();
        next += 1 + line.matches('\n').count();
        Some((number, line.trim()))
    })
}

/// Bytes of the first line of a text, without its line break. Quotes mean something around the value of a field alone: not in
/// measurements, tags and comments.
fn end_of_line(text: &str) -> usize {
    let line = text.trim_start_matches([' ', '\t']);
    if line.starts_with('#') {
        return text.find('\n').unwrap_or(text.len());
    }
    let (mut in_fields, mut in_quotes, mut is_escaped) = (false, false, false);
    let mut before = b' ';
    for (at, byte) in line.bytes().enumerate() {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\n' if !in_quotes => return text.len() - line.len() + at,
            b'\\' => is_escaped = !(in_quotes && was_escaped),
            _ if was_escaped => {}
            b'"' => in_quotes = !in_quotes && in_fields && before == b'=',
            b' ' => in_fields = true,
            _ => {}
        }
        before = if was_escaped { b' ' } else { byte };
    }
    text.len()
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Point {
    measurement: String,
    /// Fields in their order, then `tags`, an object.
    pub payload: String,
    /// When it was measured, milliseconds since the Unix epoch.
    pub time_ms: Option<u64>,
}

impl Point {
    /// Reads a line that came at `now_ms`.
    pub fn read(line: &str, precision: Precision, now_ms: u64) -> Result<Self, ApiError> {
        let mut cursor = Cursor { rest: line };
        let measurement = cursor.word(&[',', ' '], &IN_MEASUREMENTS);
        if measurement.is_empty() {
            return Err(wrong("has no measurement"));
        }
        let mut tags = Vec::new();
        while cursor.eat(',') {
            let key = cursor.key().ok_or_else(|| wrong("has a tag without a key or `=`"))?;
            let value = cursor.word(&[',', ' '], &IN_KEYS);
            if value.is_empty() {
                return Err(wrong("has a tag without a value"));
            }
            tags.push(format!("{}:{}", text(&key), text(&value)));
        }
        cursor.skip_spaces();
        let mut members = Vec::new();
        loop {
            let key = cursor.key().ok_or_else(|| wrong("has a field without a key or `=`, or none"))?;
            if key == TAGS && !tags.is_empty() {
                return Err(wrong("has tags, and a field that is called as they are kept, `tags`"));
            }
            members.push(format!("{}:{}", text(&key), cursor.value()?));
            if !cursor.eat(',') {
                break;
            }
        }
        if !tags.is_empty() {
            members.push(format!("{}:{{{}}}", text(TAGS), tags.join(",")));
        }
        if !(cursor.rest.is_empty() || cursor.rest.starts_with(' ')) {
            return Err(wrong("has a text with something behind its quotes").over("`,` or a space", shown(cursor.rest)));
        }
        cursor.skip_spaces();
        let time_ms = read_time(cursor.rest.trim_end(), precision, now_ms)?;
        Ok(Self { measurement, payload: format!("{{{}}}", members.join(",")), time_ms })
    }

    /// The topic of a device's measurements of this name.
    pub fn topic(&self, device: &DeviceId) -> String {
        format!("measurements/{device}/{}", self.measurement)
    }
}

fn wrong(message: &str) -> ApiError {
    ApiError::invalid("line", message)
}

fn text(value: &str) -> String {
    Value::from(value).to_string()
}

/// The beginning of what is wrong.
fn shown(wrong: &str) -> &str {
    &wrong[..wrong.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// `None`: the line has no time.
fn read_time(text: &str, precision: Precision, now_ms: u64) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let time_ms = text.parse().ok().and_then(|time| precision.to_ms(time));
    let time_ms = time_ms.ok_or_else(|| wrong("has a time that is no whole number from 0 on").over(0, shown(text)))?;
    let latest_ms = now_ms.saturating_add(AHEAD_MS_MAX);
    if time_ms > latest_ms {
        return Err(wrong("has a time ahead of the clock of this node").over(latest_ms, time_ms));
    }
    Ok(Some(time_ms))
}

/// What is left of a line.
struct Cursor<'l> {
    rest: &'l str,
}

impl Cursor<'_> {
    /// Takes `wanted`, if it comes next.
    fn eat(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// What is in front of the first of `ends`; one of `escaped` behind a backslash stands for itself.
    fn word(&mut self, ends: &[char], escaped: &[char]) -> String {
        let mut word = String::new();
        let mut characters = self.rest.char_indices().peekable();
        let mut end = self.rest.len();
        while let Some((at, character)) = characters.next() {
            if ends.contains(&character) {
                end = at;
                break;
            }
            let meant = characters.next_if(|(_, next)| character == '\\' && escaped.contains(next));
            word.push(meant.map_or(character, |(_, meant)| meant));
        }
        self.rest = &self.rest[end..];
        word
    }

    /// A key and its `=`; `None`: there is none.
    fn key(&mut self) -> Option<String> {
        let key = self.word(&IN_KEYS, &IN_KEYS);
        (self.eat('=') && !key.is_empty()).then_some(key)
    }

    /// The value of a field as JSON.
    fn value(&mut self) -> Result<String, ApiError> {
        if self.eat('"') {
            let value = self.word(&['"'], &['"', '\\']);
            return if self.eat('"') { Ok(text(&value)) } else { Err(wrong("has a text that does not end")) };
        }
        let end = self.rest.find([',', ' ']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        let forms = "5, 5i, 5u, t, f, \"text\"";
        plain(value).ok_or_else(|| wrong("has a value of none of the protocol's forms").over(forms, shown(value)))
    }
}

/// A value without quotes as JSON.
fn plain(value: &str) -> Option<String> {
    match value {
        "t" | "T" | "true" | "True" | "TRUE" => return Some("true".to_owned()),
        "f" | "F" | "false" | "False" | "FALSE" => return Some("false".to_owned()),
        _ => {}
    }
    if let Some(whole) = value.strip_suffix('i') {
        return whole.parse::<i64>().ok().map(|whole| whole.to_string());
    }
    if let Some(whole) = value.strip_suffix('u') {
        return whole.parse::<u64>().ok().map(|whole| whole.to_string());
    }
    // `inf`, `NaN` and the like are numbers of Rust and none of the protocol.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let number = value.parse::<f64>().ok().filter(|number| digits && number.is_finite())?;
    match serde_json::from_str::<&RawValue>(value) {
        Ok(_) => Some(value.to_owned()),
        Err(_) => serde_json::Number::from_f64(number).map(|number| number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;

    fn read(line: &str) -> Result<Point, ApiError> {
        Point::read(line, Precision::Ns, NOW_MS)
    }

    fn payload(line: &str) -> String {
        read(line).unwrap_or_else(|error| panic!("{line}: {error}")).payload
    }

    #[test]
    fn fields_become_members_and_tags_an_object() {
        let line = "climate,room=kitchen,floor=2 temperature=21.50,count=3i,on=t 1700000000123456789";
        let point = read(line).expect("a line");
        assert_eq!(point.payload, r#"{"temperature":21.50,"count":3,"on":true,"tags":{"room":"kitchen","floor":"2"}}"#);
        assert_eq!(point.time_ms, Some(1_700_000_000_123));
        assert_eq!(point.topic(&DeviceId::new("d").expect("valid")), "measurements/d/climate");
        assert_eq!(read("m f=1").expect("a line").time_ms, None);
    }

    #[test]
    fn values_are_those_of_the_protocol() {
        for (value, shown) in [
            ("1", "1"),
            ("-1.50e3", "-1.50e3"),
            ("+1.5", "1.5"),
            (".5", "0.5"),
            ("5.", "5.0"),
            ("9223372036854775807i", "9223372036854775807"),
            ("18446744073709551615u", "18446744073709551615"),
            ("TRUE", "true"),
            ("F", "false"),
            (r#""""#, r#""""#),
            (r#""a, b=c \"d\" \\ \e""#, r#""a, b=c \"d\" \\ \\e""#),
        ] {
            assert_eq!(payload(&format!("m f={value}")), format!("{{\"f\":{shown}}}"), "{value}");
        }
    }

    #[test]
    fn a_backslash_takes_the_meaning_from_what_parts_a_line() {
        let point = read(r"my\ m\,=,k\ \=\,=v\ \=\, f\ \==1").expect("a line");
        assert_eq!(point.measurement, "my m,=");
        assert_eq!(point.payload, r#"{"f =":1,"tags":{"k =,":"v =,"}}"#);
        assert_eq!(payload(r"m,k=C:\dir f=1"), r#"{"f":1,"tags":{"k":"C:\\dir"}}"#);
    }

    #[test]
    fn times_count_what_the_request_says_and_are_not_far_ahead() {
        let time = |time: &str, precision| Point::read(&format!("m f=1 {time}"), precision, NOW_MS).map(|p| p.time_ms);
        assert_eq!(time("1700000000", Precision::S), Ok(Some(1_700_000_000_000)));
        assert_eq!(time("1700000000001", Precision::Ms), Ok(Some(1_700_000_000_001)));
        assert_eq!(time("1700000000001999", Precision::Us), Ok(Some(1_700_000_000_001)));
        let latest_ms = NOW_MS + AHEAD_MS_MAX;
        assert_eq!(time(&latest_ms.to_string(), Precision::Ms), Ok(Some(latest_ms)));
        let ahead = time(&(latest_ms + 1).to_string(), Precision::Ms).expect_err("ahead");
        assert_eq!(ahead.limit, Some(latest_ms.to_string()));
        for wrong in ["-1", "1.5", "now", "1 2", "9223372036854775807"] {
            assert!(time(wrong, Precision::S).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_refused() {
        for line in [
            "",
            " f=1",
            ",t=v f=1",
            "m",
            "m ",
            "m,t f=1",
            "m,=v f=1",
            "m,t= f=1",
            "m f",
            "m f=",
            "m =1",
            "m f=1,",
            "m f=one",
            "m f=nan",
            "m f=inf",
            "m f=1e999",
            "m f=1.5i",
            "m f=-1u",
            "m f=\"open",
            "m f=\"a\"b",
            "m f=\"a\"1700000000",
            "m,k=v tags=1",
        ] {
            assert_eq!(read(line).expect_err(line).field.as_deref(), Some("line"), "{line}");
        }
    }

    #[test]
    fn an_error_shows_the_beginning_of_what_is_wrong() {
        let refused = read(&format!("m f={}", "ä".repeat(SHOWN_BYTES_MAX))).expect_err("no value");
        assert_eq!(refused.value, Some("ä".repeat(SHOWN_BYTES_MAX / 2)));
    }

    #[test]
    fn a_line_ends_with_its_line_break_unless_that_is_part_of_a_text() {
        let of = |text: &str| lines(text).map(|(number, line)| format!("{number} {line}")).collect::<Vec<_>>();
        assert_eq!(of("m f=1\r\n\n  m f=2"), ["1 m f=1", "2 ", "3 m f=2"]);
        assert_eq!(of("m f=\"a\nb\",g=\"\" 7\nm f=1\n"), ["1 m f=\"a\nb\",g=\"\" 7", "3 m f=1"]);
        assert_eq!(of("m f=\"\\\"\n\\\\\"\nm f=1"), ["1 m f=\"\\\"\n\\\\\"", "3 m f=1"], "escapes in quotes");
        for alone in ["# it's a=\"", "m,t=\"a f=1", "\"m f=1", "m \"f=1", "m\\ \"x=\" f=1", "m f\\=\"=1"] {
            assert_eq!(of(&format!("{alone}\nm f=1")), [format!("1 {alone}"), "2 m f=1".to_owned()], "no quotes");
        }
        assert_eq!(payload("m f=\"a\nb\""), r#"{"f":"a\nb"}"#);
    }

    proptest! {
        #[test]
        fn whatever_a_line_is_it_becomes_json_or_is_refused(line in r#"[mf,= "\\1ti.e+\-\n]{0,24}"#) {
            for point in lines(&line).filter_map(|(_, line)| read(line).ok()) {
                let json = serde_json::from_str::<Value>(&point.payload);
                prop_assert!(json.is_ok_and(|json| json.is_object()), "{}", point.payload);
            }
        }
    }
}
