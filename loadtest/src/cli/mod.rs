//! The subcommands: arguments in, library calls, exit codes out.

pub mod bench;
pub mod run;
