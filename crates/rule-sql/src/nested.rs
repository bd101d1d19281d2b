//! Queries within an expression: over the elements of an array, or over one object.
//!
//! Names are members of the element. With `AS x` the element itself is `x`, and names that the element does not have
//! are looked up outside: in the enclosing query, then in the payload.

use crate::ast::Query;
use crate::error::EvalError;
use crate::evaluate::{Scope, evaluate, shape};
use crate::row::Shape;
use crate::value::{Held, Value};

/// What one element costs, in bytes of what an evaluation may make: bounds the steps of queries within queries.
const STEP_BYTES: usize = 16;

/// The element that a query is at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'m> {
    alias: Option<&'m str>,
    pub element: &'m Value<'m>,
    outer: Option<&'m Frame<'m>>,
}

impl<'m> Frame<'m> {
    /// What a name means here, this query's own names first.
    pub fn find(&self, name: &str) -> Option<&'m Value<'m>> {
        if self.alias == Some(name) {
            return Some(self.element);
        }
        match self.element.member(name) {
            Some(value) => Some(value),
            None => self.outer.filter(|_| self.alias.is_some()).and_then(|outer| outer.find(name)),
        }
    }

    /// Whether a name that is not found here may be one of the payload.
    pub fn sees_outside(&self) -> bool {
        self.alias.is_some() && self.outer.is_none_or(Frame::sees_outside)
    }
}

/// The results: an array for an array; for an object its one result. Undefined results are left out; a query over
/// anything else is undefined.
pub(crate) fn results(query: &Query, scope: Scope<'_, '_, '_>) -> Result<Value<'static>, EvalError> {
    let source = evaluate(&query.from, scope)?;
    match &*source {
        Value::Array(elements) => {
            let mut results = Vec::new();
            for element in elements {
                let result = result(query, element, scope)?;
                results.extend(result.filter(|result| *result != Value::Undefined));
            }
            Ok(Value::Array(results))
        }
        object @ Value::Object(_) => Ok(result(query, object, scope)?.unwrap_or(Value::Undefined)),
        Value::Undefined | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => Ok(Value::Undefined),
    }
}

/// Whether there is any result.
pub(crate) fn exists(query: &Query, scope: Scope<'_, '_, '_>) -> Result<bool, EvalError> {
    Ok(match results(query, scope)? {
        Value::Array(results) => !results.is_empty(),
        Value::Undefined => false,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Object(_) => true,
    })
}

/// The result for one element, if the condition is true for it.
fn result(query: &Query, element: &Value<'_>, scope: Scope<'_, '_, '_>) -> Result<Option<Value<'static>>, EvalError> {
    scope.message.charge(STEP_BYTES)?;
    let frame = Frame { alias: query.alias.as_deref(), element, outer: scope.frame };
    let scope = Scope { frame: Some(&frame), ..scope };
    if let Some(condition) = &query.condition
        && *evaluate(condition, scope)? != Value::Bool(true)
    {
        return Ok(None);
    }
    let value = match shape(&query.select, scope)? {
        Shape::Payload(_) => Value::Undefined,
        Shape::Value(value) => {
            scope.message.charge(value.weight())?;
            value.into_value().into_owned()
        }
        Shape::Object(members) => {
            let defined = members.into_iter().filter(|(_, value)| **value != Value::Undefined);
            Value::Object(defined.map(owned).collect())
        }
    };
    Ok(Some(value))
}

fn owned((name, value): (&str, Held<'_>)) -> (std::borrow::Cow<'static, str>, Value<'static>) {
    (name.to_owned().into(), value.into_value().into_owned())
}
