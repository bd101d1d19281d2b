//! Turns of single messages, in the order of the log: a value that changes, a condition that becomes true or ceases.
//!
//! What cannot be computed of a message is no turn, and leaves everything as it is. What a pattern knows of a group is
//! forgotten when that was not heard of for [`PATTERN_KEPT_MS`], by the times at which the rule's messages come.

use super::state::Group;
use crate::ast::{BinaryOperator, Edge, Expr};
use crate::error::EvalError;
use crate::evaluate::{Scope, evaluate};
use crate::json;
use crate::number::Number;
use crate::parser::SPAN_MS_MAX;
use crate::value::Value;

/// How long a pattern remembers a group that is not heard of, in milliseconds; as long as the longest window. After it
/// the first value counts as a change again, and a condition as one that was not true.
pub const PATTERN_KEPT_MS: u64 = SPAN_MS_MAX;
/// How exactly it is known when a group was heard of, in milliseconds: it is kept up to this much longer, and is written
/// for this at most once in it.
pub(crate) const HEARD_STEP_MS: u64 = 24 * 3_600_000;

/// What is looked for.
#[expect(clippy::large_enum_variant, reason = "a rule has one, and keeps it as long as it lives")]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    Changed(Expr),
    Edge {
        edge: Edge,
        /// Becomes true when this does.
        on: Expr,
        /// Stays true as long as this is.
        still: Expr,
    },
}

/// What a pattern sees in one message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// Of CHANGED, as JSON.
    value: Option<String>,
    /// Of an edge: whether its condition is true, and whether it is as far as it was.
    on: Option<bool>,
    still: Option<bool>,
}

impl Pattern {
    /// With hysteresis a condition that is true stays so until the value is past the bound by more than that.
    pub fn edge(edge: Edge, condition: &Expr, hysteresis: Option<Number>) -> Self {
        let still = match (condition, hysteresis) {
            (Expr::Binary { operator, left, right }, Some(by)) => {
                let away = match operator {
                    BinaryOperator::Less | BinaryOperator::LessOrEqual => BinaryOperator::Add,
                    BinaryOperator::Or
                    | BinaryOperator::And
                    | BinaryOperator::Equal
                    | BinaryOperator::NotEqual
                    | BinaryOperator::Greater
                    | BinaryOperator::GreaterOrEqual
                    | BinaryOperator::In
                    | BinaryOperator::Add
                    | BinaryOperator::Subtract
                    | BinaryOperator::Multiply
                    | BinaryOperator::Divide
                    | BinaryOperator::Remainder => BinaryOperator::Subtract,
                };
                let by = Box::new(Expr::Literal(Value::Number(by)));
                let bound = Expr::Binary { operator: away, left: right.clone(), right: by };
                Expr::Binary { operator: *operator, left: left.clone(), right: Box::new(bound) }
            }
            (condition, _) => condition.clone(),
        };
        Pattern::Edge { edge, on: condition.clone(), still }
    }

    /// What it sees in a message.
    pub fn turn(&self, scope: Scope<'_, '_, '_>) -> Result<Turn, EvalError> {
        Ok(match self {
            Pattern::Changed(of) => {
                let value = evaluate(of, scope)?;
                let value = Some(value).filter(|value| **value != Value::Undefined).map(|value| value.to_string());
                Turn { value, ..Turn::default() }
            }
            Pattern::Edge { on, still, .. } => {
                let (on, still) = (evaluate(on, scope)?.to_bool(), evaluate(still, scope)?.to_bool());
                Turn { on, still, ..Turn::default() }
            }
        })
    }

    /// When the group is forgotten, milliseconds since the Unix epoch.
    pub fn deadline(group: &Group) -> Option<u64> {
        (group.heard_ms > 0).then(|| group.heard_ms.saturating_add(HEARD_STEP_MS + PATTERN_KEPT_MS))
    }

    /// Forgets what is known of a group, if its time has come.
    pub fn forget(group: &mut Group, now_ms: u64) {
        if Self::deadline(group).is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            *group = Group::default();
        }
    }

    /// Whether a message that comes at `now_ms` makes a row. The first value counts as a change, and a condition that is
    /// true at first as one that became true.
    pub fn take(&self, group: &mut Group, turn: &Turn, now_ms: u64) -> Result<bool, EvalError> {
        group.heard_ms = now_ms - now_ms % HEARD_STEP_MS;
        match self {
            Pattern::Changed(_) => {
                let Some(value) = &turn.value else { return Ok(false) };
                let same = match &group.value {
                    Some(known) => {
                        let (known, value) = (json::read(known.as_bytes())?, json::read(value.as_bytes())?);
                        known.equals(&value) == Some(true)
                    }
                    None => false,
                };
                group.value = Some(value.clone());
                Ok(!same)
            }
            Pattern::Edge { edge, .. } => {
                let was = group.high;
                let Some(is) = (if was { turn.still } else { turn.on }) else { return Ok(false) };
                group.high = is;
                Ok(match edge {
                    Edge::Rising => is && !was,
                    Edge::Falling => was && !is,
                })
            }
        }
    }
}
