//! Whose a Kafka topic is, for who shows topics to tenants: that of the claim on it, else the tenant it is named for
//! (`TENANT.…`); of the platform's, none is a tenant's.
//!
//! A claim on a topic named for another tenant that has API tokens makes it nobody's: that tenant may have written to it
//! before, and who claims it must not read that; nor must that tenant read what the claimant's rules write now.

use drover_types::{ApiError, TenantId};

use super::Domain;
use crate::object::Kind;

/// Most topics of one question.
pub const TOPICS_MAX: usize = 256;
/// Topics of the platform itself.
const RESERVED_PREFIX: &str = "drover.";

impl Domain {
    /// Whose each of these topics is now, in their order; `None`: no tenant's. `invalid_argument` if there are over
    /// [`TOPICS_MAX`].
    pub async fn topic_owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, ApiError> {
        if topics.len() > TOPICS_MAX {
            return Err(ApiError::invalid("topics", "too many topics").over(TOPICS_MAX, topics.len()));
        }
        let mut owners = Vec::with_capacity(topics.len());
        for topic in topics {
            owners.push(self.topic_owner(topic).await?);
        }
        Ok(owners)
    }

    async fn topic_owner(&self, topic: &str) -> Result<Option<TenantId>, ApiError> {
        if topic.starts_with(RESERVED_PREFIX) {
            return Ok(None);
        }
        let named = named_for(topic);
        let Some(claim) = self.store.topic_claim(topic).await? else { return Ok(named) };
        match named.filter(|named| *named != claim.tenant) {
            Some(other) if self.has_api_tokens(&other).await? => Ok(None),
            Some(_) | None => Ok(Some(claim.tenant)),
        }
    }

    /// Whether anybody can show a token of the tenant, or could until it ended.
    async fn has_api_tokens(&self, tenant: &TenantId) -> Result<bool, ApiError> {
        Ok(!self.store.page(Kind::ApiToken, tenant, "", 1).await?.is_empty())
    }
}

/// The tenant whose name a topic begins with.
fn named_for(topic: &str) -> Option<TenantId> {
    TenantId::new(topic.split_once('.')?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_for_what_is_before_its_first_dot_if_that_is_a_tenant() {
        let named = |topic: &str| named_for(topic).map(|tenant| tenant.to_string());
        assert_eq!(named("home.hot.rooms").as_deref(), Some("home"));
        assert_eq!(named("default.").as_deref(), Some("default"));
        for nobodys in ["home", "Home.hot", "my_home.hot", ".hot", ""] {
            assert_eq!(named(nobodys), None, "{nobodys}");
        }
    }
}
