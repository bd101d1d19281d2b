//! From a payload to the values of its fields.
//!
//! JSON is read as the rules read it, so a field here is what a rule sees: of members with the same name the last
//! counts, and numbers are exact until they become the nearest `f64`. A text that is no JSON but a plain number is one
//! too; everything else has no fields, and is kept as a message only.

use std::collections::HashMap;

use drover_rule_sql::{Value as Json, read_json};

use crate::series::{Field, Value};

/// Most fields of one message; those behind are left out.
pub const FIELDS_MAX: usize = 256;
/// Deepest nesting of a value; a member of the payload's own object has depth 1.
pub const DEPTH_MAX: usize = 16;
/// Longest text that is kept as a value, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// Field of a payload that is one scalar.
pub const SCALAR_FIELD: &str = "value";

/// Why a value is left out of the points of a message; the message has it all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// It has more than [`FIELDS_MAX`] before it.
    Fields,
    /// An array or object deeper than [`DEPTH_MAX`], with all that is in it.
    Depth,
    /// Its name is empty, contains U+0000 or is longer than [`crate::series::FIELD_BYTES_MAX`].
    Name,
    /// A text longer than [`TEXT_BYTES_MAX`].
    Text,
    /// A number beyond the range of an `f64`.
    Number,
    /// Its field is one more than the device may have, see [`crate::StorageConfig::fields_per_device_max`].
    DeviceFields,
}

impl Skip {
    /// Every reason.
    pub const ALL: [Skip; 6] = [Skip::Fields, Skip::Depth, Skip::Name, Skip::Text, Skip::Number, Skip::DeviceFields];

    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Skip::Fields => "fields",
            Skip::Depth => "depth",
            Skip::Name => "name",
            Skip::Text => "text",
            Skip::Number => "number",
            Skip::DeviceFields => "device_fields",
        }
    }
}

/// What a payload holds.
#[derive(Debug, Default, PartialEq)]
pub struct Fields {
    /// In the order of the payload; a name occurs once.
    pub values: Vec<(Field, Value)>,
    pub skipped: Vec<Skip>,
    /// Whether the payload could not be read at all.
    pub opaque: bool,
}

/// The fields of a payload.
pub fn fields(payload: &[u8]) -> Fields {
    let mut found = Found::default();
    match read_json(payload) {
        Ok(json) => found.visit(&mut String::new(), 0, &json),
        Err(_) => match plain_number(payload) {
            Some(number) => found.keep(SCALAR_FIELD, Value::Number(number)),
            None => found.fields.opaque = true,
        },
    }
    found.fields
}

