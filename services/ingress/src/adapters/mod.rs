//! The ports of the ingress, as others provide them.

pub mod alive;
pub mod boot;
pub mod changes;
pub mod embedded;
pub mod events;
pub mod functions;
pub mod keys;
#[cfg(any(test, feature = "conformance"))]
pub mod memory;
pub mod owners;
pub mod peers;
pub mod registry;
pub mod rows;
pub mod scylla;
pub mod stores;
