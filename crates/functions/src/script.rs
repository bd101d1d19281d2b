//! A script at hand: its text, found to run.

use std::sync::Arc;

use crate::call::{self, Limits};
use crate::error::FunctionError;

/// Longest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// A script that runs. Cheap to clone, safe to share.
#[derive(Clone, Debug)]
pub struct Script {
    text: Arc<str>,
    limits: Limits,
}

impl Script {
    /// Runs the script once, so that what is wrong with it is known before the first call.
    pub fn new(text: &str, limits: Limits) -> Result<Self, FunctionError> {
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(FunctionError::ScriptTooLong { bytes: text.len() });
        }
        call::load(text, limits)?;
        Ok(Self { text: text.into(), limits })
    }

    /// Calls the routine with a JSON value; its result as JSON without spaces.
    pub fn call(&self, routine: &str, input: &str) -> Result<String, FunctionError> {
        call::call(&self.text, self.limits, routine, &[input])
    }

    /// Calls a routine of a script that was not run before, with any number of JSON values.
    pub fn call_once(text: &str, limits: Limits, routine: &str, inputs: &[&str]) -> Result<String, FunctionError> {
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(FunctionError::ScriptTooLong { bytes: text.len() });
        }
        call::call(text, limits, routine, inputs)
    }
}
