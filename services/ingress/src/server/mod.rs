//! The ingress's ways in: MQTT over TCP and TLS, HTTP, and gRPC.
//!
//! Server layer: moves bytes and carries out effects; decides nothing about a protocol.

mod appends;
pub mod grpc;
pub mod http;
pub mod listener;
mod mqtt;
mod questions;
pub mod tls;
