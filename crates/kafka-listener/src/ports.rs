//! What the listener has to know and others do: who has which password, and whose a topic is.
//!
//! Ports layer.

use async_trait::async_trait;
use drover_types::TenantId;

/// Whom a connection speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Everything is theirs.
    Administrator,
    /// A tenant: only what is its own is there, and to write it takes a right.
    Tenant { tenant: TenantId, may_write: bool },
}

impl Principal {
    /// Whether it may write records, and make or delete anything.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Administrator => true,
            Self::Tenant { may_write, .. } => *may_write,
        }
    }
}

/// It cannot be known now; later it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody can be asked who a client is and what is its own: {reason}")]
pub struct Unavailable {
    pub reason: String,
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// Nobody has this user name and password, or not any more.
    #[error("user name or password is wrong")]
    Unknown,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Knows the users, and the owners of topics. Answers are final for this moment only: the listener asks again.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Who has this user name and password.
    async fn authenticate(&self, user: &str, password: &str) -> Result<Principal, NotAdmitted>;
    /// Whose each of these topics is, in their order, whether they exist or not; `None`: no tenant's.
    async fn owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, Unavailable>;
}
