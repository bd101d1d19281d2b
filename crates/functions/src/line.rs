//! One question a line, `{"codec_path", "routine", "input"}`, and one line as the answer, `{"out": …}` or
//! `{"error": …}`: what `drover function eval --stdin` speaks. Scripts are kept by their path.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
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

#[derive(Deserialize)]
struct Question<'q> {
    codec_path: PathBuf,
    routine: String,
    #[serde(borrow)]
    input: &'q RawValue,
}

impl Lines {
    /// The answer to one line, whatever the line is.
    pub fn answer(&mut self, line: &str) -> String {
        match self.answered(line) {
            Ok(out) => format!("{{\"out\":{out}}}"),
            Err(error) => refused(&error),
        }
    }

    fn answered(&mut self, line: &str) -> Result<String, String> {
        let question: Question<'_> = serde_json::from_str(line).map_err(|error| format!("question: {error}"))?;
        let script = self.script(&question.codec_path)?;
        script.call(&question.routine, question.input.get()).map_err(|error| error.to_string())
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
