//! Why a message did not meet a condition: the part that was not true, and the values it looked at.

use crate::ast::{BinaryOperator, Expr, UnaryOperator};
use crate::error::EvalError;
use crate::evaluate::{Scope, evaluate};
use crate::value::Value;

/// Most values that are told of one part.
const INPUTS_MAX: usize = 16;

/// A part of a condition that is not true. Parts are what AND joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// As SQL.
    pub condition: String,
    /// `false`, `undefined`, or the value that is no truth value.
    pub value: String,
    /// The fields, variables and calls in it, each with its value.
    pub inputs: Vec<(String, String)>,
}

/// The parts of `condition` that are not true.
pub(crate) fn unmet(condition: &Expr, scope: Scope<'_, '_, '_>) -> Result<Vec<Unmet>, EvalError> {
    let mut parts = Vec::new();
    visit(condition, false, scope, &mut parts)?;
    Ok(parts)
}

/// `joined`: AND stands above, for which the text `true` is true as well.
fn visit(condition: &Expr, joined: bool, scope: Scope<'_, '_, '_>, parts: &mut Vec<Unmet>) -> Result<(), EvalError> {
    if let Expr::Binary { operator: BinaryOperator::And, left, right } = condition {
        visit(left, true, scope, parts)?;
        return visit(right, true, scope, parts);
    }
    let value = evaluate(condition, scope)?;
    if *value != Value::Bool(true) && !(joined && value.to_bool() == Some(true)) {
        parts.push(part(condition, &value, scope)?);
    }
    Ok(())
}

fn part(condition: &Expr, value: &Value<'_>, scope: Scope<'_, '_, '_>) -> Result<Unmet, EvalError> {
    let mut inputs = Vec::new();
    collect(condition, scope, &mut inputs)?;
    Ok(Unmet { condition: condition.to_string(), value: told(value), inputs })
}

fn told(value: &Value<'_>) -> String {
    if *value == Value::Undefined { "undefined".to_owned() } else { value.to_string() }
}

/// What an expression looks at: names and calls, not the operators above them.
fn collect(expr: &Expr, scope: Scope<'_, '_, '_>, inputs: &mut Vec<(String, String)>) -> Result<(), EvalError> {
    match expr {
        Expr::Literal(_) => Ok(()),
        Expr::Unary { operator: UnaryOperator::Not | UnaryOperator::Negate, operand } => {
            collect(operand, scope, inputs)
        }
        Expr::Binary { left, right, .. } => {
            collect(left, scope, inputs)?;
            collect(right, scope, inputs)
        }
        Expr::Star
        | Expr::Field(_)
        | Expr::Variable(_)
        | Expr::Member { .. }
        | Expr::Array(_)
        | Expr::Object(_)
        | Expr::Case { .. }
        | Expr::Query(_)
        | Expr::Exists(_)
        | Expr::Cast { .. }
        | Expr::Call { .. }
        | Expr::UserCall { .. }
        | Expr::Aggregate(_)
        | Expr::Bound(_) => {
            let name = expr.to_string();
            if inputs.len() < INPUTS_MAX && !inputs.iter().any(|(known, _)| *known == name) {
                inputs.push((name, told(&*evaluate(expr, scope)?)));
            }
            Ok(())
        }
    }
}
