//! The ingress alone, through its public interface: real sockets, the embedded log, a registry of the test's own.

mod bus;
mod counted;
mod delivery;
mod events;
mod functions;
mod http;
mod mqtt;
mod owners;
mod raw;
mod registry;
mod rights;
mod shadows;
mod stage;
mod tls;
mod tools;
mod websocket;
