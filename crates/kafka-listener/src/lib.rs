//! Kafka protocol over the embedded bus, for ordinary consumers and producers.
//!
//! Adapter: `server` accepts, `authentication` finds out who it is (`sasl`) where that is asked, `connection` keeps requests
//! in order, `stream` and `wire` read and write them, `dispatch` finds the handler, to which `view` says what there is for
//! whom (`owners`). Who has which password and whose a topic is, the port `Authenticator` knows. One module per family of APIs: `versions`, `metadata`, `offsets`, `fetch`, `produce`, `admin`, `configs`,
//! `groups`. What is spoken and refused, and why: `docs/adr/0004-kafka-listener.md`.

mod admin;
mod authentication;
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
mod owners;
mod ports;
mod produce;
mod refusal;
mod sasl;
mod server;
mod stream;
mod versions;
mod view;
mod wire;

pub use config::{ListenerConfig, ListenerError, OFFSET_GROUPS_MAX, SaslSsl, Security};
pub use metrics::Metrics;
pub use owners::KEPT_FOR as OWNERS_KEPT_FOR;
pub use ports::{Authenticator, NotAdmitted, Principal, Unavailable};
pub use server::serve;
