//! Whose key a handshake needs, and who answers that.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::node::Node;
use crate::ports::{Keys, SharedKey};

/// A key that a handshake needs.
#[derive(Clone, Debug)]
pub struct Question {
    pub address: SocketAddr,
    /// Of the handshake.
    pub id: u64,
    /// As the client says it.
    pub identity: Vec<u8>,
    /// Cancelled when the handshake has come to its end, or needs no answer any more.
    pub ended: CancellationToken,
}

/// What is known of an identity.
pub enum Answer {
    Known(Box<Shown>),
    /// Nobody has it, or may not come in.
    Nobodys,
    /// Nobody could tell.
    Unknown,
}

/// What a handshake has to show that it knows, and who that is.
pub struct Shown {
    pub identity: Vec<u8>,
    pub key: Vec<u8>,
    pub proof: Proof,
    pub who: Arc<Identity>,
}

/// Asks for the key, and then who that is and what they may do.
pub async fn ask(keys: &dyn Keys, node: &Node, question: &Question) -> Answer {
    match find(keys, node, question).await {
        Ok(shown) => Answer::Known(Box::new(shown)),
        Err(error @ AuthenticateError::Unavailable { .. }) => {
            tracing::debug!(address = %question.address, %error, "a key cannot be asked for");
            Answer::Unknown
        }
        Err(error @ (AuthenticateError::Wrong { .. } | AuthenticateError::Refused { .. })) => {
            let identity = String::from_utf8_lossy(&question.identity);
            tracing::info!(address = %question.address, ?identity, %error, "a handshake is refused");
            Answer::Nobodys
        }
    }
}

async fn find(keys: &dyn Keys, node: &Node, question: &Question) -> Result<Shown, AuthenticateError> {
    let no_text = |_| AuthenticateError::Wrong { reason: "the identity is no text".to_owned() };
    let identity = std::str::from_utf8(&question.identity).map_err(no_text)?;
    let SharedKey { tenant, device, credential, key } = keys.find(identity).await?;
    let proof = Proof::PreSharedKey { tenant, device, credential };
    let generation = node.sessions.generation();
    let who = node.authenticator.authenticate(proof.clone(), generation).await?;
    Ok(Shown { identity: question.identity.clone(), key, proof, who })
}
