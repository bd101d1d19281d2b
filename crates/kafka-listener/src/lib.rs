//! Kafka protocol over the embedded bus, for ordinary consumers and producers.
