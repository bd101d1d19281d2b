//! A tree back into text that parses to the same tree. Compound operands always stand in parentheses.

use std::fmt::{self, Display, Formatter};

use crate::ast::{BinaryOperator, Expr, Item, Select, Statement, UnaryOperator};
use crate::value::Value;

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT {} FROM {}", self.select, Quoted(self.from.as_str()))?;
        match &self.condition {
            Some(condition) => write!(f, " WHERE {condition}"),
            None => Ok(()),
        }
    }
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
            Item::Named { expr, name } => write!(f, "{} AS {name}", Operand(expr)),
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Literal(Value::Text(text)) => write!(f, "{}", Quoted(text)),
            Expr::Literal(value) => write!(f, "{value}"),
            Expr::Field(name) => f.write_str(name),
            Expr::Member { of, name } => write!(f, "{}.{name}", Operand(of)),
            Expr::Unary { operator, operand } => write!(f, "{operator} {}", Operand(operand)),
            Expr::Binary { operator, left, right } => write!(f, "{} {operator} {}", Operand(left), Operand(right)),
            Expr::Call { function, arguments } => {
                write!(f, "{}(", function.name)?;
                list(f, arguments)?;
                f.write_str(")")
            }
        }
    }
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
            Expr::Unary { .. } | Expr::Binary { .. } => write!(f, "({})", self.0),
            Expr::Literal(_) | Expr::Field(_) | Expr::Member { .. } | Expr::Call { .. } => write!(f, "{}", self.0),
        }
    }
}

/// A text in single quotes.
struct Quoted<'t>(&'t str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, entries: &[T]) -> fmt::Result {
    for (i, entry) in entries.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        write!(f, "{comma}{entry}")?;
    }
    Ok(())
}
