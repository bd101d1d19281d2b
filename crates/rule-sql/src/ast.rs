//! The language as a tree. Made by the parser only, so a tree is always within the depth limit.

use drover_types::TopicFilter;

use crate::format::Format;
use crate::function::{Cast, Function};
use crate::number::Number;
use crate::pattern::Pattern;
use crate::value::Value;

/// `[SET variables] SELECT select FROM 'from', … [WHERE condition] [GROUP BY grouping]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// In the order they are set; each sees those before it.
    pub variables: Vec<(String, Expr)>,
    pub select: Select,
    /// Any of them may match. Empty (`FROM ''`): messages by Basic Ingest only.
    pub from: Vec<TopicFilter>,
    pub condition: Option<Expr>,
    pub grouping: Option<Grouping>,
}

/// `GROUP BY keys, per [EVENT TIME event_time] [LATENESS lateness] [LATE late]`: what rows are made of besides single
/// messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Grouping {
    /// `device()` is one of them.
    pub keys: Vec<Expr>,
    pub per: Per,
    /// Milliseconds since the Unix epoch; absent: when the message was received.
    pub event_time: Option<Expr>,
    /// How far a message may be behind the newest one.
    pub lateness_ms: u64,
    pub late: Late,
}

/// What a group makes rows of. Spans are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Per {
    Tumbling {
        size_ms: u64,
    },
    /// `size_ms` is a multiple of `hop_ms`.
    Hopping {
        size_ms: u64,
        hop_ms: u64,
    },
    Sliding {
        size_ms: u64,
    },
    Session {
        gap_ms: u64,
    },
    Absent {
        gap_ms: u64,
    },
    Changed(Expr),
    Edge {
        edge: Edge,
        condition: Expr,
        /// The condition is a comparison then.
        hysteresis: Option<Number>,
    },
}

/// Which turn of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It becomes true.
    Rising,
    /// It was true and is no longer.
    Falling,
}

/// What becomes of a message whose window has been closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is left out, and counted.
    Drop,
    /// It makes a row of its own.
    Emit,
}

/// One value of many messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub kind: AggregateKind,
    /// Absent: `*`, the message itself.
    pub of: Option<Expr>,
}

/// How many values become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    Stddev,
    /// From 0 to 100.
    Percentile(Number),
    First,
    Last,
    /// Of so many values at most, the earliest.
    Collect(usize),
}

/// What a row knows of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Its first millisecond.
    Start,
    /// The first millisecond behind it.
    End,
    /// Whether the row is of a message that came too late.
    Late,
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
    /// `expr AS name`, or a field under its own last name. `expr AS name.under…` puts it into an object of that name.
    Named { expr: Expr, name: String, under: Vec<String> },
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
        /// What its literal arguments were compiled to.
        prepared: Option<Prepared>,
    },
    /// A call of a function that the language does not have, by its name in SQL, in lower case.
    UserCall {
        function: String,
        arguments: Vec<Expr>,
    },
    /// In the SELECT of a rule with a window only.
    Aggregate(Box<Aggregate>),
    /// `window_start()` and the like, in the same place.
    Bound(Bound),
}

/// Arguments of a call that are compiled with the rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// A regular expression.
    Pattern(Pattern),
    /// The scheme of `decode`, with its schema.
    Format(Format),
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

impl AggregateKind {
    /// All that take nothing but a value, by name; `percentile` and `collect` are the others.
    pub(crate) const PLAIN: [(AggregateKind, &'static str); 8] = [
        (AggregateKind::Count, "count"),
        (AggregateKind::Sum, "sum"),
        (AggregateKind::Avg, "avg"),
        (AggregateKind::Min, "min"),
        (AggregateKind::Max, "max"),
        (AggregateKind::Stddev, "stddev"),
        (AggregateKind::First, "first"),
        (AggregateKind::Last, "last"),
    ];
    pub(crate) const PERCENTILE: &'static str = "percentile";
    pub(crate) const COLLECT: &'static str = "collect";

    /// Whether it looks at no value but whether there is one.
    pub(crate) fn is_count(self) -> bool {
        self == AggregateKind::Count
    }

    /// Whether it is made of numbers, and of nothing else.
    pub(crate) fn is_of_numbers(self) -> bool {
        match self {
            AggregateKind::Sum
            | AggregateKind::Avg
            | AggregateKind::Min
            | AggregateKind::Max
            | AggregateKind::Stddev
            | AggregateKind::Percentile(_) => true,
            AggregateKind::Count | AggregateKind::First | AggregateKind::Last | AggregateKind::Collect(_) => false,
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            AggregateKind::Percentile(_) => Self::PERCENTILE,
            AggregateKind::Collect(_) => Self::COLLECT,
            plain => Self::PLAIN.iter().find(|(kind, _)| *kind == plain).expect("the table lists all others").1,
        }
    }
}

impl Bound {
    /// All, by name.
    pub(crate) const TABLE: [(Bound, &'static str); 3] =
        [(Bound::Start, "window_start"), (Bound::End, "window_end"), (Bound::Late, "window_late")];
}

impl Per {
    /// Whether it is a pattern of single messages rather than a window of many.
    pub fn is_pattern(&self) -> bool {
        match self {
            Per::Changed(_) | Per::Edge { .. } => true,
            Per::Tumbling { .. }
            | Per::Hopping { .. }
            | Per::Sliding { .. }
            | Per::Session { .. }
            | Per::Absent { .. } => false,
        }
    }
}

impl Item {
    /// What names it in the row.
    pub(crate) fn as_field(&self) -> Option<Expr> {
        match self {
            Item::Star => None,
            Item::Named { name, .. } => Some(Expr::Field(name.clone())),
        }
    }
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
            | Expr::UserCall { .. }
            | Expr::Aggregate(_)
            | Expr::Bound(_) => None,
        }
    }
}
