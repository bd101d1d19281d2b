//! Deterministic simulation: seeded randomness, a virtual clock and a bus that fails by seed; for tests only.
//!
//! Everything here runs on one thread under tokio's paused clock and uses neither OS time nor hash-map order, so that a seed
//! replays exactly (ADR 38).

mod broken;
mod bus;
mod clock;
pub mod disk;
mod faults;
mod groups;
mod log;

pub use broken::{Broken, BrokenBus};
pub use bus::SimBus;
pub use clock::{SeededRandom, VirtualClock};
pub use faults::{BusFaults, Fate};
