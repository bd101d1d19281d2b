//! What ingress nodes share, in Cassandra or Scylla: retained messages, and sessions that outlive their connections.
//!
//! Adapter layer. Rows have the values of the embedded store. Every write has a timestamp of its own sense, so what comes
//! late, twice or in another order changes nothing.

mod late;
mod retained;
pub mod schema;
mod sessions;

use drover_scylla_kit::Failure;

use crate::ports::StoreError;
pub use late::Late;
pub use retained::Retained;
pub use sessions::Sessions;

/// What a failure means to the caller.
fn store_error(failure: Failure) -> StoreError {
    match failure {
        // A refusal has a cause outside as well: a right taken away, a table dropped by hand.
        Failure::Unavailable { .. } | Failure::Refused { .. } => {
            StoreError::Unavailable { reason: failure.to_string() }
        }
        Failure::Unreadable { reason } => StoreError::Corrupt { reason },
    }
}
