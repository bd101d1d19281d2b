//! The shadow service alone: requests by gRPC, over the embedded log and a store in a real Cassandra or of its own.

mod cassandra;
mod command_engine;
mod commands;
mod ingress;
mod reads;
mod stage;
