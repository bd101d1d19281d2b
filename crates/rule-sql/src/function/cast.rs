//! `cast(x AS type)`: the conversions of the language, and those between truth values and numbers.

use std::fmt;

use crate::number::Number;
use crate::value::Value;

/// What a value is cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    Text,
    Int,
    Decimal,
    /// A decimal of the precision of a double.
    Double,
    Bool,
}

/// Keywords of each; the first is the one printed.
const TABLE: [(Cast, &[&str]); 5] = [
    (Cast::Text, &["String", "Nvarchar", "Text", "Ntext", "Varchar"]),
    (Cast::Int, &["Int", "Integer"]),
    (Cast::Decimal, &["Decimal"]),
    (Cast::Double, &["Double"]),
    (Cast::Bool, &["Boolean", "Bool"]),
];

impl Cast {
    /// Every keyword, for an error to list.
    pub(crate) const KEYWORDS: &'static str =
        "String, Nvarchar, Text, Ntext, Varchar, Int, Integer, Decimal, Double, Bool, Boolean";

    /// The type of this name, in any case.
    pub(crate) fn named(name: &str) -> Option<Cast> {
        let row = TABLE.iter().find(|(_, keywords)| keywords.iter().any(|keyword| keyword.eq_ignore_ascii_case(name)));
        row.map(|(cast, _)| *cast)
    }

    /// The value as this type; `Null` is no number but stays itself.
    pub(crate) fn of(self, value: &Value<'_>) -> Value<'static> {
        match (self, value) {
            (Cast::Text, value) => value.to_text().map(|text| text.into_owned()).into(),
            (Cast::Bool, Value::Number(number)) => Value::Bool(!number.is_zero()),
            (Cast::Bool, value) => value.to_bool().into(),
            (Cast::Int | Cast::Decimal | Cast::Double, Value::Null) => Value::Null,
            (Cast::Int | Cast::Decimal | Cast::Double, Value::Bool(truth)) => {
                Value::Number(Number::Int((*truth).into()))
            }
            (Cast::Int, value) => value.to_number().and_then(Number::truncated).map(Number::Int).into(),
            (Cast::Decimal, value) => value.to_number().map(|number| decimal(number, value)).into(),
            (Cast::Double, value) => {
                let double = value.to_number().and_then(Number::to_f64).and_then(Number::from_f64);
                double.map(|number| decimal(number, value)).into()
            }
        }
    }
}

/// A whole number stays an integer, as everywhere; a text that was read as a decimal is one.
fn decimal(number: Number, of: &Value<'_>) -> Number {
    match of {
        Value::Text(_) => Number::Decimal(number.decimal()),
        Value::Number(_) | Value::Undefined | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            number.normal()
        }
    }
}

impl fmt::Display for Cast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = TABLE.iter().find(|(cast, _)| cast == self);
        f.write_str(row.expect("the table lists every type").1[0])
    }
}
