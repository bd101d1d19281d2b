//! The language as a tree. Made by the parser only, so a tree is always within the depth limit.

use drover_types::TopicFilter;

use crate::function::{Cast, Function};
use crate::pattern::Pattern;
use crate::value::Value;

/// `[SET variables] SELECT select FROM 'from', … [WHERE condition]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// In the order they are set; each sees those before it.
    pub variables: Vec<(String, Expr)>,
    pub select: Select,
    /// Any of them may match. Empty (`FROM ''`): messages by Basic Ingest only.
    pub from: Vec<TopicFilter>,
    pub condition: Option<Expr>,
}

/// What a row is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// `*` alone: the payload, or the element of a nested query, as it is.
    Payload,
    /// An object of these; a later item replaces an earlier one of its name.
    Items(Vec<Item>),
    /// `VALUE expr`: the value itself.
    Value(Expr),
}

/// One entry of the list behind SELECT.
#[expect(clippy::large_enum_variant, reason = "nearly every item has a name, and there are few")]
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `*`: every member of the payload.
    Star,
    /// `expr AS name`, or a field under its own last name.
    Named { expr: Expr, name: String },
}

/// `(SELECT select FROM from [AS alias] [WHERE condition])`: asked of each element of an array, or of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub select: Select,
    pub from: Expr,
    pub alias: Option<String>,
    pub condition: Option<Expr>,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Literal(Value<'static>),
    /// `*` as an argument: the whole payload, or the element of a nested query.
    Star,
    /// A member of the payload, or of the element of a nested query, or that element by its alias.
    Field(String),
    /// `@name`.
    Variable(String),
    /// `of.name`.
    Member {
        of: Box<Expr>,
        name: String,
    },
    /// `[a, b]`.
    Array(Vec<Expr>),
    /// `{'k': a}`.
    Object(Vec<(String, Expr)>),
    Unary {
        operator: UnaryOperator,
        operand: Box<Expr>,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `CASE of WHEN … THEN … ELSE otherwise END`; without `of` the first condition that is true.
    Case {
        of: Option<Box<Expr>>,
        arms: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Query(Box<Query>),
    /// `EXISTS (SELECT …)`.
    Exists(Box<Query>),
    /// `cast(operand AS to)`.
    Cast {
        operand: Box<Expr>,
        to: Cast,
    },
    Call {
        function: &'static Function,
        arguments: Vec<Expr>,
        /// The regular expression among the arguments, if it is a literal.
        pattern: Option<Pattern>,
    },
    /// A call of a function that the language does not have, by its name in SQL.
    UserCall {
        function: String,
        arguments: Vec<Expr>,
    },
}

/// Operators before their operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOperator {
    Not,
    Negate,
}

/// Operators between two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl BinaryOperator {
    /// How strongly comparisons bind; `NOT IN` is one of them.
    pub(crate) const COMPARISON: u8 = 4;

    /// Its spellings (the first is the one printed) and how strongly it binds; each level binds left to right.
    pub(crate) const TABLE: [(BinaryOperator, &'static [&'static str], u8); 14] = [
        (BinaryOperator::Or, &["OR"], 1),
        (BinaryOperator::And, &["AND"], 2),
        (BinaryOperator::Equal, &["="], Self::COMPARISON),
        (BinaryOperator::NotEqual, &["<>", "!="], Self::COMPARISON),
        (BinaryOperator::Less, &["<"], Self::COMPARISON),
        (BinaryOperator::LessOrEqual, &["<="], Self::COMPARISON),
        (BinaryOperator::Greater, &[">"], Self::COMPARISON),
        (BinaryOperator::GreaterOrEqual, &[">="], Self::COMPARISON),
        (BinaryOperator::In, &["IN"], Self::COMPARISON),
        (BinaryOperator::Add, &["+"], 5),
        (BinaryOperator::Subtract, &["-"], 5),
        (BinaryOperator::Multiply, &["*"], 6),
        (BinaryOperator::Divide, &["/"], 6),
        (BinaryOperator::Remainder, &["%"], 6),
    ];
}

impl UnaryOperator {
    /// Its spelling and how strongly it binds.
    pub(crate) const TABLE: [(UnaryOperator, &'static str, u8); 2] =
        [(UnaryOperator::Not, "NOT", 3), (UnaryOperator::Negate, "-", 7)];
}

impl Expr {
    /// The last name of a field or member, the name of a variable; other expressions have none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Expr::Field(name) | Expr::Variable(name) | Expr::Member { name, .. } => Some(name),
            Expr::Literal(_)
            | Expr::Star
            | Expr::Array(_)
            | Expr::Object(_)
            | Expr::Unary { .. }
            | Expr::Binary { .. }
            | Expr::Case { .. }
            | Expr::Query(_)
            | Expr::Exists(_)
            | Expr::Cast { .. }
            | Expr::Call { .. }
            | Expr::UserCall { .. } => None,
        }
    }
}
