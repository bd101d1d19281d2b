//! The rule language: `SELECT … FROM 'filter' WHERE …` over one message, and `${…}` templates of action fields.
//!
//! A library without I/O: text in, [`CompiledRule`] out; message in, [`Outcome`] out. The language is that of the AWS
//! IoT SQL reference (version 2016-03-23), and `FROM` may name several filters; `docs/rule-sql.md` says what is decided
//! where the reference is silent. It grows by rows: a function is one row of [`function`]'s table, an operator one row
//! of the syntax tree's. Rules over many messages (`GROUP BY device(), TUMBLING(1m)`) keep their state in [`Groups`].
//! What cannot be computed is `Undefined`, never a panic; only what makes the whole row
//! meaningless is an error.

mod asked;
mod ast;
mod context;
mod decimal;
mod declared;
mod duration;
mod error;
mod evaluate;
mod explain;
mod format;
mod function;
mod json;
mod lexer;
pub mod line;
mod message;
mod nested;
mod number;
mod operator;
mod parser;
mod pattern;
mod print;
mod row;
mod rule;
mod template;
mod time;
mod user_function;
mod value;
mod window;

pub use asked::Asked;
pub use ast::{
    Aggregate, AggregateKind, BinaryOperator, Bound, Edge, Expr, Grouping, Item, Late, Per, Prepared, Query, Select,
    Statement, UnaryOperator,
};
pub use context::Context;
pub use decimal::Decimal;
pub use declared::check;
pub use error::{EvalError, Place, Problem, SqlError};
pub use explain::Unmet;
pub use function::{Cast, Function, is_built_in};
pub use json::{DEPTH_MAX, JsonError, read as read_json};
pub use message::{GROWTH_BYTES_MAX, LookupError, Lookups, Message, Origin, PayloadFormat, Properties, rule_named_by};
pub use number::Number;
pub use parser::{
    COLLECT_MAX, EXPRESSION_DEPTH_MAX, FILTERS_MAX, KEYS_MAX, PANES_MAX, SPAN_MS_MAX, VARIABLES_MAX, parse,
};
pub use pattern::Pattern;
pub use row::Row;
pub use rule::{CompiledRule, Outcome, Rule};
pub use template::Template;
pub use user_function::{USER_CALLS_MAX, UserFunction, UserFunctions};
pub use value::{Held, Value};
pub use window::{
    Closed, Due, EVENT_AHEAD_MS_MAX, GROUP_BYTES_MAX, GROUP_KEY_BYTES_MAX, Groups, IDLE_MS, PATTERN_KEPT_MS, Plan,
    Room, STATE_VERSION, Taken,
};
