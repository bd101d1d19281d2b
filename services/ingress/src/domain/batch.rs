//! A gateway's batch: messages of many devices in one request, as JSON Lines.
//!
//! Domain layer, pure. A row is judged by itself; what one row lacks is no other row's fault.

mod lines;
mod row;

pub use lines::{Line, Lines};
pub use row::{AHEAD_MS_MAX, Row};
