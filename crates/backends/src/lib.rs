//! Real servers for tests: fetched from public registries into a cache, started on free ports, gone with the test. And a
//! small disk.
//!
//! For tests only, so it knows nothing of the platform. Where a server cannot be had, one line `NOT RUN:` says why.

#![expect(
    clippy::disallowed_methods,
    reason = "blocking by design: there is no runtime here, and servers live in real time"
)]

pub mod cassandra;
pub mod certificates;
mod guard;
pub mod kafka;
pub mod ports;
pub mod small_disk;
