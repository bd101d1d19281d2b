//! The ports of the ingress, as others provide them.

pub mod boot;
pub mod changes;
pub mod embedded;
pub mod events;
mod partitions;
pub mod registry;
