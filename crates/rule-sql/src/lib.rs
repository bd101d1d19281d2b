//! The rule language: `SELECT … FROM 'filter' WHERE …` over one message, and `${…}` templates of action fields.
//!
//! A library without I/O: text in, [`CompiledRule`] out; message in, [`Outcome`] out. The language is a subset of the
//! AWS IoT SQL reference (version 2016-03-23) and grows by rows: a function is one row of [`function`]'s table, an
//! operator one row of the parser's. What cannot be computed is `Undefined`, never a panic; only what makes the whole
//! row meaningless is an error.

mod ast;
mod decimal;
mod error;
mod evaluate;
mod function;
mod json;
mod lexer;
mod number;
mod parser;
mod print;
mod rule;
mod template;
mod value;

pub use ast::{BinaryOperator, Expr, Item, Select, Statement, UnaryOperator};
pub use decimal::Decimal;
pub use error::{EvalError, Place, Problem, SqlError};
pub use evaluate::{Message, Row};
pub use function::Function;
pub use json::{DEPTH_MAX, JsonError, read as read_json};
pub use number::Number;
pub use parser::{EXPRESSION_DEPTH_MAX, parse};
pub use rule::{CompiledRule, Outcome, Rule};
pub use template::Template;
pub use value::{Held, Value};
