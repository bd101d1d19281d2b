//! A tree back into text that parses to the same tree. Compound operands always stand in parentheses.

use std::fmt::{self, Display, Formatter};

use crate::ast::{
    Aggregate, AggregateKind, BinaryOperator, Bound, Edge, Expr, Grouping, Item, Late, Per, Query, Select, Statement,
    UnaryOperator,
};
use crate::duration::Span;
use crate::value::Value;

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, (name, expr)) in self.variables.iter().enumerate() {
            write!(f, "{} @{name} = {expr}", if i == 0 { "SET" } else { "," })?;
        }
        f.write_str(if self.variables.is_empty() { "" } else { " " })?;
        write!(f, "SELECT {} FROM ", self.select)?;
        if self.from.is_empty() {
            f.write_str("''")?;
        }
        list(f, self.from.iter().map(|filter| Quoted(filter.as_str())))?;
        condition(f, self.condition.as_ref())?;
        self.grouping.as_ref().map_or(Ok(()), |grouping| write!(f, " {grouping}"))
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("GROUP BY ")?;
        for key in &self.keys {
            write!(f, "{}, ", Operand(key))?;
        }
        write!(f, "{}", self.per)?;
        if let Some(time) = &self.event_time {
            write!(f, " EVENT TIME {}", Operand(time))?;
        }
        if self.per.is_pattern() {
            return Ok(());
        }
        let late = match self.late {
            Late::Drop => "DROP",
            Late::Emit => "EMIT",
        };
        write!(f, " LATENESS {} LATE {late}", Span(self.lateness_ms))
    }
}

impl Display for Per {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Per::Tumbling { size_ms } => write!(f, "TUMBLING({})", Span(*size_ms)),
            Per::Hopping { size_ms, hop_ms } => write!(f, "HOPPING({}, {})", Span(*size_ms), Span(*hop_ms)),
            Per::Sliding { size_ms } => write!(f, "SLIDING({})", Span(*size_ms)),
            Per::Session { gap_ms } => write!(f, "SESSION({})", Span(*gap_ms)),
            Per::Absent { gap_ms } => write!(f, "ABSENT({})", Span(*gap_ms)),
            Per::Changed(of) => write!(f, "CHANGED({of})"),
            Per::Edge { edge, condition, hysteresis } => {
                let name = match edge {
                    Edge::Rising => "RISING",
                    Edge::Falling => "FALLING",
                };
                write!(f, "{name}({condition}")?;
                if let Some(by) = hysteresis {
                    write!(f, ", HYSTERESIS {by}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.kind.name())?;
        match &self.of {
            Some(of) => write!(f, "{of}")?,
            None => f.write_str("*")?,
        }
        match self.kind {
            AggregateKind::Percentile(rank) => write!(f, ", {rank}")?,
            AggregateKind::Collect(most) => write!(f, ", {most}")?,
            AggregateKind::Count
            | AggregateKind::Sum
            | AggregateKind::Avg
            | AggregateKind::Min
            | AggregateKind::Max
            | AggregateKind::Stddev
            | AggregateKind::First
            | AggregateKind::Last => {}
        }
        f.write_str(")")
    }
}

impl Display for Bound {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = Self::TABLE.iter().find(|(bound, _)| bound == self);
        write!(f, "{}()", row.expect("the table lists every bound").1)
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "(SELECT {} FROM {}", self.select, Operand(&self.from))?;
        if let Some(alias) = &self.alias {
            write!(f, " AS {alias}")?;
        }
        condition(f, self.condition.as_ref())?;
        f.write_str(")")
    }
}

