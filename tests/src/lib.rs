//! What the tests of several services share: the real executable as a child process, and the tools around it.
//!
//! Knows the platform only from outside: flags, ports, files.

mod kafka;
mod platform;
mod tools;

pub use kafka::{Output, read_committed};
pub use platform::{Platform, Started};
pub use tools::{NOT_RUN, lines_of, python, script, tool};
