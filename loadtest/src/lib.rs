//! Load and proof: scenarios of simulated fleets, a ledger of who sent, who acknowledged and who got, a client for tests.
//!
//! Speaks to any MQTT broker; knows nothing of Drover's services. `session` is the way of one run: `controller` starts
//! `worker` processes or waits for those that are `remote`, `series` adds up what they tell, `books` checks the ledger, `report` says what came of it.

pub mod bench;
pub mod books;
pub mod bound;
pub mod chaos;
pub mod client;
mod clock;
pub mod controller;
pub mod guarded;
pub mod kubernetes;
pub mod ledger;
pub mod live;
pub mod metrics;
pub mod payload;
pub mod presence;
pub mod remote;
pub mod report;
pub mod scenario;
pub mod series;
pub mod session;
pub mod tally;
pub mod target;
pub mod threshold;
pub mod versions;
pub mod worker;
