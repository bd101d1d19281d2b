//! What can be wrong with a rule's text, and with one message under a good rule.

use std::fmt;

use drover_types::limits::SQL_BYTES_MAX;
use drover_types::{ApiError, InvalidTopic};

use crate::json::JsonError;
use crate::parser::{
    EXPRESSION_DEPTH_MAX, FILTERS_MAX, KEYS_MAX, PANES_MAX, SPAN_MS_MAX, VARIABLE_CHARS_MAX, VARIABLES_MAX,
};

/// A place in a text; both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// Why a text is not a rule or a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SqlError {
    pub place: Place,
    pub problem: Problem,
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("expected {expected}, found {found}")]
    Expected { expected: &'static str, found: String },
    #[error("{found:?} has no meaning here")]
    Character { found: char },
    #[error("text has no closing {quote}")]
    Unclosed { quote: char },
    #[error("number {number} is out of range")]
    Number { number: String },
    #[error("unknown function {name}")]
    UnknownFunction { name: String },
    #[error("function {name} asks a service of another cloud, which is not there: {instead}")]
    Elsewhere { name: &'static str, instead: &'static str },
    #[error("function {name} takes {least} to {most} arguments, found {found}")]
    Arguments { name: &'static str, least: usize, most: usize, found: usize },
    #[error("this expression needs a name: add AS name")]
    NoName,
    #[error("FROM {filter:?}: {reason}")]
    Filter { filter: String, reason: InvalidTopic },
    #[error("FROM {filter:?}: a rule cannot share a subscription")]
    SharedFilter { filter: String },
    #[error("FROM names {found} filters, limit is {FILTERS_MAX}")]
    TooManyFilters { found: usize },
    #[error("FROM '' stands alone: it means messages by Basic Ingest only")]
    EmptyFilter,
    #[error("variable @{name} is not set before it is used")]
    UnknownVariable { name: String },
    #[error("variable @{name} is set twice")]
    VariableTwice { name: String },
    #[error("variable name has {chars} characters, expected 1 to {VARIABLE_CHARS_MAX}")]
    VariableName { chars: usize },
    #[error("SET makes {found} variables, limit is {VARIABLES_MAX}")]
    TooManyVariables { found: usize },
    #[error("{name} is no type to cast to, expected one of {expected}")]
    UnknownType { name: String, expected: &'static str },
    #[error("{name} is made of many messages: it stands in SELECT, with GROUP BY and a window")]
    NeedsWindow { name: &'static str },
    #[error("SELECT {expression} is of a single message: put it into GROUP BY, or into an aggregate as last(…)")]
    Ungrouped { expression: String },
    #[error("{expression} is not selected, and a row of many messages has nothing else")]
    NotSelected { expression: String },
    #[error("GROUP BY needs device(): messages of one device only are in one place")]
    NoDevice,
    #[error("GROUP BY has {found} keys, limit is {KEYS_MAX}")]
    TooManyKeys { found: usize },
    #[error("span is {found} ms, expected 1 to {SPAN_MS_MAX}")]
    Span { found: u64 },
    #[error("a window of {size_ms} ms is not 1 to {PANES_MAX} hops of {hop_ms} ms")]
    Hop { size_ms: u64, hop_ms: u64 },
    #[error("{name} takes a number from {least} to {most}, found {found}")]
    AggregateNumber { name: &'static str, least: u64, most: u64, found: String },
    #[error("HYSTERESIS needs a comparison by <, <=, > or >=")]
    Hysteresis,
    #[error("schema: {reason}")]
    Schema { reason: String },
    #[error("expression is nested too deep, limit is {EXPRESSION_DEPTH_MAX}")]
    TooDeep,
    #[error("text has {bytes} bytes, limit is {SQL_BYTES_MAX}")]
    TooLong { bytes: usize },
}

/// Why a rule has no answer for a message. The rule itself is sound; the next message may do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("payload is not JSON: {0}")]
    Payload(#[from] JsonError),
    #[error("value is not {format} by its schema: {reason}")]
    Format { format: &'static str, reason: String },
    #[error("SELECT * with further items needs a JSON object as payload")]
    NotAnObject,
    #[error("SELECT VALUE of an undefined value")]
    UndefinedValue,
    #[error("text grows to {bytes} bytes, limit is {limit}")]
    TextTooLong { bytes: usize, limit: usize },
    #[error("the rule makes more than {limit} bytes of this message")]
    GrowsTooMuch { limit: usize },
    #[error("variable @{name} is nested too deep, limit is {limit}")]
    VariableTooDeep { name: String, limit: usize },
    #[error("{function}: {reason}")]
    Lookup { function: &'static str, reason: String },
    #[error("{function}: {reason}")]
    Function { function: String, reason: String },
    #[error("the rule calls functions more than {limit} times for this message")]
    TooManyCalls { limit: usize },
    #[error("${{{expression}}} is undefined for this message")]
    UndefinedTemplate { expression: String },
    #[error("the rule groups messages: one message alone has no answer")]
    Grouped,
    #[error("message has no device to be grouped by")]
    NoDevice,
    #[error("keys of the group have {bytes} bytes, limit is {limit}")]
    KeysTooLong { bytes: usize, limit: usize },
    #[error("event time {value} is no number of milliseconds since the Unix epoch")]
    EventTime { value: String },
    #[error("event time is {by_ms} ms ahead of the clock, limit is {limit_ms}")]
    EventAhead { by_ms: u64, limit_ms: u64 },
    #[error("a value of the group is out of range")]
    OutOfRange,
    #[error("the group's state has {bytes} bytes, limit is {limit}")]
    GroupTooLarge { bytes: usize, limit: usize },
    #[error("there is no room for another group, limit is {limit}")]
    TooManyGroups { limit: usize },
    #[error("there is no room for more state, limit is {limit} bytes")]
    TooMuchState { limit: usize },
    #[error("state of the group cannot be read: {reason}")]
    State { reason: String },
    /// A later version of the platform has written it, and will read it again.
    #[error("state of the group cannot be read: its version is {version}")]
    NewerState { version: u32 },
}

impl Place {
    /// Line and column of the byte `offset` of `text`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl SqlError {
    pub(crate) fn at(text: &str, offset: usize, problem: Problem) -> Self {
        Self { place: Place::of(text, offset), problem }
    }

    /// The error as the API tells it, about the field that holds the text.
    pub fn in_field(&self, field: impl Into<String>) -> ApiError {
        let error = ApiError::invalid(field, self.to_string());
        match &self.problem {
            Problem::TooLong { bytes } => error.over(SQL_BYTES_MAX, bytes),
            Problem::TooDeep => error.over(EXPRESSION_DEPTH_MAX, "more"),
            Problem::TooManyFilters { found } => error.over(FILTERS_MAX, found),
            Problem::TooManyVariables { found } => error.over(VARIABLES_MAX, found),
            Problem::VariableName { chars } => error.over(VARIABLE_CHARS_MAX, chars),
            Problem::TooManyKeys { found } => error.over(KEYS_MAX, found),
            Problem::Span { found } => error.over(SPAN_MS_MAX, found),
            Problem::AggregateNumber { most, found, .. } => error.over(most, found),
            Problem::Expected { .. }
            | Problem::Character { .. }
            | Problem::Unclosed { .. }
            | Problem::Number { .. }
            | Problem::UnknownFunction { .. }
            | Problem::Elsewhere { .. }
            | Problem::EmptyFilter
            | Problem::UnknownVariable { .. }
            | Problem::VariableTwice { .. }
            | Problem::UnknownType { .. }
            | Problem::Arguments { .. }
            | Problem::NoName
            | Problem::NeedsWindow { .. }
            | Problem::Ungrouped { .. }
            | Problem::NotSelected { .. }
            | Problem::NoDevice
            | Problem::Hop { .. }
            | Problem::Hysteresis
            | Problem::Schema { .. }
            | Problem::Filter { .. }
            | Problem::SharedFilter { .. } => error,
        }
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        error.in_field("spec.sql")
    }
}
