//! The embedded store of one node: one fjall database in a directory of its own.
//!
//! Adapter layer. It is made when something is kept for the first time: who retains nothing pays nothing. After a
//! failed write the database is dropped and opened again by the next call, which cuts what was half-written.

mod open;
mod retained;
mod rows;

pub use retained::Retained;
