//! The ingress's ways in: MQTT over TCP, TLS and WebSocket, HTTP, CoAP, and gRPC.
//!
//! Server layer: moves bytes and carries out effects; decides nothing about a protocol.

pub mod coap;
pub mod grpc;
pub mod http;
pub mod loops;
mod questions;
pub mod tls;
mod traced;
