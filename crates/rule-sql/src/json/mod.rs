//! Reads a payload into a [`Value`]: RFC 8259 with exact numbers, bounded depth, and the last of repeated names.
//!
//! [`Document`] reads an object member by member, when asked; the reader checks the whole of it either way.

mod document;
mod write;

use std::borrow::Cow;
use std::collections::HashSet;

use drover_types::limits::PAYLOAD_BYTES_MAX;

use crate::error::Place;
use crate::number::Number;
use crate::value::Value;

pub(crate) use document::Document;
pub(crate) use write::{json_bytes, write_object, write_value};

/// Deepest nesting of arrays and objects in a payload; what walks a value recurses.
pub const DEPTH_MAX: usize = 128;

/// Objects up to this many members are searched for repeated names pair by pair; larger ones by hash.
const PAIRWISE_MEMBERS_MAX: usize = 16;

/// Longest number without an exponent that cannot be out of range, in bytes.
const NUMBER_BYTES_SAFE: usize = 6_000;
const NUMBER_IN_RANGE: &str = "a number below 1e6145";

/// Why a payload is not JSON that a rule can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("{place}: expected {expected}")]
    Expected { place: Place, expected: &'static str },
    #[error("{place}: nested too deep, limit is {DEPTH_MAX}")]
    TooDeep { place: Place },
    #[error("payload has {bytes} bytes, limit is {PAYLOAD_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("byte {at} is not UTF-8")]
    NotUtf8 { at: usize },
}

/// Reads one JSON text with nothing but blank space around it; of members with the same name the last counts.
pub fn read(payload: &[u8]) -> Result<Value<'_>, JsonError> {
    let mut reader = Reader { text: text(payload)?, at: 0 };
    let value = reader.value(0)?;
    reader.end(value)
}

fn text(payload: &[u8]) -> Result<&str, JsonError> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(JsonError::TooLong { bytes: payload.len() });
    }
    std::str::from_utf8(payload).map_err(|e| JsonError::NotUtf8 { at: e.valid_up_to() })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        self.blank();
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(JsonError::TooDeep { place: self.place() }),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.text().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) | None => self.word(),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut members = Vec::new();
        self.members(|reader, name| {
            members.push((name, reader.value(depth + 1)?));
            Ok(())
        })?;
        keep_last(&mut members);
        Ok(Value::Object(members))
    }

    /// The members of an object; `value` reads each value, or passes over it.
    fn members(
        &mut self,
        mut value: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.at += 1;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a name in double quotes"));
            }
            let name = self.text()?;
            if !self.take(b':') {
                return Err(self.expected("':'"));
            }
            value(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("',' or '}'"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, JsonError> {
        let mut elements = Vec::new();
        self.elements(|reader| {
            elements.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Value::Array(elements))
    }

    /// The elements of an array; `value` reads each, or passes over it.
    fn elements(&mut self, mut value: impl FnMut(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            value(self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    /// Passes over a value, which is checked as if it were read.
    fn skip(&mut self, depth: usize) -> Result<(), JsonError> {
        self.blank();
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(JsonError::TooDeep { place: self.place() }),
            Some(b'{') => self.members(|reader, _| reader.skip(depth + 1)),
            Some(b'[') => self.elements(|reader| reader.skip(depth + 1)),
            Some(b'"') => self.text().map(drop),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(_) | None => self.word().map(drop),
        }
    }

    /// What comes out if nothing comes any more.
    fn end<T>(&mut self, outcome: T) -> Result<T, JsonError> {
        self.blank();
        if self.at == self.text.len() { Ok(outcome) } else { Err(self.expected("the end")) }
    }

    fn word(&mut self) -> Result<Value<'a>, JsonError> {
        let words = [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)];
        let rest = &self.text[self.at..];
        let (word, value) =
            words.into_iter().find(|(word, _)| rest.starts_with(word)).ok_or_else(|| self.expected("a JSON value"))?;
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        self.number_form()?;
        let number = Number::parse(&self.text[start..self.at]);
        let place = || Place::of(self.text, start);
        number.map(Value::Number).ok_or_else(|| JsonError::Expected { place: place(), expected: NUMBER_IN_RANGE })
    }

    /// Passes over a number; what may be out of range is read for that.
    fn skip_number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let has_exponent = self.number_form()?;
        if has_exponent || self.at - start > NUMBER_BYTES_SAFE {
            self.at = start;
            self.number()?;
        }
        Ok(())
    }

    /// Passes over what has the form of a number; whether it has an exponent.
    fn number_form(&mut self) -> Result<bool, JsonError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(has_exponent)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err(self.expected("a digit"));
        }
        self.at += digits;
        Ok(())
    }

    /// A string, from its opening quote; borrowed unless it has escapes.
    fn text(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut content = Cow::Borrowed("");
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            content += &rest[..plain];
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(content);
                }
                Some(b'\\') => content.to_mut().push(self.escape()?),
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("a closing '\"'")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'u') => return self.unicode_escape(),
            Some(c @ (b'"' | b'\\' | b'/')) => c as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(_) | None => return Err(self.expected("one of \" \\ / b f n r t u behind a backslash")),
        };
        self.at += 1;
        Ok(plain)
    }

    /// `u` with four hexadecimal digits, or two of them for a character beyond U+FFFF (RFC 8259 section 7).
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 1;
            units.push(self.code_unit()?);
        }
        match char::decode_utf16(units).collect::<Result<Vec<_>, _>>().as_deref() {
            Ok([c]) => Ok(*c),
            Ok(_) | Err(_) => Err(self.expected("a pair of surrogates")),
        }
    }

    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let hex = self.text.get(self.at + 1..self.at + 5).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let unit =
            hex.and_then(|hex| u16::from_str_radix(hex, 16).ok()).ok_or_else(|| self.expected("4 hex digits"))?;
        self.at += 5;
        Ok(unit)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    /// Skips blank space, and `byte` if it comes then.
    fn take(&mut self, byte: u8) -> bool {
        self.blank();
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn place(&self) -> Place {
        Place::of(self.text, self.at)
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Expected { place: self.place(), expected }
    }
}

