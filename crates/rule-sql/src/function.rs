//! The functions of the language: one row each. A new function is a new row.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::evaluate::{Answer, Message, undefined};
use crate::number::Number;
use crate::value::{Held, Value};

/// One function. Names are found in any case; `arity` is checked when the rule is parsed.
pub struct Function {
    pub name: &'static str,
    pub arity: RangeInclusive<usize>,
    call: Body,
}

/// Arguments of a kind a function is not made for give an undefined value.
type Body = for<'m> fn(&'m Message<'_>, Arguments<'_, 'm>) -> Answer<'m>;
type Arguments<'s, 'm> = &'s [Held<'m>];

static TABLE: [Function; 4] = [
    Function { name: "clientid", arity: 0..=0, call: client_id },
    Function { name: "get", arity: 2..=2, call: get },
    Function { name: "timestamp", arity: 0..=0, call: timestamp },
    Function { name: "topic", arity: 0..=1, call: topic },
];

impl Function {
    /// The function of this name, in any case.
    pub(crate) fn named(name: &str) -> Option<&'static Function> {
        TABLE.iter().find(|function| function.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn call<'m>(&self, message: &'m Message<'_>, arguments: Arguments<'_, 'm>) -> Answer<'m> {
        (self.call)(message, arguments)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn text<'m>(text: &'m str) -> Answer<'m> {
    Ok(Held::Made(Value::Text(Cow::Borrowed(text))))
}

/// `clientid()`: the MQTT client id, or `n/a` for a message that came another way.
fn client_id<'m>(message: &'m Message<'_>, _: Arguments<'_, 'm>) -> Answer<'m> {
    text(message.client_id.unwrap_or("n/a"))
}

/// `timestamp()`: milliseconds since the Unix epoch.
fn timestamp<'m>(message: &'m Message<'_>, _: Arguments<'_, 'm>) -> Answer<'m> {
    Ok(Held::Made(Value::Number(Number::Int(message.timestamp_ms.into()))))
}

/// `topic()`: the whole topic; `topic(n)`: its n-th level, from 1.
fn topic<'m>(message: &'m Message<'_>, arguments: Arguments<'_, 'm>) -> Answer<'m> {
    let Some(level) = arguments.first() else {
        return text(message.topic);
    };
    let index = index(level).and_then(|n| n.checked_sub(1));
    index.and_then(|n| message.topic.split('/').nth(n)).map_or(undefined(), text)
}

/// `get(collection, key)`: an element of an array or a character of a text by its index from 0, a member of an object
/// by its name.
fn get<'m>(_: &'m Message<'_>, arguments: Arguments<'_, 'm>) -> Answer<'m> {
    let (collection, key) = (&arguments[0], &arguments[1]);
    let found = match &**collection {
        Value::Array(elements) => index(key).and_then(|n| elements.get(n)).cloned(),
        Value::Object(_) => key.to_text().and_then(|name| collection.member(&name)).cloned(),
        Value::Text(text) => index(key).and_then(|n| text.chars().nth(n)).map(|c| Value::Text(c.to_string().into())),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) => None,
    };
    found.map_or(undefined(), |value| Ok(Held::Made(value)))
}

/// A place in a sequence: a number or numeric text, rounded down.
fn index(value: &Value<'_>) -> Option<usize> {
    value.to_number()?.truncated().and_then(|n| usize::try_from(n).ok())
}
