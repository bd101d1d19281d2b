//! Tokens into a tree. Recursion is bounded by [`EXPRESSION_DEPTH_MAX`], as is the tree.
//!
//! Here: statements and what names things. Expressions are climbed by precedence in [`expression`]; forms that begin
//! with a word of their own or a bracket are in [`form`]; GROUP BY and what may be selected with it in [`group`].

mod expression;
mod form;
pub(crate) mod group;

use drover_types::TopicFilter;
use drover_types::limits::SQL_BYTES_MAX;

use crate::ast::{Expr, Item, Select, Statement};
use crate::error::{Problem, SqlError};
use crate::lexer::{Kind, Lexer, Token};
use crate::user_function::UserFunction;

/// Deepest tree of an expression: what walks it recurses, and 256 levels fit any thread's stack many times over.
pub const EXPRESSION_DEPTH_MAX: usize = 256;

/// Most filters of one statement.
pub const FILTERS_MAX: usize = 16;
/// Most variables of one statement.
pub const VARIABLES_MAX: usize = 64;
/// Longest name of a variable, in characters.
pub const VARIABLE_CHARS_MAX: usize = 64;

pub use group::{COLLECT_MAX, KEYS_MAX, PANES_MAX, SPAN_MS_MAX};

/// Words that cannot name a field unless a dot stands before them.
const RESERVED: [&str; 11] = ["SELECT", "FROM", "WHERE", "AS", "AND", "OR", "NOT", "TRUE", "FALSE", "NULL", "CASE"];
/// Those of them that an expression may begin with.
const BEGINNING: [&str; 5] = ["NOT", "TRUE", "FALSE", "NULL", "CASE"];

/// Parses a statement that calls functions of the language only.
pub fn parse(sql: &str) -> Result<Statement, SqlError> {
    whole(&mut Parser::new(sql, 0)?)
}

/// Parses a statement that may call others as well; answers them beside it, each where it is first called.
pub(crate) fn parse_open(sql: &str) -> Result<(Statement, Vec<UserFunction>), SqlError> {
    let mut parser = Parser::new(sql, 0)?;
    parser.user_functions = Some(Vec::new());
    let statement = whole(&mut parser)?;
    Ok((statement, parser.user_functions.unwrap_or_default()))
}

fn whole(parser: &mut Parser<'_>) -> Result<Statement, SqlError> {
    let statement = parser.statement()?;
    match parser.token.kind {
        Kind::End => Ok(statement),
        Kind::Word(_) | Kind::Variable(_) | Kind::Number(_) | Kind::Text(_) | Kind::Symbol(_) => {
            Err(parser.expected("the end"))
        }
    }
}

pub(crate) struct Parser<'s> {
    lexer: Lexer<'s>,
    /// The token to be looked at next.
    token: Token<'s>,
    /// Calls of [`Parser::climb`] that are open.
    depth: usize,
    /// Names that SET has made so far; absent in a template, which any rule may have.
    variables: Option<Vec<String>>,
    /// Functions called so far that the language does not have; absent where none may be.
    user_functions: Option<Vec<UserFunction>>,
    /// Whether aggregates may stand here: in the SELECT of the statement.
    selecting: bool,
    /// The first aggregate, and where it stands.
    aggregate: Option<(&'static str, usize)>,
}

impl<'s> Parser<'s> {
    /// Reads `text` from the byte `at` on.
    pub fn new(text: &'s str, at: usize) -> Result<Self, SqlError> {
        if text.len() > SQL_BYTES_MAX {
            return Err(SqlError::at(text, 0, Problem::TooLong { bytes: text.len() }));
        }
        let mut lexer = Lexer::new(text, at);
        let token = lexer.next()?;
        let (variables, user_functions, aggregate) = (None, None, None);
        Ok(Self { lexer, token, depth: 0, variables, user_functions, selecting: false, aggregate })
    }

    fn statement(&mut self) -> Result<Statement, SqlError> {
        let variables = self.set()?;
        let start = self.token.start;
        self.expect_word("SELECT")?;
        self.selecting = true;
        let (select, _) = self.select()?;
        self.selecting = false;
        self.expect_word("FROM")?;
        let from = self.filters()?;
        let condition = if self.take_word("WHERE")? { Some(self.expression()?) } else { None };
        let grouping = self.grouping()?;
        self.check_selected(&select, grouping.as_ref(), start)?;
        Ok(Statement { variables, select, from, condition, grouping })
    }

