//! Expressions, by precedence climbing.

use super::{EXPRESSION_DEPTH_MAX, Parser, is_reserved, same};
use crate::ast::{BinaryOperator, Expr, UnaryOperator};
use crate::error::{Problem, SqlError};
use crate::lexer::Kind;
use crate::number::Number;
use crate::value::Value;

/// An expression and the height of its tree.
pub(super) type Tree = (Expr, usize);

impl Parser<'_> {
    /// An expression, to its end.
    pub fn expression(&mut self) -> Result<Expr, SqlError> {
        self.climb(0).map(|(expr, _)| expr)
    }

    /// The byte behind `}`, which has to come now.
    pub fn closing_brace(&self) -> Result<usize, SqlError> {
        if self.token.kind == Kind::Symbol("}") { Ok(self.token.end) } else { Err(self.expected("}")) }
    }

    /// An expression of operators that bind more strongly than `floor`.
    pub(super) fn climb(&mut self, floor: u8) -> Result<Tree, SqlError> {
        self.enter()?;
        let mut tree = self.prefix()?;
        loop {
            if let Some((operator, power)) = self.binary_operator().filter(|(_, power)| *power > floor) {
                self.advance()?;
                let right = if operator == BinaryOperator::In { self.set_of_in()? } else { self.climb(power)? };
                tree = self.joined(operator, tree, right)?;
            } else if floor < BinaryOperator::COMPARISON && self.is_not_in()? {
                tree = self.not_in(tree)?;
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(tree)
    }

    /// One level deeper.
    pub(super) fn enter(&mut self) -> Result<(), SqlError> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(self.error(self.token.start, Problem::TooDeep));
        }
        self.depth += 1;
        Ok(())
    }

    fn joined(&self, operator: BinaryOperator, left: Tree, right: Tree) -> Result<Tree, SqlError> {
        let height = left.1.max(right.1);
        self.grown(Expr::Binary { operator, left: Box::new(left.0), right: Box::new(right.0) }, height)
    }

    fn is_not_in(&self) -> Result<bool, SqlError> {
        let follows = self.is_word("NOT") && matches!(self.lexer.clone().next()?.kind, Kind::Word(w) if same(w, "IN"));
        Ok(follows)
    }

    /// `element NOT IN set`, from NOT on.
    fn not_in(&mut self, element: Tree) -> Result<Tree, SqlError> {
        self.advance()?;
        self.advance()?;
        let set = self.set_of_in()?;
        let (within, height) = self.joined(BinaryOperator::In, element, set)?;
        self.grown(Expr::Unary { operator: UnaryOperator::Not, operand: Box::new(within) }, height)
    }

    /// What stands behind IN: an array, or a list in parentheses, which is one.
    fn set_of_in(&mut self) -> Result<Tree, SqlError> {
        let is_query = self.is("(") && matches!(self.lexer.clone().next()?.kind, Kind::Word(w) if same(w, "SELECT"));
        if !self.is("(") || is_query {
            return self.climb(BinaryOperator::COMPARISON);
        }
        self.advance()?;
        let mut list = vec![self.climb(0)?];
        while self.take_symbol(",")? {
            list.push(self.climb(0)?);
        }
        self.expect_symbol(")")?;
        let height = list.iter().map(|(_, height)| *height).max().unwrap_or(0);
        match list.pop() {
            Some(only) if list.is_empty() && !matches!(only.0, Expr::Literal(_)) => Ok(only),
            last => {
                let elements = list.into_iter().chain(last).map(|(expr, _)| expr).collect();
                self.grown(Expr::Array(elements), height)
            }
        }
    }

    fn prefix(&mut self) -> Result<Tree, SqlError> {
        match UnaryOperator::TABLE.iter().find(|(_, spelling, _)| self.is(spelling)) {
            Some((operator, _, power)) => {
                self.advance()?;
                let (operand, height) = self.climb(*power)?;
                self.grown(Expr::Unary { operator: *operator, operand: Box::new(operand) }, height)
            }
            None => self.members(),
        }
    }

    /// A primary and the `.name`s behind it.
    fn members(&mut self) -> Result<Tree, SqlError> {
        let mut tree = self.primary()?;
        while self.take_symbol(".")? {
            let name = self.any_word("a field name")?;
            tree = self.grown(Expr::Member { of: Box::new(tree.0), name }, tree.1)?;
        }
        Ok(tree)
    }

    fn primary(&mut self) -> Result<Tree, SqlError> {
        let start = self.token.start;
        let literal = match &self.token.kind {
            Kind::Number(digits) => Value::Number(
                Number::parse(digits)
                    .ok_or_else(|| self.error(start, Problem::Number { number: (*digits).to_owned() }))?,
            ),
            Kind::Text(text) => Value::Text(text.to_string().into()),
            Kind::Word(word) if same(word, "NULL") => Value::Null,
            Kind::Word(word) if same(word, "TRUE") => Value::Bool(true),
            Kind::Word(word) if same(word, "FALSE") => Value::Bool(false),
            Kind::Word(word) if same(word, "CASE") => return self.case(),
            Kind::Word(word) if !is_reserved(word) => return self.field_or_call(word, start),
            Kind::Variable(_) => return self.variable(),
            Kind::Symbol("(") => return self.parenthesised(),
            Kind::Symbol("[") => return self.array(),
            Kind::Symbol("{") => return self.object(),
            Kind::Word(_) | Kind::Symbol(_) | Kind::End => return Err(self.expected("an expression")),
        };
        self.advance()?;
        Ok((Expr::Literal(literal), 1))
    }

    fn variable(&mut self) -> Result<Tree, SqlError> {
        let name = self.variable_name()?;
        if self.variables.as_ref().is_some_and(|known| !known.contains(&name)) {
            return Err(self.error(self.token.start, Problem::UnknownVariable { name }));
        }
        self.advance()?;
        Ok((Expr::Variable(name), 1))
    }

    /// `expr` above trees of `height`.
    pub(super) fn grown(&self, expr: Expr, height: usize) -> Result<Tree, SqlError> {
        if height == EXPRESSION_DEPTH_MAX {
            return Err(self.error(self.token.start, Problem::TooDeep));
        }
        Ok((expr, height + 1))
    }

    fn binary_operator(&self) -> Option<(BinaryOperator, u8)> {
        let row = BinaryOperator::TABLE.iter().find(|(_, spellings, _)| spellings.iter().any(|s| self.is(s)))?;
        Some((row.0, row.2))
    }
}
