//! What the tests of several services share: the real executable as a child process, and the tools around it.
//!
//! `platform` knows it only from outside: flags, ports, files; `world`, `cluster`, `flood` and `shadows` run services on
//! virtual time, by `seeds`.

mod api_server;
mod backends;
pub mod cluster;
mod collector;
mod device;
pub mod faults;
pub mod fleet;
pub mod flood;
mod held;
mod idle;
mod kafka;
mod kubernetes;
mod kubernetes_node;
mod local;
pub mod marks;
mod operator;
mod patience;
mod peer;
mod platform;
mod processes;
pub mod seeds;
mod separate_cluster;
pub mod shadows;
mod switchboard;
mod tools;
mod turn;
mod virtual_time;
pub mod world;

pub use api_server::written;
pub use backends::Backends;
pub use collector::{Collector, Manner};
pub use device::{options, publish};
pub use held::Held;
pub use idle::{Idle, generator, raise_descriptors};
pub use kafka::{Follower, Output, partitions, read_committed};
pub use kubernetes::Kubernetes;
pub use kubernetes_node::{Forward, IMAGE, KubernetesNode};
pub use local::{LocalBackends, LocalRun};
pub use operator::OperatorProcess;
pub use patience::{Patience, pause};
pub use platform::{Platform, artefacts, beside, executable};
pub use processes::Processes;
pub use separate_cluster::SeparateCluster;
pub use tools::{Node, chromium, lines_of, node, number, python, python_with, script, tool};
