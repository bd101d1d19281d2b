//! The ingress's ways in: MQTT over TCP, TLS and WebSocket, HTTP, CoAP, and gRPC.
//!
//! Server layer: moves bytes and carries out effects; decides nothing about a protocol.

mod appends;
pub mod coap;
pub mod grpc;
pub mod http;
pub mod listener;
mod mqtt;
mod questions;
mod stream;
pub mod tls;
mod websocket;
