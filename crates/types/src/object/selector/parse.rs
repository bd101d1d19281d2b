//! Selectors as Kubernetes writes them: `room=kitchen,floor!=2,env in (a,b),site notin (x),outdoor,!old`.

use super::{LabelOperator, LabelRequirement, LabelSelector};
use crate::ApiError;
use crate::limits::SELECTOR_BYTES_MAX;

/// Characters that end a key or a value.
const SIGNS: [char; 7] = [',', '(', ')', '=', '!', '<', '>'];

impl LabelSelector {
    /// The selector of a text, checked; an empty text selects everything. `field` is where it stands.
    ///
    /// `invalid_argument` where the text is none; the message says at which byte, from 1.
    pub fn parse(field: &str, text: &str) -> Result<Self, ApiError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(ApiError::invalid(field, "selector is too long").over(SELECTOR_BYTES_MAX, text.len()));
        }
        let mut reader = Reader { text, at: 0 };
        let match_expressions = reader.requirements().map_err(|expected| {
            let message = format!("expected {expected} at byte {}", reader.at + 1);
            ApiError::invalid(field, message).over("key=value,key!=value,key in (a,b),key notin (a,b),key,!key", text)
        })?;
        let selector = Self { match_expressions, ..Self::default() };
        // What is wrong with a part is told of the text as a whole, for it has no fields.
        selector.check(field).map_err(|error| ApiError { field: Some(field.to_owned()), ..error })?;
        Ok(selector)
    }
}

/// Reads a text from its start; an error says what was expected.
struct Reader<'a> {
    text: &'a str,
    /// Next byte.
    at: usize,
}

impl<'a> Reader<'a> {
    fn requirements(&mut self) -> Result<Vec<LabelRequirement>, &'static str> {
        let mut found = Vec::new();
        if self.rest().is_empty() {
            return Ok(found);
        }
        loop {
            found.push(self.requirement()?);
            if self.rest().is_empty() {
                return Ok(found);
            }
            if !self.takes(",") {
                return Err("a comma");
            }
        }
    }

    fn requirement(&mut self) -> Result<LabelRequirement, &'static str> {
        if self.takes("!") {
            let key = self.key()?;
            return Ok(LabelRequirement { key, operator: LabelOperator::DoesNotExist, values: Vec::new() });
        }
        let key = self.key()?;
        let (operator, values) = self.condition()?;
        Ok(LabelRequirement { key, operator, values })
    }

    /// What stands behind a key.
    fn condition(&mut self) -> Result<(LabelOperator, Vec<String>), &'static str> {
        if self.takes("!=") {
            return Ok((LabelOperator::NotIn, vec![self.word().to_owned()]));
        }
        if self.takes("==") || self.takes("=") {
            return Ok((LabelOperator::In, vec![self.word().to_owned()]));
        }
        if self.rest().is_empty() || self.rest().starts_with(',') {
            return Ok((LabelOperator::Exists, Vec::new()));
        }
        let start = self.at;
        let operator = match self.word() {
            "in" => LabelOperator::In,
            "notin" => LabelOperator::NotIn,
            _ => {
                self.at = start;
                return Err("=, ==, !=, in or notin");
            }
        };
        Ok((operator, self.values()?))
    }

    /// `(a,b)`; a value may be empty.
    fn values(&mut self) -> Result<Vec<String>, &'static str> {
        if !self.takes("(") {
            return Err("(");
        }
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_owned());
            if self.takes(")") {
                return Ok(values);
            }
            if !self.takes(",") {
                return Err("a comma or )");
            }
        }
    }

    fn key(&mut self) -> Result<String, &'static str> {
        match self.word() {
            "" => Err("a key"),
            key => Ok(key.to_owned()),
        }
    }

    /// Up to the next sign or space; may be empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| SIGNS.contains(&c) || c.is_whitespace()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn takes(&mut self, sign: &str) -> bool {
        let is_next = self.rest().starts_with(sign);
        self.at += if is_next { sign.len() } else { 0 };
        is_next
    }

    /// What is left, from its first character that is no space.
    fn rest(&mut self) -> &'a str {
        let rest = self.text[self.at..].trim_start();
        self.at = self.text.len() - rest.len();
        rest
    }
}
