//! Whether open connections may still do what they were admitted for: asked again after a change, one by one.
//!
//! Domain layer over the Authenticator port. What waits is a set of clients, so a burst of changes asks once; nobody is
//! closed because nobody could tell, only because the answer is no.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_types::{ClientId, TenantId};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::node::Node;

/// Questions on their way at the same time, as many as one call takes: the rest of the registry's attention is for those
/// who connect.
const QUESTIONS_MAX: usize = 256;
/// Clients taken at once; one that changes again meanwhile waits for the next turn.
const TURN_MAX: usize = 1_024;
/// Wait before those that nobody could tell of are asked for again.
const RETRY: Duration = Duration::from_millis(200);

/// Which connections a change may concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Changes may have been missed.
    All,
    Device {
        tenant: TenantId,
        device: String,
    },
    /// Those whose identity has statements of this policy.
    Policy {
        tenant: TenantId,
        policy: String,
    },
}

impl Affected {
    /// Whether it is about a connection with this identity.
    pub fn concerns(&self, identity: &Identity) -> bool {
        match self {
            Affected::All => true,
            Affected::Device { tenant, device } => identity.tenant == *tenant && identity.device.as_str() == device,
            Affected::Policy { tenant, policy } => {
                identity.tenant == *tenant && identity.policy.names().iter().any(|name| **name == **policy)
            }
        }
    }
}

/// The clients to ask for: at most one entry a session of this node.
#[derive(Debug, Default)]
pub struct Reverify {
    waiting: Mutex<BTreeSet<(TenantId, ClientId)>>,
    more: Notify,
}

impl Reverify {
    /// Adds clients.
    pub fn add(&self, clients: impl IntoIterator<Item = (TenantId, ClientId)>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(clients);
        self.more.notify_one();
    }

    fn take(&self) -> Vec<(TenantId, ClientId)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| waiting.pop_first()).take(TURN_MAX).collect()
    }
}

/// Asks for whoever waits, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        loop {
            let turn = node.reverify.take();
            if turn.is_empty() {
                node.reverify.more.notified().await;
                continue;
            }
            let questions = stream::iter(turn).map(|client| ask(&node, client)).buffer_unordered(QUESTIONS_MAX);
            let open: Vec<_> = questions.filter_map(std::future::ready).collect().await;
            if !open.is_empty() {
                tracing::debug!(connections = open.len(), "open connections cannot be verified yet");
                node.reverify.add(open);
                tokio::time::sleep(RETRY).await;
            }
        }
    })
    .await;
}

/// The client again if nobody could tell.
async fn ask(node: &Node, client: (TenantId, ClientId)) -> Option<(TenantId, ClientId)> {
    let (publisher, identity) = node.sessions.identity(&client)?;
    let generation = node.sessions.generation();
    let known = Proof::Known {
        tenant: identity.tenant.clone(),
        device: identity.device.clone(),
        credential: identity.credential.to_string(),
    };
    match node.authenticator.authenticate(known, generation).await {
        Ok(identity) => node.sessions.reauthorize(&publisher, &identity),
        Err(AuthenticateError::Wrong { .. } | AuthenticateError::Refused { .. }) => node.sessions.expel(&publisher),
        Err(AuthenticateError::Unavailable { .. }) => return Some(client),
    }
    None
}
