//! The language as a tree. Made by the parser only, so a tree is always within the depth limit.

use drover_types::TopicFilter;

use crate::function::Function;
use crate::value::Value;

/// `SELECT select FROM 'from' [WHERE condition]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub select: Select,
    pub from: TopicFilter,
    pub condition: Option<Expr>,
}

/// What a row is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Select {
    /// `*` alone: the payload as it is.
    Payload,
    /// An object of these; a later item replaces an earlier one of its name.
    Items(Vec<Item>),
    /// `VALUE expr`: the value itself.
    Value(Expr),
}

/// One entry of the list behind SELECT.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `*`: every member of the payload.
    Star,
    /// `expr AS name`, or a field under its own last name.
    Named { expr: Expr, name: String },
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    Literal(Value<'static>),
    /// A member of the payload.
    Field(String),
    /// `of.name`.
    Member {
        of: Box<Expr>,
        name: String,
    },
    Unary {
        operator: UnaryOperator,
        operand: Box<Expr>,
    },
    Binary {
        operator: BinaryOperator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Call {
        function: &'static Function,
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
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl BinaryOperator {
    /// Its spellings (the first is the one printed) and how strongly it binds; each level binds left to right.
    pub(crate) const TABLE: [(BinaryOperator, &'static [&'static str], u8); 13] = [
        (BinaryOperator::Or, &["OR"], 1),
        (BinaryOperator::And, &["AND"], 2),
        (BinaryOperator::Equal, &["="], 4),
        (BinaryOperator::NotEqual, &["<>", "!="], 4),
        (BinaryOperator::Less, &["<"], 4),
        (BinaryOperator::LessOrEqual, &["<="], 4),
        (BinaryOperator::Greater, &[">"], 4),
        (BinaryOperator::GreaterOrEqual, &[">="], 4),
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
    /// The last name of a field or member; other expressions have none.
    pub fn name(&self) -> Option<&str> {
        match self {
            Expr::Field(name) | Expr::Member { name, .. } => Some(name),
            Expr::Literal(_) | Expr::Unary { .. } | Expr::Binary { .. } | Expr::Call { .. } => None,
        }
    }
}
