//! CSV (RFC 4180) as an array of objects, one for each line. Columns are named by the schema, `name[:type], …` with the
//! types of `cast`, or by the first line.

use super::Budget;
use crate::error::EvalError;
use crate::function::Cast;
use crate::json::keep_last;
use crate::value::Value;

/// Most columns of a schema.
const COLUMNS_MAX: usize = 256;

/// What the fields of a line are.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    /// Names and types; empty: the first line has the names.
    named: Vec<(String, Cast)>,
}

impl Columns {
    pub(super) fn named_by_the_first_line() -> Self {
        Self { named: Vec::new() }
    }

    pub(super) fn compile(schema: &str) -> Result<Self, String> {
        let mut named: Vec<(String, Cast)> = Vec::new();
        for column in schema.split(',') {
            let (name, cast) = column.split_once(':').unwrap_or((column, "String"));
            let (name, cast) = (name.trim(), cast.trim());
            let to = Cast::named(cast);
            let to = to.ok_or_else(|| format!("{cast} is no type, expected one of {}", Cast::KEYWORDS))?;
            if name.is_empty() || named.iter().any(|(known, _)| known == name) {
                return Err(format!("column {} has no name of its own", named.len() + 1));
            }
            named.push((name.to_owned(), to));
        }
        if named.len() > COLUMNS_MAX {
            return Err(format!("schema has {} columns, limit is {COLUMNS_MAX}", named.len()));
        }
        Ok(Self { named })
    }

    /// One object a line. A field that is not of its type is left out, as is one that is missing.
    pub(super) fn decode(&self, bytes: &[u8], budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
        let mut lines = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
        let (mut rows, mut columns) = (Vec::new(), self.named.clone());
        for line in lines.records() {
            let line = line.map_err(|error| budget.malformed(error.to_string()))?;
            if columns.is_empty() {
                columns = line.iter().map(|name| (name.trim().to_owned(), Cast::Text)).collect();
                continue;
            }
            if line.len() > columns.len() {
                let (number, known) = (rows.len() + 1, columns.len());
                return Err(budget.malformed(format!("row {number} has {} fields of {known} columns", line.len())));
            }
            let mut members = Vec::with_capacity(line.len());
            budget.charge(0, 1)?;
            for ((name, cast), field) in columns.iter().zip(&line) {
                budget.charge(name.len() + field.len(), 2)?;
                match cast.of(&Value::Text(field.into())) {
                    Value::Undefined => {}
                    value => members.push((name.clone().into(), value)),
                }
            }
            keep_last(&mut members);
            rows.push(Value::Object(members));
        }
        Ok(Value::Array(rows))
    }
}
