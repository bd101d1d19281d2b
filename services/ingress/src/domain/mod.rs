//! All decisions of the ingress: who may do what, what a connection says, who gets a message.
//!
//! Domain layer: no sockets, no gRPC, no system time; what takes time leaves as an effect or goes through a port.

pub mod authorize;
pub mod batch;
pub mod bucket;
pub mod coap;
pub mod confirmations;
pub mod connection;
pub mod filter;
pub mod foreign;
pub mod identity;
pub mod inherit;
pub mod interest;
pub mod journal;
pub mod lifecycle;
pub mod line_protocol;
pub mod link;
pub mod log_topics;
pub mod message;
pub mod node;
pub mod notices;
pub mod ownership;
pub mod peers;
pub mod post;
pub mod presence;
pub mod quotas;
pub mod restore;
pub mod retained;
pub mod reverify;
pub mod revocations;
pub mod router;
pub mod session;
pub mod sessions;
pub mod shares;
pub mod update;
