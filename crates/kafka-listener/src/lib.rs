//! Kafka protocol over the embedded bus, for ordinary consumers and producers.
//!
//! Adapter: `server` accepts, `connection` keeps requests in order, `wire` reads and writes them, `dispatch` finds the
//! handler. One module per family of APIs: `versions`, `metadata`, `offsets`, `fetch`, `produce`, `admin`, `configs`,
//! `groups`. What is spoken and refused, and why: `docs/adr/0004-kafka-listener.md`.

mod admin;
mod batch;
mod config;
mod configs;
mod connection;
mod dispatch;
mod fetch;
mod groups;
mod metadata;
mod metrics;
mod offsets;
mod produce;
mod refusal;
mod server;
mod versions;
mod wire;

pub use config::{ListenerConfig, ListenerError, OFFSET_GROUPS_MAX};
pub use metrics::Metrics;
pub use server::serve;
