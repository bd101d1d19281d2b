//! What a CONNECT waits for: who it is, then that its session belongs to this node, then that what is new of it is kept.
//!
//! Server layer: the questions as futures, of which a connection has one at a time.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::domain::connection::Admission;
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::node::Node;
use crate::domain::ownership::Claim;
use crate::domain::sessions::{AttachError, Attached};

/// The answer to one of them.
pub enum Answer {
    Identity(Result<Arc<Identity>, AuthenticateError>),
    Owner(Box<Admission>, Result<Claim, AttachError>),
    Settled(Box<Attached>),
    /// There is none: it has panicked.
    Failed,
}

/// Asks who it is, then waits for the room its presence reports take.
pub fn authenticate(node: Arc<Node>, proof: Proof) -> BoxFuture<'static, Answer> {
    async move {
        let generation = node.sessions.generation();
        let identity = node.authenticator.authenticate(proof, generation).await;
        if identity.is_ok() {
            node.reports.reserve().await;
        }
        Answer::Identity(identity)
    }
    .boxed()
}

/// Takes the session of an admitted client for this node.
pub fn take(node: Arc<Node>, admission: Box<Admission>) -> BoxFuture<'static, Answer> {
    async move {
        let key = (admission.identity.tenant.clone(), admission.client.clone());
        // One that is over a quota takes nothing from anybody.
        let room = node.sessions.check_connections(&key, &admission.identity.device);
        let claim = match room {
            Ok(()) => node.take(key).await,
            Err(error) => Err(error),
        };
        Answer::Owner(admission, claim)
    }
    .boxed()
}

/// Waits until the store has what became of the session, and other nodes know what it wants.
pub fn settle(node: Arc<Node>, attached: Attached) -> BoxFuture<'static, Answer> {
    async move {
        node.settled(attached.awaited).await;
        Answer::Settled(Box::new(attached))
    }
    .boxed()
}
