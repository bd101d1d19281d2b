//! Calls of functions by rules, in the processes of the pool. The engine waits, at most as long as a function may take;
//! other tasks of the runtime do not.

use drover_functions::Pool;
use drover_types::object::FunctionSpec;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};

/// Calls a function with JSON texts; its result is JSON, or none. The error says what went wrong, for a dead letter.
pub fn call(pool: &Pool, function: &FunctionSpec, inputs: &[String]) -> Result<Option<String>, String> {
    let inputs: Vec<&RawValue> = inputs
        .iter()
        .map(|input| serde_json::from_str(input))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("argument: {error}"))?;
    let call = || pool.call(&function.source, &function.routine, &inputs).map_err(|error| error.to_string());
    // A runtime of one thread has no other to give its tasks to.
    let many = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if many { tokio::task::block_in_place(call) } else { call() }
}
