//! A payload of which only the touched members are read: one pass checks all of it and notes where each member of the
//! outermost object stands; a member becomes a value when it is first asked for.

use std::borrow::Cow;
use std::cell::OnceCell;

use super::{JsonError, Reader, keep_last, text};
use crate::value::Value;

/// A checked payload.
#[derive(Debug)]
pub(crate) enum Document<'p> {
    Object(Vec<(Cow<'p, str>, Member<'p>)>),
    /// Anything but an object has nothing to look up.
    Other,
}

/// One member of the outermost object.
#[derive(Debug)]
pub(crate) struct Member<'p> {
    text: &'p str,
    value: OnceCell<Value<'p>>,
}

impl<'p> Document<'p> {
    /// Checks one JSON text with nothing but blank space around it; refuses what [`super::read`] refuses.
    pub fn check(payload: &'p [u8]) -> Result<Self, JsonError> {
        let mut reader = Reader { text: text(payload)?, at: 0 };
        reader.blank();
        if reader.peek() != Some(b'{') {
            reader.skip(0)?;
            return reader.end(Document::Other);
        }
        let mut members = Vec::with_capacity(MEMBERS_USUAL);
        reader.members(|reader, name| {
            reader.blank();
            let start = reader.at;
            reader.skip(1)?;
            members.push((name, Member { text: &reader.text[start..reader.at], value: OnceCell::new() }));
            Ok(())
        })?;
        keep_last(&mut members);
        reader.end(Document::Object(members))
    }

    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&Value<'p>> {
        match self {
            Document::Object(members) => {
                members.iter().find(|(member, _)| member == name).map(|(_, member)| member.value())
            }
            Document::Other => None,
        }
    }

    /// All members, if it is an object.
    pub fn members(&self) -> Option<impl Iterator<Item = (&str, &Value<'p>)>> {
        match self {
            Document::Object(members) => Some(members.iter().map(|(name, member)| (name.as_ref(), member.value()))),
            Document::Other => None,
        }
    }
}

/// Members for which there is room at first.
const MEMBERS_USUAL: usize = 16;

impl<'p> Member<'p> {
    fn value(&self) -> &Value<'p> {
        self.value.get_or_init(|| {
            let mut reader = Reader { text: self.text, at: 0 };
            reader.value(1).expect("the document was checked by the same reader")
        })
    }
}
