//! What the tests of several services share: the real executable as a child process, and the tools around it.
//!
//! `platform` knows it only from outside: flags, ports, files; `world` and `shadows` run services on virtual time.

mod collector;
mod device;
mod kafka;
mod platform;
mod processes;
pub mod shadows;
mod tools;
pub mod world;

pub use collector::{Collector, Manner};
pub use device::publish;
pub use kafka::{Output, read_committed};
pub use platform::{Platform, artefacts, beside, executable};
pub use processes::Processes;
pub use tools::{Node, chromium, lines_of, node, python, python_with, script, tool};
