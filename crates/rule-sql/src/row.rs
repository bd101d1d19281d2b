//! What comes out of a rule.

use std::collections::HashMap;
use std::fmt;

use crate::error::EvalError;
use crate::json::{write_object, write_value};
use crate::value::{Held, Value};

/// A row. Prints as what it is sent as, but for bytes that are not UTF-8.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row<'m> {
    pub(crate) shape: Shape<'m>,
    /// What SET made, for the templates of actions.
    pub(crate) variables: Vec<(&'m str, Value<'static>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape<'m> {
    /// `SELECT *` alone: the payload, byte for byte.
    Payload(&'m [u8]),
    /// `SELECT VALUE`.
    Value(Held<'m>),
    /// A list of items; members that are undefined are not sent.
    Object(Vec<(&'m str, Held<'m>)>),
}

/// Bytes for which there is room at first when a row is written.
const ROW_BYTES_USUAL: usize = 256;
/// Rows of up to this many members are searched for a name one by one, larger ones by hash.
const PAIRWISE_MEMBERS_MAX: usize = 16;

/// A row in the making: a later member takes the place of an earlier one of its name.
pub(crate) struct Members<'m> {
    members: Vec<(&'m str, Held<'m>)>,
    /// Where each name stands; of the first ones only while there are few.
    places: HashMap<&'m str, usize>,
}

impl<'m> Members<'m> {
    pub fn with_room_for(members: usize) -> Self {
        Self { members: Vec::with_capacity(members), places: HashMap::new() }
    }

    pub fn put(&mut self, name: &'m str, value: Held<'m>) {
        match self.place(name) {
            Some(place) => self.members[place].1 = value,
            None => self.members.push((name, value)),
        }
    }

    /// Puts a value into the object of this name, below the names of `under`; what stands in the way and is no object is
    /// replaced. How many members were looked at on the way.
    pub fn put_under(&mut self, name: &'m str, under: &'m [String], value: Value<'m>) -> usize {
        let place = match self.place(name) {
            Some(place) => place,
            None => {
                self.members.push((name, Held::Made(Value::Undefined)));
                self.members.len() - 1
            }
        };
        let held = std::mem::take(&mut self.members[place].1);
        let mut whole = held.into_value();
        let looked_at = insert(&mut whole, under, value);
        self.members[place].1 = Held::Made(whole);
        looked_at
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        if self.members.len() <= PAIRWISE_MEMBERS_MAX {
            return self.members.iter().position(|(member, _)| *member == name);
        }
        for (place, (member, _)) in self.members.iter().enumerate().skip(self.places.len()) {
            self.places.insert(member, place);
        }
        self.places.get(name).copied()
    }

    pub fn in_order(self) -> Vec<(&'m str, Held<'m>)> {
        self.members
    }
}

/// Puts a value below the names of a path; how many members were looked at.
fn insert<'m>(into: &mut Value<'m>, path: &'m [String], value: Value<'m>) -> usize {
    let Some((name, path)) = path.split_first() else {
        *into = value;
        return 0;
    };
    if !matches!(into, Value::Object(_)) {
        *into = Value::Object(Vec::new());
    }
    let Value::Object(members) = into else { return 0 };
    let place = members.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        members.push((name.as_str().into(), Value::Undefined));
        members.len() - 1
    });
    place + 1 + insert(&mut members[place].1, path, value)
}

impl Shape<'_> {
    /// Itself, unless there is nothing to send.
    pub fn defined(self) -> Result<Self, EvalError> {
        match &self {
            Shape::Value(value) if **value == Value::Undefined => Err(EvalError::UndefinedValue),
            Shape::Payload(_) | Shape::Value(_) | Shape::Object(_) => Ok(self),
        }
    }
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Shape::Object(Vec::new())
    }
}

impl Row<'_> {
    /// What is sent: JSON, or the payload as it came.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::with_capacity(ROW_BYTES_USUAL);
        let written = match &self.shape {
            Shape::Payload(payload) => return payload.to_vec(),
            Shape::Value(value) => write_value(&mut text, value),
            Shape::Object(members) => write_object(&mut text, members.iter().map(|(name, value)| (*name, &**value))),
        };
        written.expect("a String takes all");
        text.into_bytes()
    }

    /// The payload, if the row is nothing else: it need not be JSON.
    pub fn as_payload(&self) -> Option<&[u8]> {
        match self.shape {
            Shape::Payload(payload) => Some(payload),
            Shape::Value(_) | Shape::Object(_) => None,
        }
    }

    pub(crate) fn member(&self, name: &str) -> Option<&Value<'_>> {
        match &self.shape {
            Shape::Payload(_) => None,
            Shape::Value(value) => value.member(name),
            Shape::Object(members) => members.iter().find(|(member, _)| *member == name).map(|(_, value)| &**value),
        }
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shape {
            Shape::Payload(payload) => f.write_str(&String::from_utf8_lossy(payload)),
            Shape::Value(value) => write_value(f, value),
            Shape::Object(members) => write_object(f, members.iter().map(|(name, value)| (*name, &**value))),
        }
    }
}
