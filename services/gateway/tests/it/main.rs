//! The gateway alone, over real sockets: a registry and a rules service of a few lines stand behind it.

mod fake_bus;
mod fakes;
mod rest;
mod running;
mod stream;
