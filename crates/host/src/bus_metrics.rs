//! Metrics of the way into the log, read from the Kafka client whenever somebody asks.
//!
//! While a cluster hangs they are what tells: records wait, the oldest grows older, the producer is `stalled`.

use drover_bus_kafka::{KafkaBus, ProducerState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::Metrics;

/// Values of the label `state`.
const STATES: [(&str, ProducerState); 3] =
    [("working", ProducerState::Working), ("stalled", ProducerState::Stalled), ("failed", ProducerState::Failed)];

struct Appends(KafkaBus);

/// Adds the metrics `drover_bus_*`; to be called once.
pub fn register(metrics: &Metrics, bus: KafkaBus) {
    metrics.register(|registry| registry.register_collector(Box::new(Appends(bus))));
}

impl std::fmt::Debug for Appends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Appends").field(&self.0.append_state()).finish()
    }
}

impl Collector for Appends {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let state = self.0.append_state();
        let mut gauge = |name, help, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let records = state.records_waiting as f64;
        gauge("drover_bus_records_waiting", "Records taken and not yet acknowledged by the log", records)?;
        let callers = state.callers_waiting as f64;
        gauge("drover_bus_callers_waiting", "Batches that wait for room among them, unread behind", callers)?;
        let oldest = state.oldest.unwrap_or_default().as_secs_f64();
        gauge("drover_bus_oldest_waiting_seconds", "Age of the oldest of the records", oldest)?;
        let help = "1 at what the producer is: working, stalled (no acknowledgement for seconds), failed (for good)";
        let mut states = encoder.encode_descriptor("drover_bus_producer_state", help, None, MetricType::Gauge)?;
        for (label, known) in STATES {
            let is_it = ConstGauge::new(f64::from(u8::from(known == state.producer)));
            is_it.encode(states.encode_family(&[("state", label)])?)?;
        }
        let replaced = ConstCounter::new(state.producers_replaced);
        let help = "Producers that failed for good and were replaced";
        replaced.encode(encoder.encode_descriptor("drover_bus_producers_replaced", help, None, MetricType::Counter)?)
    }
}
