//! Commands: the loop that folds their log into the store and hands them to the ingress, the service that sends and shows
//! them, and the sweep that forgets them.

mod deliveries;
mod engine;
mod sends;
mod server;
mod sweep;

pub use engine::{CommandEngine, GROUP};
pub use sends::Sends;
pub use server::CommandServer;
pub use sweep::Sweep;
