//! A grouping compiled with its rule: where each group's values come from, and how a closed window becomes a row.
//!
//! A closed window is evaluated as a message is: its results stand in an object under names that no payload field can
//! have ([`KEY`], [`AGGREGATE`], …), and SELECT has these names in the place of what they are results of.

use std::borrow::Cow;

use super::input::Key;
use super::panes::Panes;
use super::pattern::Pattern;
use super::sessions::Sessions;
use crate::ast::{Aggregate, AggregateKind, Bound, Expr, Grouping, Item, Late, Per, Select, Statement};
use crate::error::EvalError;
use crate::json::{self, write_object};
use crate::number::Number;
use crate::parser::group::is_device;
use crate::value::Value;

/// Names of keys and aggregates, before their number.
const KEY: &str = "#key";
const AGGREGATE: &str = "#value";
/// Names of the window's bounds.
const START: &str = "#start";
const END: &str = "#end";
const LATE: &str = "#late";
/// Member of `device()` that names it.
const DEVICE_NAME: &str = "name";

/// What a rule does with many messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub(crate) keys: Vec<Key>,
    pub(crate) machine: Machine,
    pub(crate) event_time: Option<Expr>,
    pub(crate) lateness_ms: u64,
    pub(crate) late: Late,
    pub(crate) aggregates: Vec<Aggregate>,
    /// With names of results.
    pub(crate) select: Select,
}

/// How a group's state goes on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Machine {
    Panes(Panes),
    Sessions(Sessions),
    Pattern(Box<Pattern>),
}

/// A window that is over, or what a late message would have added to it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub start_ms: u64,
    /// The first millisecond behind it.
    pub end_ms: u64,
    pub late: bool,
    /// Most republishings that a message of it has behind it.
    pub hops: u32,
    /// Of each aggregate, in the order of the plan.
    pub(crate) values: Vec<Value<'static>>,
}

impl Plan {
    pub(crate) fn of(statement: &Statement, grouping: &Grouping) -> Self {
        let mut aggregates = Vec::new();
        let select = match &statement.select {
            // A pattern's row is that of the message.
            select if grouping.per.is_pattern() => select.clone(),
            Select::Payload => Select::Payload,
            Select::Value(expr) => Select::Value(named(expr, &grouping.keys, &mut aggregates)),
            Select::Items(items) => {
                Select::Items(items.iter().map(|item| named_item(item, &grouping.keys, &mut aggregates)).collect())
            }
        };
        let key = |key: &Expr| if is_device(key) { Key::Device } else { Key::Value(key.clone()) };
        Self {
            keys: grouping.keys.iter().map(key).collect(),
            machine: Machine::of(&grouping.per),
            event_time: grouping.event_time.clone(),
            lateness_ms: grouping.lateness_ms,
            late: grouping.late,
            aggregates,
            select,
        }
    }

    /// Whether its rows are those of single messages.
    pub fn is_pattern(&self) -> bool {
        matches!(self.machine, Machine::Pattern(_))
    }

    /// The device of a group, which is one of its keys.
    pub fn device_of(&self, group: &str) -> Result<String, EvalError> {
        let keys = json::read(group.as_bytes())?;
        let at = self.keys.iter().position(|key| *key == Key::Device);
        let device = at.and_then(|at| elements(&keys).get(at)).and_then(Value::to_text);
        device.map(Cow::into_owned).ok_or(EvalError::NoDevice)
    }

