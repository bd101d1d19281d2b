//! A rule: its text compiled once, asked for every message.

use drover_types::{TopicFilter, matches};
use sha2::{Digest, Sha256};

use crate::asked::Asked;
use crate::ast::Statement;
use crate::error::{EvalError, SqlError};
use crate::evaluate::{self, Scope};
use crate::explain::{self, Unmet};
use crate::message::{Message, rule_named_by};
use crate::parser::{parse, parse_open};
use crate::row::{Row, Shape};
use crate::user_function::UserFunction;
use crate::value::Value;
use crate::window::Plan;

/// Bytes of a statement's digest.
const DIGEST_BYTES: usize = 8;

/// Compiles rules.
pub struct Rule;

/// A statement ready to be asked. Cheap to ask, safe to share.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledRule {
    statement: Statement,
    user_functions: Vec<UserFunction>,
    /// What it does with many messages, if it groups them.
    plan: Option<Plan>,
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
        Ok(Self::of(parse(sql)?, Vec::new()))
    }

    /// The same of a statement that may call functions the language does not have.
    pub fn compile_open(sql: &str) -> Result<CompiledRule, SqlError> {
        let (statement, user_functions) = parse_open(sql)?;
        Ok(Self::of(statement, user_functions))
    }

    fn of(statement: Statement, user_functions: Vec<UserFunction>) -> CompiledRule {
        let plan = statement.grouping.as_ref().map(|grouping| Plan::of(&statement, grouping));
        CompiledRule { statement, user_functions, plan }
    }
}

impl CompiledRule {
    /// The filters behind FROM; whoever asks has matched one already. None for a rule that Basic Ingest alone calls.
    pub fn filters(&self) -> &[TopicFilter] {
        &self.statement.from
    }

    /// Whether the message is for it: by a filter, or whatever FROM says, by a topic of Basic Ingest, which is taken to
    /// name this rule.
    pub fn listens_to(&self, message: &Message<'_>) -> bool {
        let by_filter = || self.filters().iter().any(|filter| matches(filter.as_str(), message.topic));
        rule_named_by(message.topic).is_some() || by_filter()
    }

    /// The functions it calls that the language does not have.
    pub fn user_functions(&self) -> &[UserFunction] {
        &self.user_functions
    }

    /// The statement as it was understood.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// What is looked up for it besides its messages.
    pub fn asked(&self) -> Asked {
        Asked::by(&self.statement)
    }

    /// How it groups messages; `None` for a rule that looks at each by itself.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// 16 hexadecimal digits that stand for what the statement says: another statement has others.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.statement.to_string());
        drover_types::hex(&digest[..DIGEST_BYTES])
    }

    /// Variables first, then the condition, then the row. A rule that groups has no answer to one message.
    pub fn evaluate<'m>(&'m self, message: &'m Message<'_>) -> Outcome<'m> {
        if self.plan.is_some() { Outcome::Error(EvalError::Grouped) } else { self.row_of(message) }
    }

    /// The row of a rule that groups: of the message that turned its pattern, or of a closed window's payload
    /// ([`Plan::payload`]) as one.
    pub fn grouped_row<'m>(&'m self, message: &'m Message<'_>) -> Outcome<'m> {
        match &self.plan {
            Some(plan) if !plan.is_pattern() => {
                message.begin();
                let shape = evaluate::shape(&plan.select, Scope::new(message, &[]));
                match shape.and_then(Shape::defined) {
                    Ok(shape) => Outcome::Row(Row { shape, variables: Vec::new() }),
                    Err(error) => Outcome::Error(error),
                }
            }
            Some(_) | None => self.row_of(message),
        }
    }

    fn row_of<'m>(&'m self, message: &'m Message<'_>) -> Outcome<'m> {
        message.begin();
        match self.row(message) {
            Ok(Some(row)) => Outcome::Row(row),
            Ok(None) => Outcome::NoMatch,
            Err(error) => Outcome::Error(error),
        }
    }

    /// Why the condition is not true: the parts of it that are not, with their values. Empty if it is true.
    pub fn explain(&self, message: &Message<'_>) -> Result<Vec<Unmet>, EvalError> {
        message.begin();
        let variables = evaluate::variables(&self.statement, message)?;
        let condition = self.statement.condition.as_ref();
        condition.map_or(Ok(Vec::new()), |condition| explain::unmet(condition, Scope::new(message, &variables)))
    }

    fn row<'m>(&'m self, message: &'m Message<'_>) -> Result<Option<Row<'m>>, EvalError> {
        let variables = evaluate::variables(&self.statement, message)?;
        let scope = Scope::new(message, &variables);
        if let Some(condition) = &self.statement.condition
            && *evaluate::evaluate(condition, scope)? != Value::Bool(true)
        {
            return Ok(None);
        }
        let shape = evaluate::shape(&self.statement.select, scope)?.defined()?;
        Ok(Some(Row { shape, variables }))
    }
}
