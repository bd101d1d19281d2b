//! The client driver and the load generator against a small server that can be told to misbehave.

mod driver;
mod generator;
mod server;
