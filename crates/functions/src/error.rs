//! Why a call has no result.

use crate::script::SCRIPT_BYTES_MAX;

/// What ended a call, or kept it from beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    #[error("script has {bytes} bytes, limit is {SCRIPT_BYTES_MAX}")]
    ScriptTooLong { bytes: usize },
    /// The script itself does not run; its message says where.
    #[error("script: {message}")]
    Script { message: String },
    #[error("script has no function {routine}")]
    NoRoutine { routine: String },
    #[error("{routine} threw: {message}")]
    Thrown { routine: String, message: String },
    #[error("took more than {limit_ms} ms of processor time")]
    Time { limit_ms: u64 },
    #[error("took more than {limit} bytes of memory")]
    Memory { limit: usize },
    #[error("input: {message}")]
    Input { message: String },
    #[error("{routine} returned what is no JSON")]
    NoJson { routine: String },
    #[error("the JavaScript engine could not be started: {message}")]
    Engine { message: String },
}
