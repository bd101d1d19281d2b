//! What a command is, and what the log makes of it.
//!
//! Domain layer, pure: no I/O and no clock. The same records in the same order make the same executions.

mod change;
mod execution;
mod fold;
mod key;
mod record;

pub use change::{Change, What};
pub use execution::{Answered, Body, Execution, Head, SLOTS, Slot, Status, forgotten_before_ms, room, shown};
pub use fold::{Commands, Outcome};
pub use key::keyed_id;
pub use record::{CommandEvent, Event, MalformedCommand, NewCommand, forget_record, new_record};
