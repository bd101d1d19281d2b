//! Tokens into a tree, by precedence climbing. Recursion is bounded by [`EXPRESSION_DEPTH_MAX`], as is the tree.

use drover_types::TopicFilter;
use drover_types::limits::SQL_BYTES_MAX;

use crate::ast::{BinaryOperator, Expr, Item, Select, Statement, UnaryOperator};
use crate::error::{Problem, SqlError};
use crate::function::Function;
use crate::lexer::{Kind, Lexer, Token};
use crate::number::Number;
use crate::value::Value;

/// Deepest tree of an expression: what walks it recurses, and 256 levels fit any thread's stack many times over.
pub const EXPRESSION_DEPTH_MAX: usize = 256;

/// Words that cannot name a field unless a dot stands before them.
const RESERVED: [&str; 10] = ["SELECT", "FROM", "WHERE", "AS", "AND", "OR", "NOT", "TRUE", "FALSE", "NULL"];

/// Parses a statement.
pub fn parse(sql: &str) -> Result<Statement, SqlError> {
    let mut parser = Parser::new(sql, 0)?;
    let statement = parser.statement()?;
    match parser.token.kind {
        Kind::End => Ok(statement),
        Kind::Word(_) | Kind::Number(_) | Kind::Text(_) | Kind::Symbol(_) => Err(parser.expected("the end")),
    }
}

/// An expression and the height of its tree.
type Tree = (Expr, usize);

pub(crate) struct Parser<'s> {
    lexer: Lexer<'s>,
    /// The token to be looked at next.
    token: Token<'s>,
    /// Calls of [`Parser::climb`] that are open.
    depth: usize,
}

impl<'s> Parser<'s> {
    /// Reads `text` from the byte `at` on.
    pub fn new(text: &'s str, at: usize) -> Result<Self, SqlError> {
        if text.len() > SQL_BYTES_MAX {
            return Err(SqlError::at(text, 0, Problem::TooLong { bytes: text.len() }));
        }
        let mut lexer = Lexer::new(text, at);
        let token = lexer.next()?;
        Ok(Self { lexer, token, depth: 0 })
    }

    fn statement(&mut self) -> Result<Statement, SqlError> {
        self.expect_word("SELECT")?;
        let select = self.select()?;
        self.expect_word("FROM")?;
        let from = self.filter()?;
        let condition = if self.take_word("WHERE")? { Some(self.expression()?) } else { None };
        Ok(Statement { select, from, condition })
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        if self.at_value()? {
            self.advance()?;
            return if self.take_symbol("*")? { Ok(Select::Payload) } else { Ok(Select::Value(self.expression()?)) };
        }
        let mut items = vec![self.item()?];
        while self.take_symbol(",")? {
            items.push(self.item()?);
        }
        Ok(if items == [Item::Star] { Select::Payload } else { Select::Items(items) })
    }

    /// Whether VALUE stands here as a keyword: a field may have this name, so an expression has to follow.
    fn at_value(&self) -> Result<bool, SqlError> {
        if !self.is_word("VALUE") {
            return Ok(false);
        }
        let mut ahead = self.lexer.clone();
        Ok(match ahead.next()?.kind {
            Kind::Word(word) => !is_reserved(word) || ["NOT", "TRUE", "FALSE", "NULL"].iter().any(|w| same(w, word)),
            Kind::Number(_) | Kind::Text(_) | Kind::Symbol("(") => true,
            Kind::Symbol("*") => matches!(ahead.next()?.kind, Kind::Word(word) if same(word, "FROM")),
            Kind::Symbol(_) | Kind::End => false,
        })
    }

    fn item(&mut self) -> Result<Item, SqlError> {
        if self.take_symbol("*")? {
            return Ok(Item::Star);
        }
        let start = self.token.start;
        let expr = self.expression()?;
        let name = if self.take_word("AS")? {
            self.name("a name")?
        } else {
            expr.name().ok_or_else(|| self.error(start, Problem::NoName))?.to_owned()
        };
        Ok(Item::Named { expr, name })
    }

    fn filter(&mut self) -> Result<TopicFilter, SqlError> {
        let Kind::Text(text) = &self.token.kind else {
            return Err(self.expected("a topic filter in quotes"));
        };
        let filter = TopicFilter::new(text)
            .map_err(|reason| self.error(self.token.start, Problem::Filter { filter: text.to_string(), reason }))?;
        if filter.share().is_some() {
            return Err(self.error(self.token.start, Problem::SharedFilter { filter: text.to_string() }));
        }
        self.advance()?;
        Ok(filter)
    }

    /// An expression, to its end.
    pub fn expression(&mut self) -> Result<Expr, SqlError> {
        self.climb(0).map(|(expr, _)| expr)
    }

    /// The byte behind `}`, which has to come now.
    pub fn closing_brace(&self) -> Result<usize, SqlError> {
        if self.token.kind == Kind::Symbol("}") { Ok(self.token.end) } else { Err(self.expected("}")) }
    }

