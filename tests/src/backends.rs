//! A real Kafka and a real Cassandra of a test's own, and how processes are told where they are.

use drover_backends::cassandra::{self, Cassandra};
use drover_backends::kafka::Kafka;

use crate::turn::Turn;

/// Both, running.
pub struct Backends {
    pub kafka: Kafka,
    pub cassandra: Cassandra,
    _turn: Turn,
}

impl Backends {
    /// Starts both with nothing in them, once no other test has any. `None`, after one line that says why, where one cannot be had.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let turn = Turn::wait();
        let Some(kafka) = Kafka::start()? else { return Ok(None) };
        let Some(cassandra) = Cassandra::start(cassandra::Options::default()) else { return Ok(None) };
        Ok(Some(Self { kafka, cassandra, _turn: turn }))
    }

    /// The environment that leads every process to them.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.kafka.brokers(), &self.cassandra.address())
    }
}

/// What says where a Kafka and a Cassandra are.
pub fn environment(brokers: &str, cassandra: &str) -> Vec<(String, String)> {
    vec![
        ("DROVER_BUS__KAFKA__BROKERS".to_owned(), brokers.to_owned()),
        ("DROVER_CASSANDRA__HOSTS".to_owned(), format!("[\"{cassandra}\"]")),
    ]
}
