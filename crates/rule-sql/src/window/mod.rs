//! Rules over many messages: windows, sessions and patterns, each group with a state of its own.
//!
//! A state machine without I/O. [`Groups`] is all that one rule knows of one partition of the log: messages and the
//! clock go in; rows, and states to be kept under their keys, come out. What comes out is decided by the messages in
//! their order and the clock, nothing else, so that whoever restores the states and goes on behind the last message
//! they have seen gets the same rows.
//!
//! States are held as they are written ([`state`]): what is in memory is what a restart reads back. A window closes
//! when the [`watermark`] has passed its end; [`panes`] and [`sessions`] are the two kinds of windows, [`pattern`] the
//! turns of single messages.

mod groups;
mod input;
mod panes;
mod pattern;
mod plan;
mod sessions;
mod state;
mod total;
mod watermark;

pub use groups::{Due, GROUP_BYTES_MAX, Groups, Room, Taken};
pub use input::{EVENT_AHEAD_MS_MAX, GROUP_KEY_BYTES_MAX};
pub use pattern::PATTERN_KEPT_MS;
pub use plan::{Closed, Plan};
pub use state::STATE_VERSION;
pub use watermark::IDLE_MS;
