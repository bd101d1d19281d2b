//! The listener through its public interface, with clients nobody here wrote.

mod answers;
mod broker;
mod console;
mod groups;
mod java;
mod kcat;
mod limits;
mod produce_and_fetch;
mod raw;
mod secured;
mod topics;
mod users;
