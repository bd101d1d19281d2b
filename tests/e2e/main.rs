//! End to end: the real executable, real clients, an ordinary Kafka consumer.

mod chart;
mod chart_applied;
mod chart_options;
mod cluster;
mod console;
mod costs;
mod device_http;
mod examples;
mod first_path;
mod image;
mod jwt;
mod kafka_hangs;
mod killed;
mod ledger_faults;
mod load_jobs;
mod nodes;
mod operator;
mod readme;
mod separate;
mod sessions;
mod shadow_cli;
mod shadow_processes;
mod shadows;
mod snippets;
mod traces;
mod websocket;
