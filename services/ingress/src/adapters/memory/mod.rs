//! Stores in memory: for simulation, where neither a thread nor a disk may decide what comes first, or how long it takes.
//!
//! Adapter layer, of tests only. What they keep outlives the node that wrote it, as a disk and a database do; whoever ends
//! a node has to see that it writes no more.

mod retained;
mod sessions;

pub use retained::SharedRetained;
pub use sessions::{NodeSessions, SharedSessions};
