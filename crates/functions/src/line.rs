//! One question a line, `{"codec_path", "routine", "input"}`, and one line as the answer, `{"out": …}` or
//! `{"error": …}`: what `drover function eval --stdin` speaks. Scripts are kept by their path.
//!
//! Between a [`crate::Pool`] and its processes the script itself is in the question, `{"source", "routine", "inputs"}`,
//! and some errors have a kind: `{"error": …, "kind": "undefined"}` is a result that is no JSON, `"slow"` a limit of time.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::call::Limits;
use crate::error::FunctionError;
use crate::script::{SCRIPT_BYTES_MAX, Script};

/// Most scripts that are kept.
const SCRIPTS_MAX: usize = 256;

/// Answers questions; keeps scripts.
#[derive(Default)]
pub struct Lines {
    scripts: HashMap<PathBuf, Kept>,
    limits: Limits,
}

/// A script as it was when the file last changed; one that does not run stays refused until then.
struct Kept {
    changed: Option<SystemTime>,
    script: Result<Script, FunctionError>,
}

/// Either `codec_path` and `input`, or `source` and `inputs`.
#[derive(Deserialize)]
struct Question<'q> {
    codec_path: Option<PathBuf>,
    source: Option<String>,
    routine: String,
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'q RawValue>,
    #[serde(borrow, default)]
    inputs: Vec<&'q RawValue>,
}

/// The question that has everything in it.
#[derive(Serialize)]
pub(crate) struct Once<'q> {
    pub source: &'q str,
    pub routine: &'q str,
    pub inputs: &'q [&'q RawValue],
}

/// An answer as [`Lines`] gives it.
#[derive(Deserialize)]
pub(crate) struct Answer<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    pub out: Option<&'a RawValue>,
    #[serde(default)]
    pub error: String,
    pub kind: Option<ErrorKind>,
}

/// Errors that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorKind {
    /// There is no result.
    Undefined,
    /// A limit of time was met.
    Slow,
}

impl ErrorKind {
    pub fn of(error: &FunctionError) -> Option<Self> {
        match error {
            FunctionError::NoJson { .. } => Some(Self::Undefined),
            FunctionError::Time { .. } => Some(Self::Slow),
            FunctionError::ScriptTooLong { .. }
            | FunctionError::Script { .. }
            | FunctionError::NoRoutine { .. }
            | FunctionError::Thrown { .. }
            | FunctionError::Memory { .. }
            | FunctionError::Input { .. }
            | FunctionError::Engine { .. } => None,
        }
    }
}

/// A field that is there, even if it is `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Lines {
    /// The answer to one line, whatever the line is.
    pub fn answer(&mut self, line: &str) -> String {
        match serde_json::from_str::<Question<'_>>(line) {
            Ok(Question { source: Some(source), routine, inputs, .. }) => {
                let inputs: Vec<&str> = inputs.iter().map(|input| input.get()).collect();
                match Script::call_once(&source, self.limits, &routine, &inputs) {
                    Ok(out) => answered(&out),
                    Err(error) => json!({"error": error.to_string(), "kind": ErrorKind::of(&error)}).to_string(),
                }
            }
            Ok(question) => self.of_file(&question).map_or_else(|error| refused(&error), |out| answered(&out)),
            Err(error) => refused(&format!("question: {error}")),
        }
    }

    fn of_file(&mut self, question: &Question<'_>) -> Result<String, String> {
        let path = question.codec_path.as_deref().ok_or("question: missing field `codec_path`")?;
        let input = question.input.ok_or("question: missing field `input`")?;
        self.script(path)?.call(&question.routine, input.get()).map_err(|error| error.to_string())
    }

    fn script(&mut self, path: &Path) -> Result<&Script, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let changed = std::fs::metadata(path).map_err(failed)?.modified().ok();
        if self.scripts.get(path).is_none_or(|kept| kept.changed != changed) {
            let text = read(path).map_err(failed)?;
            if self.scripts.len() == SCRIPTS_MAX {
                self.scripts.clear();
            }
            let script = Script::new(&text, self.limits);
            self.scripts.insert(path.to_owned(), Kept { changed, script });
        }
        match self.scripts.get(path).map(|kept| kept.script.as_ref()) {
            Some(Ok(script)) => Ok(script),
            Some(Err(error)) => Err(format!("{}: {error}", path.display())),
            None => Err(format!("{}: was not kept", path.display())),
        }
    }
}

fn answered(out: &str) -> String {
    format!("{{\"out\":{out}}}")
}

/// The answer that is an error.
pub fn refused(error: &str) -> String {
    json!({ "error": error }).to_string()
}

/// A file's text, at most a byte more than a script may have.
fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SCRIPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
