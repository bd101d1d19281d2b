//! The registry alone, through gRPC over the in-memory network, on a real embedded log and store.

mod api_tokens;
mod audit;
mod authentication;
mod authorities;
mod cassandra;
mod crash;
mod device_groups;
mod device_types;
mod feed;
mod functions;
mod jwt;
mod nodes;
mod objects;
mod owners;
mod pre_shared_keys;
mod presence;
mod stage;
mod topic_owners;
