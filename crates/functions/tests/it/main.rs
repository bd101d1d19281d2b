//! Functions through their public interface.

mod hostile;
mod pool;
mod things;

use drover_functions::{FunctionError, Limits, Script};

/// What a routine of a script answers.
fn call(script: &str, routine: &str, input: &str) -> Result<String, FunctionError> {
    Script::new(script, Limits::default())?.call(routine, input)
}
