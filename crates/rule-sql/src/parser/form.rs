//! Forms of expressions with words or brackets of their own: calls, CASE, nested queries, literals.

use super::expression::Tree;
use super::{Parser, same};
use crate::ast::{Expr, Prepared, Query};
use crate::error::{Problem, SqlError};
use crate::format::Format;
use crate::function::{Cast, Function};
use crate::lexer::Kind;
use crate::pattern::Pattern;
use crate::user_function::UserFunction;
use crate::value::Value;

impl<'s> Parser<'s> {
    /// `(expr)` or `(SELECT …)`.
    pub(super) fn parenthesised(&mut self) -> Result<Tree, SqlError> {
        self.advance()?;
        if self.is_word("SELECT") {
            let (query, height) = self.query()?;
            return self.grown(Expr::Query(Box::new(query)), height);
        }
        let tree = self.climb(0)?;
        self.expect_symbol(")")?;
        Ok(tree)
    }

    /// A nested query from SELECT on, with the parenthesis that closes it.
    fn query(&mut self) -> Result<(Query, usize), SqlError> {
        self.enter()?;
        let selecting = std::mem::take(&mut self.selecting);
        self.expect_word("SELECT")?;
        let (select, mut height) = self.select()?;
        self.expect_word("FROM")?;
        let (from, from_height) = self.climb(0)?;
        height = height.max(from_height);
        let alias = if self.take_word("AS")? { Some(self.name("a name")?) } else { None };
        let mut condition = None;
        if self.take_word("WHERE")? {
            let (expr, condition_height) = self.climb(0)?;
            height = height.max(condition_height);
            condition = Some(expr);
        }
        self.expect_symbol(")")?;
        self.depth -= 1;
        self.selecting = selecting;
        Ok((Query { select, from, alias, condition }, height))
    }

    /// A field, a call, `cast(… AS …)` or `EXISTS (SELECT …)`.
    pub(super) fn field_or_call(&mut self, word: &'s str, start: usize) -> Result<Tree, SqlError> {
        self.advance()?;
        if !self.take_symbol("(")? {
            return Ok((Expr::Field(word.to_owned()), 1));
        }
        if same(word, "CAST") {
            return self.cast();
        }
        if same(word, "EXISTS") && self.is_word("SELECT") {
            let (query, height) = self.query()?;
            return self.grown(Expr::Exists(Box::new(query)), height);
        }
        if let Some(tree) = self.aggregate(word, start)? {
            return Ok(tree);
        }
        if let Some((name, instead)) = Function::elsewhere(word) {
            return Err(self.error(start, Problem::Elsewhere { name, instead }));
        }
        let Some(function) = Function::named(word) else { return self.user_call(word, start) };
        let (arguments, height) = self.list(")", Self::argument)?;
        let (least, most, found) = (*function.arity.start(), *function.arity.end(), arguments.len());
        if !function.arity.contains(&found) {
            return Err(self.error(start, Problem::Arguments { name: function.name, least, most, found }));
        }
        let prepared = self.prepared(function, &arguments, start)?;
        self.grown(Expr::Call { function, arguments, prepared }, height)
    }

    /// What the literal arguments of a call are compiled to.
    fn prepared(&self, function: &Function, arguments: &[Expr], start: usize) -> Result<Option<Prepared>, SqlError> {
        let literal = |expr: &Expr| match expr {
            Expr::Literal(Value::Text(text)) => Some(text.to_string()),
            _ => None,
        };
        if let Some(i) = function.pattern_argument() {
            return Ok(literal(&arguments[i]).and_then(|source| Pattern::compile(&source)).map(Prepared::Pattern));
        }
        let Some(scheme) = function.scheme_argument().and_then(|i| literal(&arguments[i])) else { return Ok(None) };
        let texts: Vec<String> = arguments.iter().skip(2).filter_map(literal).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let all_literal = texts.len() + 2 == arguments.len();
        let wrong = |reason: String| self.error(start, Problem::Schema { reason });
        match Format::compile(&scheme, &texts) {
            Some(_) if !all_literal => Err(wrong("it has to be written as text in quotes".to_owned())),
            Some(format) => format.map(Prepared::Format).map(Some).map_err(wrong),
            None => Ok(None),
        }
    }

