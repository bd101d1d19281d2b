//! Turns of single messages, in the order of the log: a value that changes, a condition that becomes true or ceases.
//!
//! What cannot be computed of a message is no turn, and leaves everything as it is.

use super::state::Group;
use crate::ast::{BinaryOperator, Edge, Expr};
use crate::error::EvalError;
use crate::evaluate::{Scope, evaluate};
use crate::json;
use crate::number::Number;
use crate::value::Value;

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

    /// Whether the message makes a row. The first value counts as a change, and a condition that is true at first as one
    /// that became true.
    pub fn take(&self, group: &mut Group, turn: &Turn) -> Result<bool, EvalError> {
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
