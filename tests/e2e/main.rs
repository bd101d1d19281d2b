//! End to end: the real executable, real clients, an ordinary Kafka consumer.

mod console;
mod device_http;
mod examples;
mod first_path;
mod killed;
mod separate;
mod shadow_processes;
mod shadows;
mod traces;
