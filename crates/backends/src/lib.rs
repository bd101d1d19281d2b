//! Real servers for tests: fetched once, started on loopback, killed, hung and restarted.
//!
//! A development dependency only. A server that cannot run because a tool is missing is `None`, after one line that
//! begins with `NOT RUN`; when the tools are there, whatever goes wrong fails the test.

pub mod cassandra;