    /// A call of a function that the language does not have, its name and parenthesis read.
    fn user_call(&mut self, word: &str, start: usize) -> Result<Tree, SqlError> {
        let unknown = self.error(start, Problem::UnknownFunction { name: word.to_owned() });
        let Some(known) = &mut self.user_functions else { return Err(unknown) };
        let name = UserFunction::name_of(word);
        if !known.iter().any(|function| function.name == name) {
            known.push(UserFunction { name, unknown });
        }
        let (arguments, height) = self.list(")", Self::argument)?;
        self.grown(Expr::UserCall { function: word.to_ascii_lowercase(), arguments }, height)
    }

    fn argument(&mut self) -> Result<Tree, SqlError> {
        if self.take_symbol("*")? { Ok((Expr::Star, 1)) } else { self.climb(0) }
    }

    /// `x AS type)`.
    fn cast(&mut self) -> Result<Tree, SqlError> {
        let (operand, height) = self.argument()?;
        self.expect_word("AS")?;
        let start = self.token.start;
        let name = self.any_word("a type")?;
        let unknown = || self.error(start, Problem::UnknownType { name: name.clone(), expected: Cast::KEYWORDS });
        let to = Cast::named(&name).ok_or_else(unknown)?;
        self.expect_symbol(")")?;
        self.grown(Expr::Cast { operand: Box::new(operand), to }, height)
    }

    /// `CASE [of] WHEN … THEN … [ELSE …] END`.
    pub(super) fn case(&mut self) -> Result<Tree, SqlError> {
        self.advance()?;
        let mut height = 0;
        let mut part = |tree: Tree| {
            height = height.max(tree.1);
            tree.0
        };
        let of = if self.is_word("WHEN") { None } else { Some(Box::new(part(self.climb(0)?))) };
        let mut arms = Vec::new();
        self.expect_word("WHEN")?;
        loop {
            let when = part(self.climb(0)?);
            self.expect_word("THEN")?;
            arms.push((when, part(self.climb(0)?)));
            if !self.take_word("WHEN")? {
                break;
            }
        }
        let otherwise = if self.take_word("ELSE")? { Some(Box::new(part(self.climb(0)?))) } else { None };
        self.expect_word("END")?;
        self.grown(Expr::Case { of, arms, otherwise }, height)
    }

    /// `[a, b]`.
    pub(super) fn array(&mut self) -> Result<Tree, SqlError> {
        self.advance()?;
        let (elements, height) = self.list("]", |parser| parser.climb(0))?;
        self.grown(Expr::Array(elements), height)
    }

    /// `{'k': a}`; of members with the same name the last counts.
    pub(super) fn object(&mut self) -> Result<Tree, SqlError> {
        self.advance()?;
        let mut members: Vec<(String, Expr)> = Vec::new();
        let mut height = 0;
        let mut more = !self.take_symbol("}")?;
        while more {
            let Kind::Text(name) = self.token.kind.clone() else {
                return Err(self.expected("a name in quotes"));
            };
            self.advance()?;
            self.expect_symbol(":")?;
            let (value, value_height) = self.climb(0)?;
            height = height.max(value_height);
            members.retain(|(known, _)| *known != name);
            members.push((name.into_owned(), value));
            more = self.take_symbol(",")?;
            if !more {
                self.expect_symbol("}")?;
            }
        }
        self.grown(Expr::Object(members), height)
    }

    /// Expressions between commas up to `close`, and the height of the highest.
    fn list(
        &mut self,
        close: &'static str,
        one: impl Fn(&mut Self) -> Result<Tree, SqlError>,
    ) -> Result<(Vec<Expr>, usize), SqlError> {
        let (mut exprs, mut height) = (Vec::new(), 0);
        if self.take_symbol(close)? {
            return Ok((exprs, height));
        }
        loop {
            let (expr, expr_height) = one(self)?;
            exprs.push(expr);
            height = height.max(expr_height);
            if !self.take_symbol(",")? {
                self.expect_symbol(close)?;
                return Ok((exprs, height));
            }
        }
    }
}
