//! The operator's turns against an API server that follows a script, and a platform in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod cluster;
mod devices;
mod finalizers;
mod fleets;
mod functions;
mod platform;
mod rules;
mod stage;
mod turns;
mod webhook;
