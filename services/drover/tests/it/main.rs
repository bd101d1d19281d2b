//! The real executable: how it starts, refuses, stops and starts again.

mod client;
mod cluster;
mod process;
mod refusals;
mod tools;
mod up;