fn condition(f: &mut Formatter<'_>, condition: Option<&Expr>) -> fmt::Result {
    condition.map_or(Ok(()), |condition| write!(f, " WHERE {condition}"))
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Select::Payload => f.write_str("*"),
            Select::Value(expr) => write!(f, "VALUE ({expr})"),
            Select::Items(items) => list(f, items),
        }
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Item::Star => f.write_str("*"),
            Item::Named { expr, name, under } => {
                write!(f, "{} AS {name}", Operand(expr))?;
                under.iter().try_for_each(|name| write!(f, ".{name}"))
            }
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Literal(Value::Text(text)) => write!(f, "{}", Quoted(text)),
            Expr::Literal(value) => write!(f, "{value}"),
            Expr::Star => f.write_str("*"),
            Expr::Field(name) => f.write_str(name),
            Expr::Variable(name) => write!(f, "@{name}"),
            Expr::Member { of, name } => write!(f, "{}.{name}", Operand(of)),
            Expr::Array(elements) => {
                f.write_str("[")?;
                list(f, elements)?;
                f.write_str("]")
            }
            Expr::Object(members) => {
                f.write_str("{")?;
                list(f, members.iter().map(|(name, expr)| Entry(name, expr)))?;
                f.write_str("}")
            }
            Expr::Unary { operator, operand } => write!(f, "{operator} {}", Operand(operand)),
            Expr::Binary { operator, left, right } => write!(f, "{} {operator} {}", Operand(left), Operand(right)),
            Expr::Case { of, arms, otherwise } => case(f, of.as_deref(), arms, otherwise.as_deref()),
            Expr::Query(query) => write!(f, "{query}"),
            Expr::Exists(query) => write!(f, "EXISTS {query}"),
            Expr::Cast { operand, to } => write!(f, "cast({operand} AS {to})"),
            Expr::Call { function, arguments, prepared: _ } => {
                write!(f, "{}(", function.name)?;
                list(f, arguments)?;
                f.write_str(")")
            }
            Expr::UserCall { function, arguments } => {
                write!(f, "{function}(")?;
                list(f, arguments)?;
                f.write_str(")")
            }
            Expr::Aggregate(aggregate) => write!(f, "{aggregate}"),
            Expr::Bound(bound) => write!(f, "{bound}"),
        }
    }
}

fn case(f: &mut Formatter<'_>, of: Option<&Expr>, arms: &[(Expr, Expr)], otherwise: Option<&Expr>) -> fmt::Result {
    f.write_str("CASE")?;
    if let Some(of) = of {
        write!(f, " {}", Operand(of))?;
    }
    for (when, then) in arms {
        write!(f, " WHEN {} THEN {}", Operand(when), Operand(then))?;
    }
    if let Some(otherwise) = otherwise {
        write!(f, " ELSE {}", Operand(otherwise))?;
    }
    f.write_str(" END")
}

impl Display for UnaryOperator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = Self::TABLE.iter().find(|(operator, ..)| operator == self);
        f.write_str(row.expect("the table lists every operator").1)
    }
}

impl Display for BinaryOperator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let row = Self::TABLE.iter().find(|(operator, ..)| operator == self);
        f.write_str(row.expect("the table lists every operator").1[0])
    }
}

/// An expression within another.
struct Operand<'e>(&'e Expr);

impl Display for Operand<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Unary { .. } | Expr::Binary { .. } | Expr::Case { .. } | Expr::Exists(_) => {
                write!(f, "({})", self.0)
            }
            Expr::Literal(_)
            | Expr::Star
            | Expr::Field(_)
            | Expr::Variable(_)
            | Expr::Member { .. }
            | Expr::Array(_)
            | Expr::Object(_)
            | Expr::Query(_)
            | Expr::Cast { .. }
            | Expr::Call { .. }
            | Expr::UserCall { .. }
            | Expr::Aggregate(_)
            | Expr::Bound(_) => write!(f, "{}", self.0),
        }
    }
}

/// A member of an object literal.
struct Entry<'e>(&'e str, &'e Expr);

impl Display for Entry<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Quoted(self.0), self.1)
    }
}

/// A text in single quotes.
struct Quoted<'t>(&'t str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, entries: impl IntoIterator<Item = T>) -> fmt::Result {
    for (i, entry) in entries.into_iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{entry}")?;
    }
    Ok(())
}