/// Of members with the same name only the last stays.
pub(crate) fn keep_last<T>(members: &mut Vec<(Cow<'_, str>, T)>) {
    let repeated = |i: usize| members[i + 1..].iter().any(|(name, _)| *name == members[i].0);
    let stays: Vec<bool> = if members.len() <= PAIRWISE_MEMBERS_MAX {
        if !(0..members.len()).any(repeated) {
            return;
        }
        (0..members.len()).map(|i| !repeated(i)).collect()
    } else {
        let mut seen = HashSet::with_capacity(members.len());
        let mut from_the_end: Vec<bool> = members.iter().rev().map(|(name, _)| seen.insert(name)).collect();
        from_the_end.reverse();
        from_the_end
    };
    let mut stays = stays.into_iter();
    members.retain(|_| stays.next().expect("one answer a member"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(json: &str) -> Result<String, JsonError> {
        read(json.as_bytes()).map(|value| value.to_string())
    }

    #[test]
    fn numbers_keep_every_digit_up_to_34() {
        for exact in ["9007199254740993", "-9223372036854775808", "0.1", "1234567890123456789012345678901234"] {
            assert_eq!(printed(exact).as_deref(), Ok(exact));
        }
        assert_eq!(printed("[10.0, 1e2, -0]").as_deref(), Ok("[10,100,0]"));
    }

    #[test]
    fn the_last_of_repeated_names_counts_however_many_there_are() {
        assert_eq!(printed(r#"{"a":1,"b":2,"a":3}"#).as_deref(), Ok(r#"{"b":2,"a":3}"#));
        let many: Vec<String> = (0..40).map(|i| format!("\"k{}\":{i}", i % 20)).collect();
        let value = printed(&format!("{{{}}}", many.join(","))).expect("json");
        assert!(value.starts_with(r#"{"k0":20,"k1":21"#) && value.ends_with(r#""k19":39}"#), "{value}");
    }

    #[test]
    fn depth_is_accepted_at_the_limit_and_refused_above() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(printed(&nested(DEPTH_MAX)).is_ok());
        assert!(matches!(printed(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep { .. })));
        assert!(matches!(printed(&"[".repeat(100_000)), Err(JsonError::TooDeep { .. })));
    }

    #[test]
    fn size_is_accepted_at_the_limit_and_refused_above() {
        let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2));
        assert!(printed(&text(PAYLOAD_BYTES_MAX)).is_ok());
        let bytes = PAYLOAD_BYTES_MAX + 1;
        assert_eq!(printed(&text(bytes)), Err(JsonError::TooLong { bytes }));
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        for (json, message) in [
            ("", "line 1, column 1: expected a JSON value"),
            ("{\"a\":\n nope}", "line 2, column 2: expected a JSON value"),
            ("{\"a\" 1}", "line 1, column 6: expected ':'"),
            ("{a:1}", "line 1, column 2: expected a name in double quotes"),
            ("[1 2]", "line 1, column 4: expected ',' or ']'"),
            ("1 2", "line 1, column 3: expected the end"),
            ("\"é", "line 1, column 3: expected a closing '\"'"),
            ("1e9999", "line 1, column 1: expected a number below 1e6145"),
        ] {
            assert_eq!(printed(json).expect_err(json).to_string(), message);
        }
        assert_eq!(read(b"\"\xff\""), Err(JsonError::NotUtf8 { at: 1 }));
    }

    /// Numbers as `f64`, all that serde_json keeps of them.
    fn rough(value: serde_json::Value) -> serde_json::Value {
        use serde_json::Value as Json;
        match value {
            Json::Number(number) => Json::from(number.as_f64().expect("a number") + 0.0),
            Json::Array(elements) => elements.into_iter().map(rough).collect(),
            Json::Object(members) => members.into_iter().map(|(name, value)| (name, rough(value))).collect(),
            plain @ (Json::Null | Json::Bool(_) | Json::String(_)) => plain,
        }
    }

    fn agrees_with_serde(text: &str) -> Result<(), TestCaseError> {
        let ours = printed(text).ok().map(|json| rough(serde_json::from_str(&json).expect("printed json")));
        let theirs = serde_json::from_str(text).ok().map(rough);
        prop_assert_eq!(ours, theirs);
        Ok(())
    }

    proptest! {
        #[test]
        fn accepts_and_reads_what_serde_json_does(
            text in r#"([ \[\]{},:"]|"[a-c]":|true|null|[0-9-]{1,3}|\.5|e1|\\[nu"]|\\ud83d\\ude00|\\ud800|\\u00e9|é|"a"){0,12}"#
        ) {
            agrees_with_serde(&text)?;
        }

        #[test]
        fn reads_every_string_serde_json_writes(text in ".{0,20}") {
            agrees_with_serde(&serde_json::to_string(&text).expect("a string"))?;
        }
    }
}