    /// The payload that a closed window's row is evaluated over: its results by their names.
    pub fn payload(&self, group: &str, closed: &Closed) -> Result<String, EvalError> {
        let keys = json::read(group.as_bytes())?;
        let mut members: Vec<(String, Value<'_>)> = Vec::new();
        for (number, (key, value)) in self.keys.iter().zip(elements(&keys)).enumerate() {
            let value = match key {
                Key::Device => Value::Object(vec![(DEVICE_NAME.into(), value.clone())]),
                Key::Value(_) => value.clone(),
            };
            members.push((name(KEY, number), value));
        }
        for (number, value) in closed.values.iter().enumerate() {
            members.push((name(AGGREGATE, number), value.clone()));
        }
        let time = |ms: u64| Value::Number(Number::Int(ms.into()));
        members.extend([
            (START.to_owned(), time(closed.start_ms)),
            (END.to_owned(), time(closed.end_ms)),
            (LATE.to_owned(), Value::Bool(closed.late)),
        ]);
        let mut payload = String::new();
        let written = write_object(&mut payload, members.iter().map(|(name, value)| (name.as_str(), value)));
        written.expect("a String takes all");
        Ok(payload)
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = AggregateKind> {
        self.aggregates.iter().map(|aggregate| aggregate.kind)
    }
}

impl Machine {
    fn of(per: &Per) -> Self {
        match per {
            Per::Tumbling { size_ms } => Machine::Panes(Panes::hopping(*size_ms, *size_ms)),
            Per::Hopping { size_ms, hop_ms } => Machine::Panes(Panes::hopping(*size_ms, *hop_ms)),
            Per::Sliding { size_ms } => Machine::Panes(Panes::sliding(*size_ms)),
            // A device is absent when its session has ended.
            Per::Session { gap_ms } | Per::Absent { gap_ms } => Machine::Sessions(Sessions { gap_ms: *gap_ms }),
            Per::Changed(of) => Machine::Pattern(Box::new(Pattern::Changed(of.clone()))),
            Per::Edge { edge, condition, hysteresis } => {
                Machine::Pattern(Box::new(Pattern::edge(*edge, condition, *hysteresis)))
            }
        }
    }
}

fn elements<'v>(keys: &'v Value<'v>) -> &'v [Value<'v>] {
    match keys {
        Value::Array(elements) => elements,
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => &[],
    }
}

fn name(kind: &str, number: usize) -> String {
    format!("{kind}{number}")
}

fn named_item(item: &Item, keys: &[Expr], aggregates: &mut Vec<Aggregate>) -> Item {
    match item {
        Item::Star => Item::Star,
        Item::Named { expr, name, under } => {
            Item::Named { expr: named(expr, keys, aggregates), name: name.clone(), under: under.clone() }
        }
    }
}

/// `expr` with names in the place of keys, aggregates and bounds. The parser has seen to it that nothing else in it is of
/// a message.
fn named(expr: &Expr, keys: &[Expr], aggregates: &mut Vec<Aggregate>) -> Expr {
    if let Some(number) = keys.iter().position(|key| key == expr) {
        return Expr::Field(name(KEY, number));
    }
    let mut part = |part: &Expr| named(part, keys, aggregates);
    let mut boxed = |expr: &Expr| Box::new(part(expr));
    match expr {
        Expr::Aggregate(aggregate) => {
            let known = aggregates.iter().position(|known| known == &**aggregate);
            let number = known.unwrap_or_else(|| {
                aggregates.push((**aggregate).clone());
                aggregates.len() - 1
            });
            Expr::Field(name(AGGREGATE, number))
        }
        Expr::Bound(Bound::Start) => Expr::Field(START.to_owned()),
        Expr::Bound(Bound::End) => Expr::Field(END.to_owned()),
        Expr::Bound(Bound::Late) => Expr::Field(LATE.to_owned()),
        Expr::Member { of, name } => Expr::Member { of: boxed(of), name: name.clone() },
        Expr::Unary { operator, operand } => Expr::Unary { operator: *operator, operand: boxed(operand) },
        Expr::Cast { operand, to } => Expr::Cast { operand: boxed(operand), to: *to },
        Expr::Binary { operator, left, right } => {
            Expr::Binary { operator: *operator, left: boxed(left), right: boxed(right) }
        }
        Expr::Array(elements) => Expr::Array(elements.iter().map(part).collect()),
        Expr::Object(members) => {
            Expr::Object(members.iter().map(|(name, member)| (name.clone(), part(member))).collect())
        }
        Expr::Case { of, arms, otherwise } => Expr::Case {
            of: of.as_deref().map(&mut boxed),
            arms: arms.iter().map(|(when, then)| (*boxed(when), *boxed(then))).collect(),
            otherwise: otherwise.as_deref().map(&mut boxed),
        },
        Expr::Call { function, arguments, prepared } => {
            Expr::Call { function, arguments: arguments.iter().map(part).collect(), prepared: prepared.clone() }
        }
        Expr::UserCall { function, arguments } => {
            Expr::UserCall { function: function.clone(), arguments: arguments.iter().map(part).collect() }
        }
        Expr::Literal(_) | Expr::Star | Expr::Field(_) | Expr::Variable(_) | Expr::Query(_) | Expr::Exists(_) => {
            expr.clone()
        }
    }
}
