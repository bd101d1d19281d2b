//! The kit on a real Cassandra: one server for all tests that leave it running, others for those that hurt theirs.

mod faults;
mod opening;
mod requests;
mod stage;
#[cfg(feature = "cassandra-tls")]
mod tls;

/// So that nobody takes a green run for one that has spoken TLS.
#[cfg(not(feature = "cassandra-tls"))]
#[test]
fn tls_to_cassandra_is_tested_with_its_feature_only() {
    println!("NOT RUN: TLS and passwords to Cassandra (cargo xtask test tls)");
}