    /// An expression of operators that bind more strongly than `floor`.
    fn climb(&mut self, floor: u8) -> Result<Tree, SqlError> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            return Err(self.error(self.token.start, Problem::TooDeep));
        }
        self.depth += 1;
        let mut tree = self.prefix()?;
        while let Some((operator, power)) = self.binary_operator().filter(|(_, power)| *power > floor) {
            self.advance()?;
            let (right, height) = self.climb(power)?;
            let (left, left_height) = tree;
            let expr = Expr::Binary { operator, left: Box::new(left), right: Box::new(right) };
            tree = self.grown(expr, left_height.max(height))?;
        }
        self.depth -= 1;
        Ok(tree)
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
            Kind::Word(word) if !is_reserved(word) => return self.field_or_call(word, start),
            Kind::Symbol("(") => return self.parenthesised(),
            Kind::Word(_) | Kind::Symbol(_) | Kind::End => return Err(self.expected("an expression")),
        };
        self.advance()?;
        Ok((Expr::Literal(literal), 1))
    }

    fn parenthesised(&mut self) -> Result<Tree, SqlError> {
        self.advance()?;
        let tree = self.climb(0)?;
        self.expect_symbol(")")?;
        Ok(tree)
    }

    fn field_or_call(&mut self, word: &'s str, start: usize) -> Result<Tree, SqlError> {
        self.advance()?;
        if !self.take_symbol("(")? {
            return Ok((Expr::Field(word.to_owned()), 1));
        }
        let unknown = || self.error(start, Problem::UnknownFunction { name: word.to_owned() });
        let function = Function::named(word).ok_or_else(unknown)?;
        let (mut arguments, mut height) = (Vec::new(), 0);
        if !self.take_symbol(")")? {
            loop {
                let (argument, argument_height) = self.climb(0)?;
                arguments.push(argument);
                height = height.max(argument_height);
                if !self.take_symbol(",")? {
                    break;
                }
            }
            self.expect_symbol(")")?;
        }
        let (least, most, found) = (*function.arity.start(), *function.arity.end(), arguments.len());
        if !function.arity.contains(&found) {
            return Err(self.error(start, Problem::Arguments { name: function.name, least, most, found }));
        }
        self.grown(Expr::Call { function, arguments }, height)
    }

    /// `expr` above trees of `height`.
    fn grown(&self, expr: Expr, height: usize) -> Result<Tree, SqlError> {
        if height == EXPRESSION_DEPTH_MAX {
            return Err(self.error(self.token.start, Problem::TooDeep));
        }
        Ok((expr, height + 1))
    }

    fn binary_operator(&self) -> Option<(BinaryOperator, u8)> {
        let row = BinaryOperator::TABLE.iter().find(|(_, spellings, _)| spellings.iter().any(|s| self.is(s)))?;
        Some((row.0, row.2))
    }

    fn name(&mut self, expected: &'static str) -> Result<String, SqlError> {
        match self.token.kind {
            Kind::Word(word) if is_reserved(word) => Err(self.expected(expected)),
            Kind::Word(_) | Kind::Number(_) | Kind::Text(_) | Kind::Symbol(_) | Kind::End => self.any_word(expected),
        }
    }

    fn any_word(&mut self, expected: &'static str) -> Result<String, SqlError> {
        let Kind::Word(word) = self.token.kind else {
            return Err(self.expected(expected));
        };
        self.advance()?;
        Ok(word.to_owned())
    }

    fn advance(&mut self) -> Result<(), SqlError> {
        self.token = self.lexer.next()?;
        Ok(())
    }

    /// Whether the keyword or symbol `spelling` stands here.
    fn is(&self, spelling: &str) -> bool {
        self.is_word(spelling) || matches!(self.token.kind, Kind::Symbol(symbol) if symbol == spelling)
    }

    fn is_word(&self, keyword: &str) -> bool {
        matches!(self.token.kind, Kind::Word(word) if same(word, keyword))
    }

    fn take_word(&mut self, keyword: &str) -> Result<bool, SqlError> {
        let here = self.is_word(keyword);
        if here {
            self.advance()?;
        }
        Ok(here)
    }

    fn take_symbol(&mut self, symbol: &str) -> Result<bool, SqlError> {
        let here = matches!(self.token.kind, Kind::Symbol(found) if found == symbol);
        if here {
            self.advance()?;
        }
        Ok(here)
    }

    fn expect_word(&mut self, keyword: &'static str) -> Result<(), SqlError> {
        if self.take_word(keyword)? { Ok(()) } else { Err(self.expected(keyword)) }
    }

    fn expect_symbol(&mut self, symbol: &'static str) -> Result<(), SqlError> {
        if self.take_symbol(symbol)? { Ok(()) } else { Err(self.expected(symbol)) }
    }

    fn expected(&self, expected: &'static str) -> SqlError {
        self.error(self.token.start, Problem::Expected { expected, found: self.token.kind.to_string() })
    }

    fn error(&self, at: usize, problem: Problem) -> SqlError {
        SqlError::at(self.lexer.text(), at, problem)
    }
}

fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| same(reserved, word))
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}
