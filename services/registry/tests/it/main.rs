//! The registry alone, through gRPC over the in-memory network, on a real embedded log and store.

mod authentication;
mod cassandra;
mod crash;
mod feed;
mod objects;
mod presence;
mod stage;
