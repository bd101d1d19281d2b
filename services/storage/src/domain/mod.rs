//! What is kept of a record, and how a question is answered from what is kept.

mod batch;
mod fields;
mod known_fields;
mod query;
mod steps;
mod token;

pub use batch::{Batch, Tally};
pub use fields::Skip;
pub use known_fields::KnownFields;
pub use query::{LATEST, MESSAGES, Queries, RANGE, Range};
pub use steps::Step;
pub use token::Token;
