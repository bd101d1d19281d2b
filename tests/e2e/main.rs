//! End to end: the real executable, real clients, an ordinary Kafka consumer.

mod console;
mod costs;
mod device_http;
mod examples;
mod first_path;
mod kafka_hangs;
mod killed;
mod ledger_faults;
mod separate;
mod shadows;
mod traces;
