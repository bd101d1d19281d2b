//! What a connection sees of the log: everything, or what is its tenant's (P9). What is not in the view does not exist for
//! the client, whatever it asks.
//!
//! Adapter layer: every handler of a request that names topics is given a view, made for that request alone.

use std::collections::HashSet;
use std::time::Duration;

use drover_bus::{Bus, TopicConfig};
use drover_types::TenantId;

use crate::config::Security;
use crate::configs::TOPIC_RESOURCE;
use crate::dispatch::Listener;
use crate::owners::KEPT_FOR;
use crate::ports::{Principal, Unavailable};
use crate::refusal;
use crate::wire::api::Request;

/// Most topics that a tenant may name in one request: each may have to be asked for.
const NAMES_MAX: usize = 10_000;
/// Most partitions of all topics named `TENANT.…` together, for a tenant to make a further topic: each is files and memory.
const TENANT_PARTITIONS_MAX: u64 = 4_096;

/// What there is for a connection.
#[derive(Clone, Debug)]
pub enum View {
    Everything,
    Of(Own),
}

/// What is a tenant's.
#[derive(Clone, Debug)]
pub struct Own {
    tenant: TenantId,
    may_write: bool,
    /// Those of the topics the request names, or of all there are.
    topics: HashSet<String>,
}

/// The topics that a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    Named(HashSet<String>),
    All,
}

/// Why there is no view; the connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum NoView {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("a request names {names} topics, limit is {NAMES_MAX}")]
    TooMany { names: usize },
}

impl View {
    /// Whether the topic is one for this connection, there or not.
    pub fn sees(&self, topic: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(own) => own.topics.contains(topic),
        }
    }

    /// Whether this connection may write what it sees.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Of(own) => own.may_write,
        }
    }

    /// Whether a topic of that many partitions may be made besides all `existing` ones.
    pub fn has_room(&self, existing: &[TopicConfig], partitions: u32) -> bool {
        let Self::Of(own) = self else { return true };
        let named = |topic: &str| topic.strip_prefix(own.tenant.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let theirs = existing.iter().filter(|config| named(&config.topic)).map(|config| u64::from(config.partitions));
        theirs.sum::<u64>() + u64::from(partitions) <= TENANT_PARTITIONS_MAX
    }

    /// How long an answer may go by this view.
    pub fn lasts(&self) -> Duration {
        match self {
            Self::Everything => Duration::MAX,
            Self::Of(_) => KEPT_FOR,
        }
    }
}

impl Topics {
    /// Those of a request; for the administrator nobody looks.
    pub fn of(principal: &Principal, request: &Request) -> Self {
        fn named<N: ToString>(names: impl IntoIterator<Item = N>) -> Topics {
            Topics::Named(names.into_iter().map(|name| name.to_string()).collect())
        }
        if *principal == Principal::Administrator {
            return Self::Named(HashSet::new());
        }
        match request {
            Request::Metadata(r) => match &r.topics {
                // In version 0 an empty list means all.
                Some(topics) if !topics.is_empty() => {
                    named(topics.iter().filter_map(|topic| topic.name.as_ref()).map(|name| name.as_str()))
                }
                Some(_) | None => Self::All,
            },
            Request::Fetch(r) => named(r.topics.iter().map(|topic| topic.topic.as_str())),
            Request::Produce(r) => named(r.topic_data.iter().map(|topic| topic.name.as_str())),
            Request::ListOffsets(r) => named(r.topics.iter().map(|topic| topic.name.as_str())),
            Request::OffsetForLeaderEpoch(r) => named(r.topics.iter().map(|topic| topic.topic.as_str())),
            Request::OffsetCommit(r) => named(r.topics.iter().map(|topic| topic.name.as_str())),
            Request::CreateTopics(r) => named(r.topics.iter().map(|topic| topic.name.as_str())),
            Request::DeleteTopics(r) => named(r.topic_names.iter().map(|name| name.as_str())),
            Request::DescribeConfigs(r) => {
                let topics = r.resources.iter().filter(|resource| resource.resource_type == TOPIC_RESOURCE);
                named(topics.map(|resource| resource.resource_name.as_str()))
            }
            Request::ApiVersions(_)
            | Request::SaslHandshake(_)
            | Request::SaslAuthenticate(_)
            | Request::DescribeCluster(_)
            | Request::InitProducerId(_)
            | Request::FindCoordinator(_)
            | Request::JoinGroup(_)
            | Request::SyncGroup(_)
            | Request::Heartbeat(_)
            | Request::LeaveGroup(_)
            | Request::OffsetFetch(_)
            | Request::DescribeGroups(_)
            | Request::ListGroups(_)
            | Request::DeleteGroups(_) => Self::Named(HashSet::new()),
        }
    }
}

impl Listener {
    /// What of `topics` is there for `principal`. Nothing of the platform is a tenant's.
    pub async fn view(&self, principal: &Principal, topics: Topics) -> Result<View, NoView> {
        let Security::SaslSsl(sasl) = &self.config.security else { return Ok(View::Everything) };
        let Principal::Tenant { tenant, may_write } = principal else { return Ok(View::Everything) };
        let mut topics = match topics {
            Topics::Named(names) if names.len() > NAMES_MAX => return Err(NoView::TooMany { names: names.len() }),
            Topics::Named(names) => names,
            Topics::All => {
                let known = self.bus.topics().await.map_err(|error| Unavailable { reason: error.to_string() })?;
                known.into_iter().map(|config| config.topic.to_string()).collect()
            }
        };
        topics.retain(|topic| !refusal::is_reserved(topic));
        let topics = self.owners.those_of(tenant, topics, &*sasl.authenticator).await?;
        Ok(View::Of(Own { tenant: tenant.clone(), may_write: *may_write, topics }))
    }
}

#[cfg(test)]
mod tests;
