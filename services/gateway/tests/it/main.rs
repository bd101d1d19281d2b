//! The gateway alone, over real sockets: a registry and a rules service of a few lines stand behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod fake_bus;
mod fakes;
mod rest;
mod running;
mod stream;
