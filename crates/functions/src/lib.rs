//! Functions in JavaScript, as devices' makers write them for The Things Network: a classic script whose routines are
//! called by name with one JSON value and answer with one.
//!
//! Every call runs in an engine of its own, without I/O, within [`Limits`]; nothing that it does to its globals or
//! prototypes is seen by another. What an engine cannot be stopped in, a loop inside one of its own built-in functions,
//! is what [`line`] runs in a process of its own for.

mod call;
mod error;
pub mod line;
mod script;

pub use call::Limits;
pub use error::FunctionError;
pub use script::{SCRIPT_BYTES_MAX, Script};
