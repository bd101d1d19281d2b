//! The kit on a real Cassandra: one server for all tests that leave it running, others for those that hurt theirs.

mod faults;
mod opening;
mod requests;
mod stage;
#[cfg(feature = "cassandra-tls")]
mod tls;
