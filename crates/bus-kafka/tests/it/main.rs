//! The Kafka adapter on real Kafka: the conformance suite, and what only a cluster can do to its clients.

mod broker;
mod exactly_once;
mod faults;
mod following;
mod members;
mod refusals;
#[cfg(feature = "tls")]
mod tls;

drover_bus::conformance_suite!(match broker::fixture().await {
    Some(fixture) => fixture,
    None => return,
});
