//! The Kafka adapter of the Bus port.
