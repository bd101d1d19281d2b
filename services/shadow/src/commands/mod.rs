//! Commands: the loop that folds their log into the store and hands them to the ingress, and the service that sends and shows
//! them.

mod deliveries;
mod engine;
mod sends;
mod server;

pub use engine::{CommandEngine, GROUP};
pub use sends::Sends;
pub use server::CommandServer;
