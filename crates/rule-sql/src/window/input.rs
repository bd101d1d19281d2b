//! What one message brings to its group.

use crate::ast::Expr;
use crate::error::EvalError;
use crate::evaluate::{self, Scope, evaluate};
use crate::message::Message;
use crate::rule::CompiledRule;
use crate::value::{Held, Value};

use super::pattern::Turn;
use super::plan::{Machine, Plan};

/// Longest keys of a group together, as JSON, in bytes.
pub const GROUP_KEY_BYTES_MAX: usize = 1_024;
/// How far an event time may be ahead of the clock, in milliseconds: one message of the year 2100 would make all others
/// late.
pub const EVENT_AHEAD_MS_MAX: u64 = 3_600_000;

/// A key of GROUP BY.
#[expect(clippy::large_enum_variant, reason = "a rule has a few, and keeps them as long as it lives")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    /// The id of the device that sent the message.
    Device,
    Value(Expr),
}

/// A message, as far as its group is concerned.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The keys as a JSON array, which names the group.
    pub group: String,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Of the arguments of each aggregate.
    pub values: Vec<Value<'static>>,
    /// What a pattern looks at.
    pub turn: Turn,
}

impl Input {
    /// `None`: the condition is not true.
    pub fn of(rule: &CompiledRule, plan: &Plan, message: &Message<'_>) -> Result<Option<Self>, EvalError> {
        message.begin();
        let statement = rule.statement();
        let variables = evaluate::variables(statement, message)?;
        let scope = Scope::new(message, &variables);
        if let Some(condition) = &statement.condition
            && *evaluate(condition, scope)? != Value::Bool(true)
        {
            return Ok(None);
        }
        let turn = match &plan.machine {
            Machine::Pattern(pattern) => pattern.turn(scope)?,
            Machine::Panes(_) | Machine::Sessions(_) => Turn::default(),
        };
        Ok(Some(Self {
            group: group(&plan.keys, scope)?,
            time_ms: time(plan, scope)?,
            values: plan
                .aggregates
                .iter()
                .map(|a| argument(a.of.as_ref(), a.kind.is_count(), scope))
                .collect::<Result<_, _>>()?,
            turn,
        }))
    }
}

fn group(keys: &[Key], scope: Scope<'_, '_, '_>) -> Result<String, EvalError> {
    let mut values = Vec::with_capacity(keys.len());
    for key in keys {
        let value = match key {
            Key::Device => {
                let device = scope.message.origin.device.ok_or(EvalError::NoDevice)?;
                Value::Text(device.to_owned().into())
            }
            Key::Value(expr) => evaluate(expr, scope)?.into_value().into_owned(),
        };
        values.push(if value == Value::Undefined { Value::Null } else { value });
    }
    let group = Value::Array(values).to_string();
    if group.len() > GROUP_KEY_BYTES_MAX {
        return Err(EvalError::KeysTooLong { bytes: group.len(), limit: GROUP_KEY_BYTES_MAX });
    }
    Ok(group)
}

/// The time of the event, or when the message was received.
fn time(plan: &Plan, scope: Scope<'_, '_, '_>) -> Result<u64, EvalError> {
    let received_ms = scope.message.timestamp_ms;
    let Some(expr) = &plan.event_time else { return Ok(received_ms) };
    let value = evaluate(expr, scope)?;
    let ms = value.to_number().and_then(|number| number.truncated()).and_then(|ms| u64::try_from(ms).ok());
    let time_ms = ms.ok_or_else(|| EvalError::EventTime { value: told(&value) })?;
    let by_ms = time_ms.saturating_sub(received_ms);
    if by_ms > EVENT_AHEAD_MS_MAX {
        return Err(EvalError::EventAhead { by_ms, limit_ms: EVENT_AHEAD_MS_MAX });
    }
    Ok(time_ms)
}

/// A value as an error repeats it.
fn told(value: &Value<'_>) -> String {
    /// Longest piece of it, in characters.
    const CHARS_MAX: usize = 40;
    match value {
        Value::Undefined => "undefined".to_owned(),
        value => value.to_string().chars().take(CHARS_MAX).collect(),
    }
}

/// `*` is the payload; where messages are but counted it need not be JSON.
fn argument(of: Option<&Expr>, counts: bool, scope: Scope<'_, '_, '_>) -> Result<Value<'static>, EvalError> {
    let value = match of {
        None if counts => return Ok(Value::Bool(true)),
        None => Held::Lent(scope.message.whole()?),
        Some(expr) => evaluate(expr, scope)?,
    };
    scope.message.charge(value.weight())?;
    Ok(value.into_value().into_owned())
}
