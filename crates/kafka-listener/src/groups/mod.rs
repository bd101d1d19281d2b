//! Consumer groups: the state machine ([`state`], [`member`], [`exchange`]), its shell ([`coordinator`]), and the APIs over it:
//! [`membership`], [`progress`] (offsets) and [`inspection`]. How long offsets stay: [`retention`].
//! What tenants call their groups: [`names`].

mod coordinator;
mod exchange;
mod inspection;
mod member;
mod membership;
pub mod names;
mod progress;
mod retention;
mod state;
#[cfg(test)]
mod tests;

pub use coordinator::Coordinator;
pub use inspection::{delete, describe, list};
pub use membership::{find_coordinator, heartbeat, join, leave, sync};
pub use progress::{commit, committed};
pub use retention::{Retention, expire};

use kafka_protocol::ResponseError;

use crate::dispatch::Peer;
use crate::refusal;

/// Longest name of a group, bytes; it is kept with the group's offsets.
const GROUP_BYTES_MAX: usize = 1_024;

/// Groups of the platform are moved by the platform alone: a foreign offset would break exactly-once.
fn check_name(group: &str, peer: &Peer) -> Result<(), ResponseError> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX {
        return Err(ResponseError::InvalidGroupId);
    }
    if refusal::is_reserved(group) {
        tracing::warn!(group, remote = %peer.remote, "kafka client refused: the group belongs to the platform");
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    Ok(())
}
