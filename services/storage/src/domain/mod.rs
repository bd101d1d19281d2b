//! What is kept of a record, and how a question is answered from what is kept.

mod batch;
mod fields;
mod heard;
mod known_fields;
mod query;
mod row;
mod steps;
mod token;

pub use batch::{Batch, Tally};
pub use fields::Skip;
pub use heard::check_devices;
pub use known_fields::KnownFields;
pub use query::{LATEST, MESSAGES, Queries, RANGE, Range};
pub use row::entry as row_entry;
pub use steps::Step;
pub use token::Token;
