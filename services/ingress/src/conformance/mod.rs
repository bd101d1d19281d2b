//! What every adapter of a port must do: one suite a port.

mod owners;
mod retained;
mod sessions;

pub use owners::{Factory, alone, shared};
pub use retained::{BOUNDS, RetainedFactory, message as retained_message, retained};
pub use sessions::{SessionFactory, sessions};
