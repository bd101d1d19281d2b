//! One message through one tree. The payload is read when a field is first asked for, once for all rules.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use drover_types::limits::PAYLOAD_BYTES_MAX;

use crate::ast::{BinaryOperator, Expr, Item, Select, UnaryOperator};
use crate::error::EvalError;
use crate::json::{self, JsonError};
use crate::number::Number;
use crate::value::{Held, Value, write_object};

/// Longest text that `+` makes, in bytes: no rule needs more than a payload may hold.
const TEXT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX;

/// What rules are asked about.
#[derive(Debug)]
pub struct Message<'p> {
    pub topic: &'p str,
    /// Absent if the message did not come by MQTT.
    pub client_id: Option<&'p str>,
    /// What `timestamp()` says, milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    payload: &'p [u8],
    read: OnceCell<Result<Value<'p>, JsonError>>,
}

/// What comes out of a rule. Prints as what it is sent as, but for bytes that are not UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<'m> {
    /// `SELECT *` alone: the payload, byte for byte.
    Payload(&'m [u8]),
    /// `SELECT VALUE`.
    Value(Held<'m>),
    /// A list of items; members that are undefined are not sent.
    Object(Vec<(&'m str, Held<'m>)>),
}

/// A value that borrows from the message or the rule if it can.
pub(crate) type Answer<'m> = Result<Held<'m>, EvalError>;

pub(crate) fn undefined<'m>() -> Answer<'m> {
    Ok(Held::Made(Value::Undefined))
}

/// Where names are looked up.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'m, 'p> {
    pub message: &'m Message<'p>,
    /// Asked before the payload, if there is one.
    pub row: Option<&'m Row<'m>>,
}

impl<'p> Message<'p> {
    /// A message not yet read.
    pub fn new(topic: &'p str, client_id: Option<&'p str>, timestamp_ms: u64, payload: &'p [u8]) -> Self {
        Self { topic, client_id, timestamp_ms, payload, read: OnceCell::new() }
    }

    /// The payload as a value.
    fn value(&self) -> Result<&Value<'p>, EvalError> {
        self.read.get_or_init(|| json::read(self.payload)).as_ref().map_err(|error| error.clone().into())
    }
}

impl Row<'_> {
    /// What is sent: JSON, or the payload as it came.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Row::Payload(payload) => payload.to_vec(),
            Row::Value(_) | Row::Object(_) => self.to_string().into_bytes(),
        }
    }

    fn member(&self, name: &str) -> Option<&Value<'_>> {
        match self {
            Row::Payload(_) => None,
            Row::Value(value) => value.member(name),
            Row::Object(members) => members.iter().find(|(member, _)| *member == name).map(|(_, value)| &**value),
        }
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Row::Payload(payload) => f.write_str(&String::from_utf8_lossy(payload)),
            Row::Value(value) => value.fmt(f),
            Row::Object(members) => write_object(f, members.iter().map(|(name, value)| (*name, &**value))),
        }
    }
}

/// The row that `select` makes of `message`.
pub(crate) fn row<'m>(select: &'m Select, message: &'m Message<'_>) -> Result<Row<'m>, EvalError> {
    let scope = Scope { message, row: None };
    match select {
        Select::Payload => Ok(Row::Payload(message.payload)),
        Select::Value(expr) => match evaluate(expr, scope)? {
            value if *value == Value::Undefined => Err(EvalError::UndefinedValue),
            value => Ok(Row::Value(value)),
        },
        Select::Items(items) => {
            let mut members = Vec::with_capacity(items.len());
            for item in items {
                add(item, scope, &mut members)?;
            }
            Ok(Row::Object(members))
        }
    }
}

fn add<'m>(item: &'m Item, scope: Scope<'m, '_>, members: &mut Vec<(&'m str, Held<'m>)>) -> Result<(), EvalError> {
    let mut put = |name: &'m str, value| match members.iter_mut().find(|(member, _)| *member == name) {
        Some((_, earlier)) => *earlier = value,
        None => members.push((name, value)),
    };
    match item {
        Item::Named { expr, name } => put(name, evaluate(expr, scope)?),
        Item::Star => {
            let Value::Object(payload) = scope.message.value()? else {
                return Err(EvalError::NotAnObject);
            };
            members.retain(|(name, _)| !payload.iter().any(|(member, _)| member == name));
            members.extend(payload.iter().map(|(name, value)| (name.as_ref(), Held::Lent(value))));
        }
    }
    Ok(())
}

