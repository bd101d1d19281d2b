//! What the tests of several services share: the real executable as a child process, and the tools around it.
//!
//! `platform` knows it only from outside: flags, ports, files; `world` and `shadows` run services on virtual time.

mod backends;
mod collector;
mod device;
pub mod faults;
pub mod fleet;
mod kafka;
mod kubernetes;
pub mod marks;
mod node;
mod platform;
mod processes;
pub mod shadows;
mod tools;
pub mod world;

pub use backends::Backends;
pub use collector::{Collector, Manner};
pub use device::{options, publish};
pub use kafka::{Follower, Output, partitions, read_committed};
pub use kubernetes::Kubernetes;
pub use node::{Forward, Node, free_port};
pub use platform::{Platform, artefacts, beside, executable, pause};
pub use processes::Processes;
pub use tools::{Node, chromium, lines_of, node, python, python_with, script, tool};
