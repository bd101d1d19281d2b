//! Printing: a table for people, JSON and YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// A column: its heading, and a JSON pointer to what stands in it.
pub type Column = (&'static str, &'static str);

impl Format {
    /// Prints one object; `for_people` is what a table is for it.
    pub fn object(
        self,
        out: &mut dyn Write,
        object: &Value,
        for_people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Self::Table => for_people(out)?,
            Self::Json => writeln!(out, "{object:#}")?,
            Self::Yaml => write!(out, "{}", serde_yaml_ng::to_string(object)?)?,
        }
        Ok(())
    }

    /// Prints that something is no more: `line` for people; for programs `told`, and with it what the server answered.
    pub fn gone(self, out: &mut dyn Write, line: &str, mut told: Value, answer: &Value) -> anyhow::Result<()> {
        if let (Some(told), Some(answer)) = (told.as_object_mut(), answer.as_object()) {
            told.extend(answer.clone());
        }
        self.object(out, &told, |out| writeln!(out, "{line}"))
    }

    /// Prints a list, `{"items": […]}`, or one object, which becomes a table of one row.
    pub fn list(self, out: &mut dyn Write, list: &Value, columns: &[Column]) -> anyhow::Result<()> {
        self.object(out, list, |out| {
            let one = std::slice::from_ref(list);
            let items = list["items"].as_array().map_or(one, Vec::as_slice);
            out.write_all(table(items, columns).as_bytes())
        })
    }
}

/// Left-aligned columns, two spaces apart; what is absent is `-`.
pub fn table(items: &[Value], columns: &[Column]) -> String {
    let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    aligned(headings, items.iter().map(|item| columns.iter().map(|(_, pointer)| item.pointer(pointer)).collect()))
}

/// As [`table`], of values that somebody has picked, as many a row as there are headings.
pub fn aligned<'v>(headings: Vec<String>, rows: impl Iterator<Item = Vec<Option<&'v Value>>>) -> String {
    let columns = headings.len();
    let rows = rows.map(|row| row.into_iter().map(cell).collect());
    let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => plain(text),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// The text on one line, harmless to a terminal: control characters are written as escapes.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(format: Format) -> String {
        let list = json!({"items": [{"name": "a", "n": 1}, {"name": "longer", "tags": ["x", "y"]}]});
        let mut out = Vec::new();
        format.list(&mut out, &list, &[("NAME", "/name"), ("N", "/n"), ("TAGS", "/tags")]).expect("prints");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_table_aligns_its_columns_and_marks_what_is_absent() {
        assert_eq!(printed(Format::Table), "NAME    N  TAGS\na       1  -\nlonger  -  x,y\n");
    }

    #[test]
    fn json_and_yaml_read_back_as_what_they_were() {
        let json: Value = serde_json::from_str(&printed(Format::Json)).expect("JSON");
        let yaml: Value = serde_yaml_ng::from_str(&printed(Format::Yaml)).expect("YAML");
        assert_eq!(json, yaml);
        assert_eq!(json["items"][1]["tags"], json!(["x", "y"]));
    }

    #[test]
    fn what_is_gone_is_a_line_or_an_object_with_what_the_server_has_answered() {
        let printed = |format: Format, answer: Value| {
            let mut out = Vec::new();
            format.gone(&mut out, "a is deleted", json!({"name": "a", "deleted": true}), &answer).expect("prints");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(printed(Format::Table, Value::Null), "a is deleted\n");
        let json: Value =
            serde_json::from_str(&printed(Format::Json, json!({"unconfirmedNodes": ["n"]}))).expect("JSON");
        assert_eq!(json, json!({"name": "a", "deleted": true, "unconfirmedNodes": ["n"]}));
        assert_eq!(printed(Format::Yaml, Value::Null), "name: a\ndeleted: true\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\nb é"), "a\\u{1b}[2J\\nb é");
    }
}