/// A number as programs print it, which need not be JSON: `+5`, `.5`, ` 5 `.
fn plain_number(payload: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(payload).ok()?.trim();
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[derive(Default)]
struct Found {
    fields: Fields,
    /// Where each name stands in `fields.values`.
    places: HashMap<Field, usize>,
}

impl Found {
    fn visit(&mut self, name: &mut String, depth: usize, json: &Json<'_>) {
        match json {
            Json::Undefined | Json::Null => {}
            Json::Bool(truth) => self.keep(scalar(name, depth), Value::Boolean(*truth)),
            Json::Number(number) => match number.to_f64() {
                Some(number) => self.keep(scalar(name, depth), Value::Number(number)),
                None => self.skip(Skip::Number),
            },
            Json::Text(text) if text.len() > TEXT_BYTES_MAX => self.skip(Skip::Text),
            Json::Text(text) => self.keep(scalar(name, depth), Value::Text(text.clone().into_owned())),
            Json::Array(_) | Json::Object(_) if depth == DEPTH_MAX => self.skip(Skip::Depth),
            Json::Array(elements) => {
                for (i, element) in elements.iter().enumerate() {
                    self.member(name, depth, &format!("[{i}]"), element);
                }
            }
            Json::Object(members) => {
                let dot = if name.is_empty() { "" } else { "." };
                for (member, value) in members {
                    self.member(name, depth, &format!("{dot}{member}"), value);
                }
            }
        }
    }

    fn member(&mut self, name: &mut String, depth: usize, added: &str, value: &Json<'_>) {
        let length = name.len();
        name.push_str(added);
        self.visit(name, depth + 1, value);
        name.truncate(length);
    }

    fn keep(&mut self, name: &str, value: Value) {
        let Ok(field) = Field::new(name) else { return self.skip(Skip::Name) };
        match self.places.get(&field) {
            Some(place) => self.fields.values[*place].1 = value,
            None if self.fields.values.len() == FIELDS_MAX => self.skip(Skip::Fields),
            None => {
                self.places.insert(field.clone(), self.fields.values.len());
                self.fields.values.push((field, value));
            }
        }
    }

    fn skip(&mut self, why: Skip) {
        self.fields.skipped.push(why);
    }
}

/// The name of a scalar: the payload itself has none of its own.
fn scalar(name: &str, depth: usize) -> &str {
    if depth == 0 { SCALAR_FIELD } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::limits::PAYLOAD_BYTES_MAX;
    use proptest::prelude::*;

    use crate::series::FIELD_BYTES_MAX;

    fn printed(payload: &str) -> Vec<String> {
        let value = |value: Value| match value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::Boolean(truth) => truth.to_string(),
        };
        fields(payload.as_bytes()).values.into_iter().map(|(field, v)| format!("{field}={}", value(v))).collect()
    }

    fn skipped(payload: &str) -> Vec<Skip> {
        fields(payload.as_bytes()).skipped
    }

    #[test]
    fn every_scalar_is_a_field_named_by_its_way() {
        let payload = r#"{"t": 21.5, "on": true, "mode": "eco", "none": null, "cells": [{"v": 3}, 4, [5]], "e": {}}"#;
        let expected = ["t=21.5", "on=true", "mode=\"eco\"", "cells[0].v=3", "cells[1]=4", "cells[2][0]=5"];
        assert_eq!(printed(payload), expected);
        assert_eq!(printed("[1, [2]]"), ["[0]=1", "[1][0]=2"]);
    }

    #[test]
    fn a_payload_that_is_one_scalar_has_the_field_value() {
        for (payload, expected) in [
            ("5", "value=5"),
            (" -5.5e1\n", "value=-55"),
            ("+5", "value=5"),
            (".5", "value=0.5"),
            ("007", "value=7"),
            ("\"on\"", "value=\"on\""),
            ("true", "value=true"),
        ] {
            assert_eq!(printed(payload), [expected], "{payload}");
        }
    }

    #[test]
    fn what_is_neither_json_nor_a_number_is_a_message_only() {
        for payload in ["", "on", "NaN", "-inf", "Infinity", "5 V", "{\"t\": NaN}", "{\"t\": 1", "{'t': 1}", "0x10"] {
            assert_eq!(fields(payload.as_bytes()), Fields { opaque: true, ..Fields::default() }, "{payload}");
        }
        assert!(fields(b"\xff\xfe5").opaque && fields(b"{\"t\": \"\xff\"}").opaque);
        assert_eq!(fields(b"null"), Fields::default());
    }

    #[test]
    fn of_equal_names_the_last_counts_where_the_first_stood() {
        assert_eq!(printed(r#"{"a": 1, "b": 2, "a": 3}"#), ["b=2", "a=3"]);
        assert_eq!(printed(r#"{"a": {"b": 1}, "c": 2, "a.b": 3}"#), ["a.b=3", "c=2"]);
        assert_eq!(printed(r#"{"a": 1, "a": {"b": 2}}"#), ["a.b=2"]);
    }

    #[test]
    fn numbers_become_the_nearest_and_those_beyond_the_range_are_left_out() {
        assert_eq!(
            printed(r#"{"a": 0.1, "b": 9007199254740993, "c": 1e-400}"#),
            ["a=0.1", "b=9007199254740992", "c=0"]
        );
        let beyond = r#"{"a": 1e309, "b": 1.7976931348623157e308, "c": -1e400}"#;
        assert_eq!(printed(beyond).len(), 1);
        assert_eq!(skipped(beyond), [Skip::Number; 2]);
    }

    #[test]
    fn each_bound_is_kept_to_and_what_is_over_is_counted() {
        let numbered = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert_eq!((printed(&numbered(FIELDS_MAX)).len(), skipped(&numbered(FIELDS_MAX))), (FIELDS_MAX, vec![]));
        assert_eq!((printed(&numbered(300)).len(), skipped(&numbered(300)).len()), (FIELDS_MAX, 300 - FIELDS_MAX));

        let nested = |depth: usize| "[".repeat(depth) + "1" + &"]".repeat(depth);
        assert_eq!(printed(&nested(DEPTH_MAX)).len(), 1);
        assert_eq!((printed(&nested(DEPTH_MAX + 1)), skipped(&nested(DEPTH_MAX + 1))), (vec![], vec![Skip::Depth]));

        let texted = |bytes: usize| format!("{{\"t\": \"{}\"}}", "x".repeat(bytes));
        assert_eq!(skipped(&texted(TEXT_BYTES_MAX)), []);
        assert_eq!(skipped(&texted(TEXT_BYTES_MAX + 1)), [Skip::Text]);

        let named = |bytes: usize| format!("{{\"{}\": 1}}", "n".repeat(bytes));
        assert_eq!(skipped(&named(FIELD_BYTES_MAX)), []);
        assert_eq!(skipped(&named(FIELD_BYTES_MAX + 1)), [Skip::Name]);
        assert_eq!(skipped(r#"{"": 1, "a\u0000b": 2}"#), [Skip::Name; 2]);
    }

    #[test]
    fn the_largest_payloads_of_every_shape_end_well() {
        let brackets = "[".repeat(PAYLOAD_BYTES_MAX / 2) + &"]".repeat(PAYLOAD_BYTES_MAX / 2);
        assert!(fields(brackets.as_bytes()).opaque, "nested deeper than a rule reads");
        let commas = format!("[{}1]", "1,".repeat(PAYLOAD_BYTES_MAX / 2 - 2));
        assert_eq!(printed(&commas).len(), FIELDS_MAX);
        let members: Vec<String> = (0..15_000).map(|i| format!("\"k{i}\":{i}")).collect();
        let object = format!("{{{}}}", members.join(","));
        assert!(object.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(printed(&object).len(), FIELDS_MAX);
        assert!(fields(&vec![b'1'; PAYLOAD_BYTES_MAX + 1]).opaque);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_the_bounds_hold(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let found = fields(&payload);
            prop_assert!(found.values.len() <= FIELDS_MAX);
            prop_assert!(!found.opaque || found.values.is_empty());
        }

        #[test]
        fn names_are_unique(
            payload in r#"\{("[ab.]{0,2}":(1|"x"|\{"[ab]":2\}|\[1,\{"b":2\}\]),){0,6}"z":1\}"#
        ) {
            let found = fields(payload.as_bytes());
            prop_assert!(!found.opaque);
            let names: std::collections::HashSet<_> = found.values.iter().map(|(field, _)| field).collect();
            prop_assert_eq!(names.len(), found.values.len());
        }
    }
}
