//! Text into tokens, one at a time. Knows no keywords: those are words to the parser.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Problem, SqlError};

/// Longest piece of the text that an error repeats, in characters.
const FOUND_CHARS_MAX: usize = 40;

/// Cuts a text into tokens. Cheap to clone, to look ahead.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'s> {
    text: &'s str,
    /// Byte at which the next token, or blank space before it, begins.
    at: usize,
}

/// A token and the bytes it stands at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token<'s> {
    pub kind: Kind<'s>,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'s> {
    /// A keyword or a name.
    Word(&'s str),
    /// The name behind `@`; may be empty.
    Variable(&'s str),
    /// Unsigned, as written.
    Number(&'s str),
    /// Without its quotes, doubled quotes made single.
    Text(Cow<'s, str>),
    /// Punctuation, one of [`SYMBOLS`].
    Symbol(&'static str),
    End,
}

/// All punctuation; what begins with another comes first.
const SYMBOLS: [&str; 21] =
    ["<>", "!=", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ",", ".", "{", "}", "[", "]", ":"];

impl<'s> Lexer<'s> {
    /// Reads `text` from the byte `at` on.
    pub fn new(text: &'s str, at: usize) -> Self {
        Self { text, at }
    }

    /// The text being read.
    pub fn text(&self) -> &'s str {
        self.text
    }

    /// The next token; [`Kind::End`] again and again after the last.
    pub fn next(&mut self) -> Result<Token<'s>, SqlError> {
        let rest = &self.text[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let rest = &self.text[start..];
        let (kind, length) = match rest.chars().next() {
            None => (Kind::End, 0),
            Some(quote @ ('\'' | '"')) => self.quoted(start, quote)?,
            Some(c) if c.is_ascii_digit() => {
                let number = &rest[..number_length(rest)];
                (Kind::Number(number), number.len())
            }
            Some(c) if c.is_alphabetic() || c == '_' => {
                let word = word(rest);
                (Kind::Word(word), word.len())
            }
            Some('@') => {
                let name = word(&rest[1..]);
                (Kind::Variable(name), name.len() + 1)
            }
            Some(found) => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Kind::Symbol(symbol), symbol.len()),
                None => return Err(SqlError::at(self.text, start, Problem::Character { found })),
            },
        };
        self.at = start + length;
        Ok(Token { kind, start, end: self.at })
    }

    /// A text in quotes; the quote itself is written twice within.
    fn quoted(&self, start: usize, quote: char) -> Result<(Kind<'s>, usize), SqlError> {
        let body = &self.text[start + 1..];
        let mut content = Cow::Borrowed("");
        let mut piece = 0;
        loop {
            let Some(close) = body[piece..].find(quote).map(|found| piece + found) else {
                return Err(SqlError::at(self.text, start, Problem::Unclosed { quote }));
            };
            let doubled = body[close + 1..].starts_with(quote);
            content += &body[piece..close + usize::from(doubled)];
            piece = close + 1 + usize::from(doubled);
            if !doubled {
                return Ok((Kind::Text(content), piece + 1));
            }
        }
    }
}

/// The letters, digits and underscores that `text` begins with.
fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// Length of `digits [. digits] [e [+-] digits]` at the start of `text`.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut length = digits(0);
    if text[length..].starts_with('.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if text[length..].starts_with(['e', 'E']) {
        let sign = usize::from(text[length + 1..].starts_with(['+', '-']));
        if digits(length + 1 + sign) > 0 {
            length += 1 + sign + digits(length + 1 + sign);
        }
    }
    length
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(FOUND_CHARS_MAX).collect::<String>();
        match self {
            Kind::Word(text) | Kind::Number(text) => f.write_str(&short(text)),
            Kind::Variable(name) => write!(f, "@{}", short(name)),
            Kind::Text(text) => write!(f, "{:?}", short(text)),
            Kind::Symbol(symbol) => f.write_str(symbol),
            Kind::End => f.write_str("the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind<'_>> {
        let mut lexer = Lexer::new(text, 0);
        std::iter::from_fn(|| lexer.next().map(|t| t.kind).ok().filter(|kind| *kind != Kind::End)).collect()
    }

    #[test]
    fn a_quote_inside_its_own_text_is_written_twice() {
        assert_eq!(kinds("'it''s' \"a'b\" ''"), ["it's", "a'b", ""].map(|text| Kind::Text(text.into())));
    }

    #[test]
    fn numbers_end_where_they_stop_being_numbers() {
        assert_eq!(
            kinds("1.5e-3 2.x 3e"),
            [
                Kind::Number("1.5e-3"),
                Kind::Number("2"),
                Kind::Symbol("."),
                Kind::Word("x"),
                Kind::Number("3"),
                Kind::Word("e"),
            ]
        );
    }
}
