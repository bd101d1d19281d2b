//! What the ingress needs from others, besides the shared ports.
//!
//! Port layer: promises, no code. The one adapter that asks the registry is in `adapters/registry.rs`.

use std::sync::Arc;

use async_trait::async_trait;

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::reverify::Affected;

/// Says who somebody is.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Answers within its own deadline. `generation` is the number of the newest revocation known to the caller when
    /// it asks; an answer is never older than that. [`AuthenticateError::Unavailable`] when nobody could tell.
    async fn authenticate(&self, proof: Proof, generation: u64) -> Result<Arc<Identity>, AuthenticateError>;

    /// Forgets what is known of the identities that a change may concern.
    fn forget(&self, affected: &Affected);
}
