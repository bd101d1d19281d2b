//! The Kafka adapter on real Kafka: the conformance suite, and what only a cluster can do to its clients.

mod broker;
mod exactly_once;
mod existing;
mod faults;
mod following;
mod hung_groups;
mod members;
mod nameless;
mod put_out;
mod refusals;
mod three_brokers;
#[cfg(feature = "tls")]
mod tls;

/// So that nobody takes a green run for one that has spoken TLS.
#[cfg(not(feature = "tls"))]
#[test]
fn tls_to_kafka_is_tested_with_its_feature_only() {
    println!("NOT RUN: TLS and passwords to Kafka (cargo xtask test tls)");
}

drover_bus::conformance_suite!(match broker::fixture().await {
    Some(fixture) => fixture,
    None => return,
});
