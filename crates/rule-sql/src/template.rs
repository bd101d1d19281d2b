//! Texts of action fields with `${expr}` in them. Names are looked up in the row first, then in the payload.

use crate::asked::Asked;
use crate::ast::{Expr, Item, Select};
use crate::error::{EvalError, Problem, SqlError};
use crate::evaluate::{self, Scope};
use crate::message::Message;
use crate::operator::within_limit;
use crate::parser::Parser;
use crate::parser::group::ungrouped;
use crate::row::Row;
use crate::rule::CompiledRule;
use crate::value::Value;

impl CompiledRule {
    /// Compiles a template of one of its actions. A row of many messages has what was selected and nothing else.
    pub fn template(&self, text: &str) -> Result<Template, SqlError> {
        let template = Template::compile(text)?;
        let Some(Select::Items(items)) =
            self.plan().filter(|plan| !plan.is_pattern()).map(|_| &self.statement().select)
        else {
            return Ok(template);
        };
        let selected: Vec<Expr> = items.iter().filter_map(Item::as_field).collect();
        let unknown = template.exprs().find_map(|expr| ungrouped(expr, &selected));
        match unknown {
            Some(expr) => Err(SqlError::at(text, 0, Problem::NotSelected { expression: expr.to_string() })),
            None => Ok(template),
        }
    }
}

/// A compiled template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Expr(Expr),
}

impl Template {
    /// Compiles a text; `${` begins an expression, `}` ends it, all else stands for itself.
    pub fn compile(text: &str) -> Result<Self, SqlError> {
        let (mut parts, mut at) = (Vec::new(), 0);
        while let Some(open) = text[at..].find("${").map(|found| at + found) {
            if open > at {
                parts.push(Part::Text(text[at..open].to_owned()));
            }
            let mut parser = Parser::new(text, open + 2)?;
            parts.push(Part::Expr(parser.expression()?));
            at = parser.closing_brace()?;
        }
        if at < text.len() {
            parts.push(Part::Text(text[at..].to_owned()));
        }
        Ok(Self { parts })
    }

    /// What it looks up.
    pub fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        self.exprs().for_each(|expr| asked.add(expr, &[]));
        asked
    }

    fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Expr(expr) => Some(expr),
        })
    }

    /// The text for one message and its row. Null and undefined values have no text and are errors.
    pub fn render(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        self.render_with(message, row, String::push_str)
    }

    /// As [`Template::render`], for a URL: of what is put in all but the unreserved characters of RFC 3986 is
    /// percent-encoded, so that no value adds a segment or a parameter.
    pub fn render_url(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        self.render_with(message, row, percent_encode)
    }

    fn render_with(
        &self,
        message: &Message<'_>,
        row: &Row<'_>,
        put: fn(&mut String, &str),
    ) -> Result<String, EvalError> {
        message.begin();
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Expr(expr) => {
                    let scope = Scope { row: Some(row), ..Scope::new(message, &row.variables) };
                    let value = evaluate::evaluate(expr, scope)?;
                    let missing = || EvalError::UndefinedTemplate { expression: expr.to_string() };
                    put(&mut text, &value.to_text().ok_or_else(missing)?);
                }
            }
            within_limit(text.len())?;
        }
        Ok(text)
    }

    /// As JSON: of a template that is one `${expr}` and nothing else, the value itself, which may be null; of any other,
    /// its text.
    pub fn render_value(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        let [Part::Expr(expr)] = self.parts.as_slice() else {
            return Ok(Value::from(self.render(message, row)?).to_string());
        };
        message.begin();
        let scope = Scope { row: Some(row), ..Scope::new(message, &row.variables) };
        let value = evaluate::evaluate(expr, scope)?;
        if *value == Value::Undefined {
            return Err(EvalError::UndefinedTemplate { expression: expr.to_string() });
        }
        let json = value.to_string();
        within_limit(json.len())?;
        Ok(json)
    }
}

/// Appends a value to a URL.
fn percent_encode(url: &mut String, value: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push('%');
            url.push(char::from(HEX[usize::from(byte >> 4)]));
            url.push(char::from(HEX[usize::from(byte & 0xf)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_a_url_adds_no_segment_and_no_parameter() {
        let mut url = "https://example.org/".to_owned();
        percent_encode(&mut url, "a-b._~/../x?y=1&z=ü %");
        assert_eq!(url, "https://example.org/a-b._~%2F..%2Fx%3Fy%3D1%26z%3D%C3%BC%20%25");
    }
}
