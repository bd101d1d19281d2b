//! Load and proof: a ledger of who sent, who acknowledged and who got, a client for tests, and a load generator.
//!
//! Speaks to any MQTT broker; knows nothing of Drover's services. The rule that keeps it simple: every component speaks
//! MQTT through `drover_mqtt::client`, and only the drivers here own sockets and time.

pub mod bench;
pub mod client;
pub mod ledger;
pub mod target;
