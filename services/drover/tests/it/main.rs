//! The real executable: how it starts, refuses, stops and starts again.

mod audit;
mod authority;
mod client;
mod cluster;
mod command;
mod damaged;
mod device;
mod functions;
mod https;
mod kafka;
mod kinds;
mod metrics;
mod platform;
mod process;
mod query;
mod refusals;
mod separate;
mod shadow;
mod token;
mod tools;
mod up;
