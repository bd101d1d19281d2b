//! What an expression yields, and how one type becomes another.

use std::borrow::Cow;
use std::fmt;

use crate::number::Number;

/// A value; texts borrow from the payload where they can.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Not there at all: left out of objects, and of arrays it never gets into one.
    Undefined,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// Members in order; names are unique.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

/// A value at hand: lent by the payload or the rule, or made on the way.
#[derive(Clone, Debug)]
pub enum Held<'m> {
    Lent(&'m Value<'m>),
    Made(Value<'m>),
}

/// The type of a value, as comparison sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Undefined,
    Null,
    Bool,
    Number,
    Text,
    Array,
    Object,
}

impl<'a> Value<'a> {
    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Value<'a>> {
        match self {
            Value::Object(members) => members.iter().find(|(member, _)| member == name).map(|(_, value)| value),
            Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Array(_) => {
                None
            }
        }
    }

    /// As a truth value: itself, or `true` and `false` as text in any case.
    pub fn to_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Value::Text(_) | Value::Undefined | Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                None
            }
        }
    }

    /// As a number: itself, or a text that reads as a decimal.
    pub fn to_number(&self) -> Option<Number> {
        match self {
            Value::Number(number) => Some(*number),
            Value::Text(text) => Number::from_text(text),
            Value::Undefined | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// As text; arrays and objects as compact JSON. Null and undefined values have none.
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Value::Undefined | Value::Null => None,
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(self.to_string().into()),
        }
    }

    /// Equality of the language: by type, numbers by their value, objects without order. `None` if either side is
    /// undefined.
    pub fn equals(&self, other: &Value<'_>) -> Option<bool> {
        match (self, other) {
            (Value::Undefined, _) | (_, Value::Undefined) => None,
            (a, b) if a.type_of() != b.type_of() => Some(false),
            (Value::Array(a), Value::Array(b)) => {
                Some(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b) == Some(true)))
            }
            (Value::Object(a), Value::Object(b)) => Some(same_members(a, b)),
            (a, b) => Some(a == b),
        }
    }

    fn type_of(&self) -> Type {
        match self {
            Value::Undefined => Type::Undefined,
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Number(_) => Type::Number,
            Value::Text(_) => Type::Text,
            Value::Array(_) => Type::Array,
            Value::Object(_) => Type::Object,
        }
    }
}

impl<'m> std::ops::Deref for Held<'m> {
    type Target = Value<'m>;

    fn deref(&self) -> &Value<'m> {
        match self {
            Held::Lent(value) => value,
            Held::Made(value) => value,
        }
    }
}

impl PartialEq for Held<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<Option<bool>> for Value<'_> {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Value::Undefined, Value::Bool)
    }
}

impl From<Option<Number>> for Value<'_> {
    fn from(number: Option<Number>) -> Self {
        number.map_or(Value::Undefined, Value::Number)
    }
}

type Members<'a> = [(Cow<'a, str>, Value<'a>)];

fn same_members(a: &Members<'_>, b: &Members<'_>) -> bool {
    fn sorted<'m, 'v>(members: &'m Members<'v>) -> Vec<&'m (Cow<'v, str>, Value<'v>)> {
        let mut sorted: Vec<_> = members.iter().collect();
        sorted.sort_unstable_by(|x, y| x.0.cmp(&y.0));
        sorted
    }
    a.len() == b.len()
        && sorted(a).into_iter().zip(sorted(b)).all(|(x, y)| x.0 == y.0 && x.1.equals(&y.1) == Some(true))
}

/// Compact JSON. An undefined value prints as `null` where it stands alone; members with one are left out.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Undefined | Value::Null => f.write_str("null"),
            Value::Bool(truth) => truth.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => write_text(f, text),
            Value::Array(elements) => {
                f.write_str("[")?;
                for (i, element) in elements.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    element.fmt(f)?;
                }
                f.write_str("]")
            }
            Value::Object(members) => write_object(f, members.iter().map(|(name, value)| (name.as_ref(), value))),
        }
    }
}

/// Writes a JSON object, without the members that are undefined.
pub(crate) fn write_object<'m, 'v: 'm>(
    f: &mut fmt::Formatter<'_>,
    members: impl Iterator<Item = (&'m str, &'m Value<'v>)>,
) -> fmt::Result {
    f.write_str("{")?;
    for (i, (name, value)) in members.filter(|(_, value)| **value != Value::Undefined).enumerate() {
        f.write_str(if i == 0 { "" } else { "," })?;
        write_text(f, name)?;
        f.write_str(":")?;
        fmt::Display::fmt(value, f)?;
    }
    f.write_str("}")
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).expect("every text is a JSON string"))
}