    /// `SET @name = expr, …`, if it comes.
    fn set(&mut self) -> Result<Vec<(String, Expr)>, SqlError> {
        let (mut set, mut more) = (Vec::new(), self.take_word("SET")?);
        self.variables = Some(Vec::new());
        while more {
            let (name, start) = (self.variable_name()?, self.token.start);
            if set.iter().any(|(known, _)| *known == name) {
                return Err(self.error(start, Problem::VariableTwice { name }));
            }
            self.advance()?;
            self.expect_symbol("=")?;
            let expr = self.expression()?;
            set.push((name.clone(), expr));
            if set.len() > VARIABLES_MAX {
                return Err(self.error(start, Problem::TooManyVariables { found: set.len() }));
            }
            self.variables.get_or_insert_default().push(name);
            more = self.take_symbol(",")?;
        }
        Ok(set)
    }

    /// The name of the variable that has to stand here.
    fn variable_name(&self) -> Result<String, SqlError> {
        let Kind::Variable(name) = self.token.kind else { return Err(self.expected("@name")) };
        let chars = name.chars().count();
        if !(1..=VARIABLE_CHARS_MAX).contains(&chars) {
            return Err(self.error(self.token.start, Problem::VariableName { chars }));
        }
        Ok(name.to_owned())
    }

    /// What is selected, and the height of its highest expression.
    fn select(&mut self) -> Result<(Select, usize), SqlError> {
        if self.at_value()? {
            self.advance()?;
            if self.take_symbol("*")? {
                return Ok((Select::Payload, 0));
            }
            let (expr, height) = self.climb(0)?;
            return Ok((Select::Value(expr), height));
        }
        let (item, mut height) = self.item()?;
        let mut items = vec![item];
        while self.take_symbol(",")? {
            let (item, item_height) = self.item()?;
            items.push(item);
            height = height.max(item_height);
        }
        Ok((if items == [Item::Star] { Select::Payload } else { Select::Items(items) }, height))
    }

    /// Whether VALUE stands here as a keyword: a field may have this name, so an expression has to follow.
    fn at_value(&self) -> Result<bool, SqlError> {
        if !self.is_word("VALUE") {
            return Ok(false);
        }
        let mut ahead = self.lexer.clone();
        Ok(match ahead.next()?.kind {
            Kind::Word(word) => !is_reserved(word) || BEGINNING.iter().any(|beginning| same(beginning, word)),
            Kind::Variable(_) | Kind::Number(_) | Kind::Text(_) | Kind::Symbol("(" | "[" | "{") => true,
            Kind::Symbol("*") => matches!(ahead.next()?.kind, Kind::Word(word) if same(word, "FROM")),
            Kind::Symbol(_) | Kind::End => false,
        })
    }

    fn item(&mut self) -> Result<(Item, usize), SqlError> {
        let start = self.token.start;
        let (expr, height) = if self.take_symbol("*")? { (Expr::Star, 1) } else { self.climb(0)? };
        if !self.take_word("AS")? {
            if expr == Expr::Star {
                return Ok((Item::Star, 0));
            }
            let name = expr.name().ok_or_else(|| self.error(start, Problem::NoName))?.to_owned();
            return Ok((Item::Named { expr, name, under: Vec::new() }, height));
        }
        let (name, mut under) = (self.name("a name")?, Vec::new());
        while self.take_symbol(".")? {
            under.push(self.any_word("a name")?);
        }
        let height = height + under.len();
        if height > EXPRESSION_DEPTH_MAX {
            return Err(self.error(start, Problem::TooDeep));
        }
        Ok((Item::Named { expr, name, under }, height))
    }

    /// `'a', 'b'`; `''` alone means none.
    fn filters(&mut self) -> Result<Vec<TopicFilter>, SqlError> {
        let start = self.token.start;
        if self.token.kind == Kind::Text("".into()) {
            self.advance()?;
            let comma = self.token.kind == Kind::Symbol(",");
            return if comma { Err(self.error(start, Problem::EmptyFilter)) } else { Ok(Vec::new()) };
        }
        let mut filters = vec![self.filter()?];
        while self.take_symbol(",")? {
            filters.push(self.filter()?);
        }
        if filters.len() > FILTERS_MAX {
            return Err(self.error(start, Problem::TooManyFilters { found: filters.len() }));
        }
        Ok(filters)
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

    fn name(&mut self, expected: &'static str) -> Result<String, SqlError> {
        match self.token.kind {
            Kind::Word(word) if is_reserved(word) => Err(self.expected(expected)),
            Kind::Word(_) | Kind::Variable(_) | Kind::Number(_) | Kind::Text(_) | Kind::Symbol(_) | Kind::End => {
                self.any_word(expected)
            }
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
