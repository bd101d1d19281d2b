//! What every adapter of a port must do: one suite a port.

mod owners;
mod retained;
mod sessions;

pub use owners::{Factory, alone, shared};
pub use retained::{BOUNDS, REMOVAL_MS, RetainedFactory, message as retained_message, moment_ms, retained};
pub use sessions::{SessionFactory, sessions};
