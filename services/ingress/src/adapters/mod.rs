//! The ports of the ingress, as others provide them.

pub mod alive;
pub mod boot;
pub mod changes;
pub mod events;
pub mod owners;
mod partitions;
pub mod peers;
pub mod registry;
