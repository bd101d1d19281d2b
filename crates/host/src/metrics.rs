//! The registry of metrics that `/metrics` shows.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;

/// Metrics of one process; services add theirs when they start.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// Registers metrics. Names are `drover_<service>_<noun>_<unit>`; the `_total` of counters is added on output.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String does not fail");
        text
    }
}
