//! A rule: its text compiled once, asked for every message.

use drover_types::TopicFilter;

use crate::ast::{Expr, Statement};
use crate::error::{EvalError, SqlError};
use crate::evaluate::{self, Message, Row, Scope};
use crate::parser::parse;
use crate::value::Value;

/// Compiles rules.
pub struct Rule;

/// A statement ready to be asked. Cheap to ask, safe to share.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledRule {
    statement: Statement,
}

/// What a rule says to a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'m> {
    Row(Row<'m>),
    /// The condition is not true.
    NoMatch,
    /// The rule has no answer to this message.
    Error(EvalError),
}

impl Rule {
    /// Compiles a statement of at most 64 KiB; the error names line, column, what was expected and what was found.
    pub fn compile(sql: &str) -> Result<CompiledRule, SqlError> {
        Ok(CompiledRule { statement: parse(sql)? })
    }
}

impl CompiledRule {
    /// The filter behind FROM; whoever asks has matched it already.
    pub fn filter(&self) -> &TopicFilter {
        &self.statement.from
    }

    /// The statement as it was understood.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Condition first, then the row.
    pub fn evaluate<'m>(&'m self, message: &'m Message<'_>) -> Outcome<'m> {
        match self.matches(message) {
            Ok(true) => evaluate::row(&self.statement.select, message).map_or_else(Outcome::Error, Outcome::Row),
            Ok(false) => Outcome::NoMatch,
            Err(error) => Outcome::Error(error),
        }
    }

    fn matches(&self, message: &Message<'_>) -> Result<bool, EvalError> {
        let holds = |condition: &Expr| {
            let scope = Scope { message, row: None };
            evaluate::evaluate(condition, scope).map(|value| *value == Value::Bool(true))
        };
        self.statement.condition.as_ref().map_or(Ok(true), holds)
    }
}
