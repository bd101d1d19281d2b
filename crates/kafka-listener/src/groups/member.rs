//! One member of a consumer group: what it said of itself and what it waits for.
//!
//! Domain layer, sans-IO.

use bytes::Bytes;

use super::exchange::{Identity, Join, Ticket};
use super::state::REBALANCE_TIMEOUT_MS_MAX;

/// A way to share the work, with what the member has to say for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// What a member waits for. While it waits, its session does not run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    No,
    /// The next generation.
    Join(Ticket),
    /// Its assignment.
    Sync(Ticket),
}

/// A member of a group.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Member {
    pub identity: Identity,
    pub client_id: String,
    pub client_host: String,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub waiting: Waiting,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    /// Silent until then, it is removed.
    pub expires_ms: u64,
}

impl Waiting {
    /// The ticket of the request that waits.
    pub fn ticket(self) -> Option<Ticket> {
        match self {
            Waiting::No => None,
            Waiting::Join(ticket) | Waiting::Sync(ticket) => Some(ticket),
        }
    }
}

impl Join {
    /// What the joining member says for protocol `name`.
    pub fn metadata_of(&self, name: &str) -> Option<&Bytes> {
        metadata_of(&self.protocols, name)
    }
}

impl Member {
    /// A new member that waits for its first generation.
    pub fn joining(id: String, join: Join) -> Self {
        Self {
            identity: Identity { member: id, instance: join.who.instance },
            client_id: join.client_id,
            client_host: join.client_host,
            protocols: join.protocols,
            assignment: Bytes::new(),
            waiting: Waiting::Join(join.ticket),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms.min(REBALANCE_TIMEOUT_MS_MAX),
            expires_ms: u64::MAX,
        }
    }

    /// Takes over what a member says when it joins again.
    pub fn update(&mut self, now_ms: u64, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.protocols.clone_from(&join.protocols);
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms.min(REBALANCE_TIMEOUT_MS_MAX);
        self.touch(now_ms);
    }

    /// It has given a sign of life.
    pub fn touch(&mut self, now_ms: u64) {
        self.expires_ms = now_ms + self.session_timeout_ms;
    }

    /// It waits for the next generation.
    pub fn has_joined(&self) -> bool {
        matches!(self.waiting, Waiting::Join(_))
    }

    /// What it says for protocol `name`.
    pub fn metadata_of(&self, name: &str) -> Option<&Bytes> {
        metadata_of(&self.protocols, name)
    }
}

fn metadata_of<'a>(protocols: &'a [Protocol], name: &str) -> Option<&'a Bytes> {
    protocols.iter().find(|p| p.name == name).map(|p| &p.metadata)
}
