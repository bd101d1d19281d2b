//! The gateway alone, over real sockets: services of a few lines stand behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod audit;
mod commands;
mod console;
mod fake_audit;
mod fake_authorities;
mod fake_bus;
mod fake_commands;
mod fake_functions;
mod fake_kinds;
mod fake_series;
mod fake_tokens;
mod fakes;
mod kinds;
mod rest;
mod running;
mod series;
mod stream;
mod tokens;
