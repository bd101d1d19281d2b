//! What rules are and what they make of a record. Synchronous, without I/O: the engine around it reads and commits.

mod action;
mod alarms;
mod batch;
mod definition;
mod fault;
mod filter_trie;
mod in_force;
mod lane;
mod lanes;
mod letters;
mod message;
mod output;
mod rule_set;
mod states;
mod status;
mod view;
mod window;

pub use batch::{Batch, Evaluation, Tally, came_ms, source_of};
pub use definition::Definition;
pub use fault::fault;
pub use in_force::{InForce, Offsets};
pub use lane::{Due, Entries, Entry, Verdict};
pub use lanes::{LaneKey, Lanes, Load};
pub use letters::{ERRORS_TOPIC, Letter, OUTBOX_TOPIC, RETRY_TOPIC, open_letter};
pub use rule_set::RuleSet;
pub use states::{Held, STATE_TOPIC, States, Waiting};
pub use status::{ActionTally, Board, Condition, LastError, RuleKey, RuleState, RuleTally};
pub use view::{View, Views};
