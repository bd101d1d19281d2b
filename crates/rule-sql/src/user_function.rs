//! Functions that the language does not have: whoever evaluates calls them, JSON in and JSON out.

use crate::ast::Expr;
use crate::error::{EvalError, SqlError};
use crate::evaluate::{Answer, Scope, evaluate, undefined};
use crate::json;
use crate::message::LookupError;
use crate::value::{Held, Value};

/// Most calls of such functions in one evaluation: each may take all the time that a function has.
pub const USER_CALLS_MAX: usize = 16;

/// Calls functions by the names of their objects.
pub trait UserFunctions {
    /// The result of a call as JSON; `None` if it has none, which is an undefined value.
    fn call(&self, function: &str, arguments: &[String]) -> Result<Option<String>, LookupError>;
}

/// A function that a statement calls and the language does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct UserFunction {
    /// Of its object: in lower case, with `-` for each `_` of its name in SQL.
    pub name: String,
    /// What is wrong with the statement if there is no such function.
    pub unknown: SqlError,
}

impl UserFunction {
    /// The name of the object that SQL calls by `word`.
    pub(crate) fn name_of(word: &str) -> String {
        word.to_ascii_lowercase().replace('_', "-")
    }
}

/// Calls a function. An argument that is undefined makes the result so, without a call.
pub(crate) fn call<'m>(function: &str, arguments: &'m [Expr], scope: Scope<'_, 'm, '_>) -> Answer<'m> {
    let failed = |reason: String| EvalError::Function { function: function.to_owned(), reason };
    let message = scope.message;
    let mut inputs = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let value = evaluate(argument, scope)?;
        if *value == Value::Undefined {
            return undefined();
        }
        message.charge(value.weight())?;
        inputs.push(value.to_string());
    }
    message.count_call()?;
    let functions = message.origin.functions.ok_or_else(|| failed("cannot be called here".to_owned()))?;
    let answered = functions.call(&UserFunction::name_of(function), &inputs);
    let Some(out) = answered.map_err(|error| failed(error.reason))? else { return undefined() };
    let value = json::read(out.as_bytes()).map_err(|error| failed(format!("result: {error}")))?;
    message.charge(value.weight())?;
    Ok(Held::Made(value.into_owned()))
}
