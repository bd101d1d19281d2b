//! What rules are and what they make of a record. Synchronous, without I/O: the engine around it reads and commits.

mod batch;
mod definition;
mod filter_trie;
mod letters;
mod rule_set;
mod states;
mod status;
mod view;
mod window;

pub use batch::{Batch, Evaluation, Tally};
pub use definition::Definition;
pub use letters::{ERRORS_TOPIC, OUTBOX_TOPIC, dead_letter, without_source};
pub use rule_set::RuleSet;
pub use states::{Held, STATE_TOPIC, States, Waiting};
pub use status::{Board, Condition, RuleKey, RuleState};
pub use view::{View, Views};
