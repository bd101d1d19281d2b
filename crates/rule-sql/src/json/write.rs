//! Values as compact JSON.

use std::fmt::{self, Write};

use crate::value::Value;

/// Compact JSON. An undefined value prints as `null` where it stands alone; members with one are left out.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(f, self)
    }
}

/// How many bytes a value takes as JSON.
pub(crate) fn json_bytes(value: &Value<'_>) -> usize {
    let mut count = Count(0);
    write_value(&mut count, value).expect("counting never fails");
    count.0
}

/// Counts what is written instead of keeping it.
struct Count(usize);

impl Write for Count {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// Writes a value as [`Value`] prints it.
pub(crate) fn write_value(out: &mut impl Write, value: &Value<'_>) -> fmt::Result {
    match value {
        Value::Undefined | Value::Null => out.write_str("null"),
        Value::Bool(true) => out.write_str("true"),
        Value::Bool(false) => out.write_str("false"),
        Value::Number(number) => number.write(out),
        Value::Text(text) => write_text(out, text),
        Value::Array(elements) => {
            out.write_char('[')?;
            for (i, element) in elements.iter().enumerate() {
                out.write_str(if i == 0 { "" } else { "," })?;
                write_value(out, element)?;
            }
            out.write_char(']')
        }
        Value::Object(members) => write_object(out, members.iter().map(|(name, value)| (name.as_ref(), value))),
    }
}

/// Writes a JSON object, without the members that are undefined.
pub(crate) fn write_object<'m, 'v: 'm>(
    out: &mut impl Write,
    members: impl Iterator<Item = (&'m str, &'m Value<'v>)>,
) -> fmt::Result {
    out.write_char('{')?;
    for (i, (name, value)) in members.filter(|(_, value)| !matches!(value, Value::Undefined)).enumerate() {
        out.write_str(if i == 0 { "" } else { "," })?;
        write_text(out, name)?;
        out.write_char(':')?;
        write_value(out, value)?;
    }
    out.write_char('}')
}

/// Writes a JSON string; only what has to be is escaped.
fn write_text(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        out.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            0x8 => out.write_str("\\b")?,
            0xc => out.write_str("\\f")?,
            control @ 0..=0x1f => write!(out, "\\u{control:04x}")?,
            plain => write!(out, "\\{}", char::from(plain))?,
        }
        rest = &rest[at + 1..];
    }
    out.write_str(rest)?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn strings_are_written_as_serde_json_writes_them(text in "[\\x00-\\x7f\u{e9}\u{1f600}]{0,20}") {
            let mut ours = String::new();
            write_text(&mut ours, &text).expect("a String takes all");
            prop_assert_eq!(ours, serde_json::to_string(&text).expect("a string"));
        }
    }
}
