//! What the tests of several services share: the real executable as a child process, and the tools around it.
//!
//! `platform` knows it only from outside: flags, ports, files; `world` and `shadows` run services on virtual time.

mod api_server;
mod backends;
mod collector;
mod device;
pub mod faults;
pub mod fleet;
mod held;
mod kafka;
mod kubernetes;
mod kubernetes_node;
mod local;
pub mod marks;
mod operator;
mod platform;
mod processes;
mod separate_cluster;
pub mod shadows;
mod tools;
pub mod world;

pub use api_server::written;
pub use backends::Backends;
pub use collector::{Collector, Manner};
pub use device::{options, publish};
pub use held::Held;
pub use kafka::{Follower, Output, partitions, read_committed};
pub use kubernetes::Kubernetes;
pub use kubernetes_node::{Forward, IMAGE, KubernetesNode};
pub use local::{LocalBackends, LocalRun};
pub use operator::OperatorProcess;
pub use platform::{Platform, artefacts, beside, executable, pause};
pub use processes::Processes;
pub use separate_cluster::SeparateCluster;
pub use tools::{Node, chromium, free_port, lines_of, node, python, python_with, script, tool};
