//! The ThingSpeak update: which fields of a form it knows, and the message they become.
//!
//! Domain layer, pure. Numbers stay the numbers they were sent as, digit by digit.

use serde_json::value::RawValue;

/// Names that carry the key of a channel; the header `X-THINGSPEAKAPIKEY` is the third way.
const KEYS: [&str; 2] = ["api_key", "key"];
/// What a channel may hold besides `field1` to `field8`.
const NAMES: [&str; 7] = ["lat", "latitude", "long", "longitude", "elevation", "status", "created_at"];
/// Fields of a channel.
const FIELDS: std::ops::RangeInclusive<u8> = b'1'..=b'8';

/// An update as its form tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The device's token.
    pub key: Option<String>,
    fields: Vec<(String, String)>,
}

impl Update {
    /// Takes what is known out of the pairs of query and form, in that order; of a name given twice the last counts.
    pub fn read(pairs: impl Iterator<Item = (String, String)>) -> Self {
        let mut update = Self::default();
        for (name, value) in pairs {
            if KEYS.contains(&name.as_str()) {
                update.key = Some(value);
            } else if is_field(&name) {
                update.fields.retain(|(known, _)| *known != name);
                update.fields.push((name, value));
            }
        }
        update
    }

    /// The message, `{"field1":5}`; `None` if there is nothing to tell.
    pub fn payload(&self) -> Option<String> {
        if self.fields.is_empty() {
            return None;
        }
        let members: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{}:{}", text(name), number_or_text(value))).collect();
        Some(format!("{{{}}}", members.join(",")))
    }
}

/// The topic of a device's updates.
pub fn topic(device: &str) -> String {
    format!("channels/{device}/update")
}

fn is_field(name: &str) -> bool {
    let field =
        name.strip_prefix("field").is_some_and(|rest| matches!(rest.as_bytes(), [digit] if FIELDS.contains(digit)));
    field || NAMES.contains(&name)
}

fn number_or_text(value: &str) -> String {
    let trimmed = value.trim();
    let begins_a_number = trimmed.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    match serde_json::from_str::<&RawValue>(trimmed) {
        Ok(number) if begins_a_number => number.get().to_owned(),
        Ok(_) | Err(_) => text(value),
    }
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(pairs: &[(&str, &str)]) -> Update {
        Update::read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn numbers_stay_numbers_and_all_else_is_text() {
        for (value, shown) in [
            ("5", "5"),
            ("5.00", "5.00"),
            (" -1.5e3 ", "-1.5e3"),
            ("1700000000000000001", "1700000000000000001"),
            ("05", "\"05\""),
            ("+5", "\"+5\""),
            ("nan", "\"nan\""),
            ("true", "\"true\""),
            ("{\"a\":1}", "\"{\\\"a\\\":1}\""),
            ("5}", "\"5}\""),
            ("", "\"\""),
            ("on \"it\"", "\"on \\\"it\\\"\""),
        ] {
            assert_eq!(update(&[("field1", value)]).payload(), Some(format!("{{\"field1\":{shown}}}")), "{value}");
        }
    }

    #[test]
    fn only_fields_of_a_channel_are_taken_and_the_last_of_a_name_counts() {
        let read = update(&[
            ("field1", "1"),
            ("field0", "x"),
            ("field9", "x"),
            ("field10", "x"),
            ("headers", "false"),
            ("api_key", "K"),
            ("field8", "8"),
            ("status", "ok"),
            ("field1", "2"),
        ]);
        assert_eq!(read.key.as_deref(), Some("K"));
        assert_eq!(read.payload().as_deref(), Some(r#"{"field8":8,"status":"ok","field1":2}"#));
        assert_eq!(update(&[("key", "K")]).payload(), None);
    }
}
