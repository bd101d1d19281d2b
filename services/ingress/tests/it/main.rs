//! The ingress alone, through its public interface: real sockets, the embedded log, a registry of the test's own.

mod answers;
mod batch;
mod bus;
mod coap;
mod coap_clients;
mod coaps;
mod counted;
mod delivery;
mod events;
mod functions;
mod http;
mod lanes;
mod mqtt;
mod owners;
mod proxied;
mod quotas;
mod raw;
mod registry;
mod rights;
mod sessions;
mod shadows;
mod stage;
mod stores;
mod tls;
mod tools;
mod websocket;
