//! The shadow service alone: requests by gRPC, over the embedded log and a store in a real Cassandra.

mod cassandra;
mod stage;
