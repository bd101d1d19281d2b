//! Files of declared objects: YAML or JSON, several documents in one, `-` for standard input.

use std::io::Read;
use std::path::Path;

use drover_gateway::declared::{Declared, Kind};
use serde::Deserialize;
use serde_json::Value;

/// Largest file read, in bytes: some hundred rules with the longest SQL.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a file is no list of objects.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{file}: {reason}")]
    Read { file: String, reason: std::io::Error },
    #[error("{file} has more than {FILE_BYTES_MAX} bytes")]
    TooLarge { file: String },
    #[error("{file}:{line}:{column}: {problem}")]
    Syntax { file: String, line: usize, column: usize, problem: String },
    #[error("{file}: document {document}: {field}: {problem}")]
    Object { file: String, document: usize, field: String, problem: String },
    #[error("{file} declares nothing")]
    Empty { file: String },
}

/// The objects of a file, all of kind `S`.
pub fn read<S: Kind>(file: &Path) -> Result<Vec<Declared<S>>, ManifestError> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let text = contents(file, &name)?;
    objects(&name, &text)
}

fn contents(file: &Path, name: &str) -> Result<String, ManifestError> {
    let text = text(file, FILE_BYTES_MAX).map_err(|reason| ManifestError::Read { file: name.to_owned(), reason })?;
    text.ok_or_else(|| ManifestError::TooLarge { file: name.to_owned() })
}

/// What is in a file, or comes by standard input where it is `-`; `None`: more than `bytes_max`.
pub fn text(file: &Path, bytes_max: u64) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    let bytes = match file == Path::new("-") {
        true => std::io::stdin().take(bytes_max + 1).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?.take(bytes_max + 1).read_to_string(&mut text)?,
    };
    Ok((bytes as u64 <= bytes_max).then_some(text))
}

fn objects<S: Kind>(file: &str, text: &str) -> Result<Vec<Declared<S>>, ManifestError> {
    let documents = if text.trim_start().starts_with('{') { json(file, text)? } else { yaml(file, text)? };
    if documents.is_empty() {
        return Err(ManifestError::Empty { file: file.to_owned() });
    }
    documents.into_iter().zip(1..).map(|(value, document)| object(file, document, value)).collect()
}

fn json(file: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    let documents = serde_json::Deserializer::from_str(text).into_iter();
    documents.collect::<Result<_, _>>().map_err(|error| syntax(file, error.line(), error.column(), &error.to_string()))
}

fn yaml(file: &str, text: &str) -> Result<Vec<Value>, ManifestError> {
    let mut documents = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
            syntax(file, line, column, &error.to_string())
        })?;
        if !value.is_null() {
            documents.push(value);
        }
    }
    Ok(documents)
}

fn syntax(file: &str, line: usize, column: usize, told: &str) -> ManifestError {
    // Both parsers end their message with the place, which stands in front here.
    let place = format!(" at line {line} column {column}");
    let problem = told.replace(&place, "");
    ManifestError::Syntax { file: file.to_owned(), line, column, problem }
}

/// A file says what it declares, so that a device is not taken for a rule.
fn object<S: Kind>(file: &str, document: usize, value: Value) -> Result<Declared<S>, ManifestError> {
    let refused = |field: &str, problem: String| ManifestError::Object {
        file: file.to_owned(),
        document,
        field: field.to_owned(),
        problem,
    };
    if value.is_object() {
        for (field, expected) in [("apiVersion", S::API_VERSION), ("kind", S::KIND)] {
            if value.get(field).is_none() {
                return Err(refused(field, format!("is missing, expected {expected}")));
            }
        }
    }
    let declared = Declared::<S>::read(value)
        .map_err(|error| refused(error.field.as_deref().unwrap_or("the whole document"), error.message))?;
    if declared.metadata.name.is_empty() {
        return Err(refused("metadata.name", "is missing".to_owned()));
    }
    Ok(declared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::object::RuleSpec;

    const RULE: &str = "apiVersion: drover.dev/v1alpha1\nkind: Rule\nmetadata: {name: hot}\nspec:\n  sql: SELECT * FROM 'a'\n  actions:\n    - kafka: {topic: t, key: \"${device}\"}\n";

    fn refused(text: &str) -> String {
        objects::<RuleSpec>("r.yaml", text).expect_err("refused").to_string()
    }

    #[test]
    fn yaml_and_json_say_the_same_and_may_say_several() {
        let yaml = objects::<RuleSpec>("r", &format!("---\n{RULE}---\n{RULE}---\n")).expect("reads");
        let json = serde_json::to_string(&yaml[0]).expect("JSON");
        assert_eq!(objects::<RuleSpec>("r", &format!("{json}\n{json}")).expect("reads"), yaml);
        assert_eq!(yaml.len(), 2);
        assert_eq!(yaml[0].spec.actions[0].kafka.as_ref().map(|k| k.topic.as_str()), Some("t"));
    }

    #[test]
    fn a_syntax_error_is_told_with_file_line_and_column() {
        assert_eq!(
            refused("kind: Rule\nspec: [1,\n"),
            "r.yaml:3:1: did not find expected node content, while parsing a flow node"
        );
        assert_eq!(refused("{\"kind\": \"Rule\""), "r.yaml:1:15: EOF while parsing an object");
    }

    #[test]
    fn what_is_not_understood_is_told_by_its_path() {
        assert_eq!(
            refused(&RULE.replace("kafka", "kafak")),
            "r.yaml: document 1: spec.actions[0].kafak: unknown field `kafak`, expected one of `kafka`, `republish`, `webhook`, `shadow`, `store`, `function`, `notify`, `command`"
        );
        assert_eq!(
            refused(&RULE.replace("Rule", "Device")),
            r#"r.yaml: document 1: kind: is "Device", expected "Rule""#
        );
        assert_eq!(refused(&RULE.replace("kind: Rule\n", "")), "r.yaml: document 1: kind: is missing, expected Rule");
        assert_eq!(refused(&RULE.replace("name: hot", "")), "r.yaml: document 1: metadata.name: is missing");
        assert_eq!(refused("# nothing\n"), "r.yaml declares nothing");
        assert!(
            refused("just text").starts_with("r.yaml: document 1: the whole document: "),
            "{}",
            refused("just text")
        );
    }

    #[test]
    fn a_missing_file_is_one_line() {
        let line = read::<RuleSpec>(Path::new("/nowhere/rule.yaml")).expect_err("missing").to_string();
        assert!(line.starts_with("/nowhere/rule.yaml: No such file"), "{line}");
    }
}
