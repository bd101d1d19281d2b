//! Functions of files, called by this executable: what `drover rule test` has in place of the platform's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use drover_functions::Pool;
use drover_rule_sql::{LookupError, UserFunctions};
use drover_types::object::FunctionSpec;
use serde_json::value::RawValue;

use super::super::manifest;

/// Functions by their names.
pub struct LocalFunctions {
    pool: Pool,
    by_name: BTreeMap<String, FunctionSpec>,
}

impl LocalFunctions {
    /// Those that files declare.
    pub fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut by_name = BTreeMap::new();
        for file in files {
            for function in manifest::read::<FunctionSpec>(file)? {
                function.spec.check()?;
                by_name.insert(function.metadata.name, function.spec);
            }
        }
        Ok(Self { pool: Pool::in_processes(std::env::current_exe()?), by_name })
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }
}

impl UserFunctions for LocalFunctions {
    fn call(&self, function: &str, arguments: &[String]) -> Result<Option<String>, LookupError> {
        let failed = |reason: String| LookupError { reason };
        let function = self.by_name.get(function).ok_or_else(|| failed("is in no file of --function".to_owned()))?;
        let inputs: Vec<&RawValue> = arguments
            .iter()
            .map(|argument| serde_json::from_str(argument))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(format!("argument: {error}")))?;
        self.pool.call(&function.source, &function.routine, &inputs).map_err(|error| failed(error.to_string()))
    }
}