/// The value of `expr`.
pub(crate) fn evaluate<'m>(expr: &'m Expr, scope: Scope<'m, '_>) -> Answer<'m> {
    match expr {
        Expr::Literal(value) => Ok(Held::Lent(value)),
        Expr::Field(name) => field(name, scope),
        Expr::Member { of, name } => Ok(member(evaluate(of, scope)?, name)),
        Expr::Unary { operator, operand } => Ok(Held::Made(unary(*operator, &*evaluate(operand, scope)?))),
        Expr::Binary { operator, left, right } => {
            binary(*operator, &*evaluate(left, scope)?, &*evaluate(right, scope)?).map(Held::Made)
        }
        Expr::Call { function, arguments } => {
            let arguments =
                arguments.iter().map(|argument| evaluate(argument, scope)).collect::<Result<Vec<_>, _>>()?;
            function.call(scope.message, &arguments)
        }
    }
}

fn field<'m>(name: &str, scope: Scope<'m, '_>) -> Answer<'m> {
    let in_row = scope.row.and_then(|row| row.member(name)).filter(|value| **value != Value::Undefined);
    match in_row {
        Some(value) => Ok(Held::Lent(value)),
        None => scope.message.value()?.member(name).map_or(undefined(), |value| Ok(Held::Lent(value))),
    }
}

fn member<'m>(of: Held<'m>, name: &str) -> Held<'m> {
    let found = match &of {
        Held::Lent(value) => value.member(name).map(Held::Lent),
        Held::Made(value) => value.member(name).cloned().map(Held::Made),
    };
    found.unwrap_or(Held::Made(Value::Undefined))
}

fn unary(operator: UnaryOperator, operand: &Value<'_>) -> Value<'static> {
    match operator {
        UnaryOperator::Not => operand.to_bool().map(|truth| !truth).into(),
        UnaryOperator::Negate => operand.to_number().and_then(|n| Number::Int(0).difference(n)).into(),
    }
}

fn binary(operator: BinaryOperator, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let numbers = left.to_number().zip(right.to_number());
    let order = |f: fn(&Number, &Number) -> bool| numbers.map(|(a, b)| f(&a, &b)).into();
    let arithmetic = |f: fn(Number, Number) -> Option<Number>| numbers.and_then(|(a, b)| f(a, b)).into();
    let truths = left.to_bool().zip(right.to_bool());
    Ok(match operator {
        BinaryOperator::Or => truths.map(|(a, b)| a || b).into(),
        BinaryOperator::And => truths.map(|(a, b)| a && b).into(),
        BinaryOperator::Equal => left.equals(right).into(),
        BinaryOperator::NotEqual => left.equals(right).map(|equal| !equal).into(),
        BinaryOperator::Less => order(Number::lt),
        BinaryOperator::LessOrEqual => order(Number::le),
        BinaryOperator::Greater => order(Number::gt),
        BinaryOperator::GreaterOrEqual => order(Number::ge),
        BinaryOperator::Add if matches!(left, Value::Text(_)) || matches!(right, Value::Text(_)) => {
            return concatenated(left, right);
        }
        BinaryOperator::Add => arithmetic(Number::sum),
        BinaryOperator::Subtract => arithmetic(Number::difference),
        BinaryOperator::Multiply => arithmetic(Number::product),
        BinaryOperator::Divide => arithmetic(Number::quotient),
        BinaryOperator::Remainder => arithmetic(Number::remainder),
    })
}

fn concatenated(left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, EvalError> {
    let Some((left, right)) = left.to_text().zip(right.to_text()) else {
        return Ok(Value::Undefined);
    };
    let bytes = left.len() + right.len();
    if bytes > TEXT_BYTES_MAX {
        return Err(EvalError::TextTooLong { bytes, limit: TEXT_BYTES_MAX });
    }
    Ok(Value::Text(Cow::Owned(left.into_owned() + &right)))
}
