//! Functions in JavaScript, as devices' makers write them for The Things Network: a classic script whose routines are
//! called by name with JSON values and answer with one.
//!
//! Every call runs in an engine of its own, without I/O, within [`Limits`]; nothing that it does to its globals or
//! prototypes is seen by another. What an engine cannot be stopped in, a loop inside one of its own built-in functions,
//! is what a [`Pool`] calls in processes of their own for.

mod call;
mod error;
mod examples;
pub mod line;
mod pool;
mod script;
mod watchdog;
mod worker;

pub use call::Limits;
pub use error::FunctionError;
pub use examples::{Verdict, examine};
pub use pool::{CallError, Pool};
pub use script::{SCRIPT_BYTES_MAX, Script};
pub use watchdog::{CALL_CPU_MS_MAX, Watchdog};
pub use worker::{Worker, WorkerError};
