//! What an expression yields, and how one type becomes another.

use std::borrow::Cow;

use crate::decimal::Rounding;
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

    /// As an integer: a decimal rounded to the nearest, a text that reads as a decimal without its fraction.
    pub fn to_int(&self) -> Option<i128> {
        match self {
            Value::Number(number) => number.rounded(0, Rounding::Nearest)?.truncated(),
            Value::Text(text) => Number::from_text(text)?.truncated(),
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

    /// A copy that borrows nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Undefined => Value::Undefined,
            Value::Null => Value::Null,
            Value::Bool(truth) => Value::Bool(truth),
            Value::Number(number) => Value::Number(number),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Array(elements) => Value::Array(elements.into_iter().map(Value::into_owned).collect()),
            Value::Object(members) => Value::Object(
                members.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned())).collect(),
            ),
        }
    }

    /// About as many bytes as it takes in memory and as JSON.
    pub(crate) fn weight(&self) -> usize {
        /// Of a value itself, without what it holds.
        const OWN: usize = 16;
        OWN + match self {
            Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::Text(text) => text.len(),
            Value::Array(elements) => elements.iter().map(Value::weight).sum(),
            Value::Object(members) => members.iter().map(|(name, value)| name.len() + value.weight()).sum(),
        }
    }

    /// Levels of arrays and objects; 0 for a scalar.
    pub(crate) fn depth(&self) -> usize {
        let deepest = match self {
            Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => return 0,
            Value::Array(elements) => elements.iter().map(Value::depth).max(),
            Value::Object(members) => members.iter().map(|(_, value)| value.depth()).max(),
        };
        1 + deepest.unwrap_or(0)
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

impl Default for Held<'_> {
    fn default() -> Self {
        Held::Made(Value::Undefined)
    }
}

impl<'m> Held<'m> {
    /// The value itself, copied if it is lent.
    pub(crate) fn into_value(self) -> Value<'m> {
        match self {
            Held::Lent(value) => value.clone(),
            Held::Made(value) => value,
        }
    }

    /// What `find` finds in it.
    pub(crate) fn part(self, find: impl for<'v> Fn(&'v Value<'m>) -> Option<&'v Value<'m>>) -> Held<'m> {
        let found = match &self {
            Held::Lent(value) => find(value).map(Held::Lent),
            Held::Made(value) => find(value).cloned().map(Held::Made),
        };
        found.unwrap_or(Held::Made(Value::Undefined))
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

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(Cow::Owned(text))
    }
}

impl From<Option<String>> for Value<'_> {
    fn from(text: Option<String>) -> Self {
        text.map_or(Value::Undefined, Value::from)
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
