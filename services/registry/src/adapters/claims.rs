//! What a claim of a Kafka topic is after a rule has claimed or released it, and how a store writes it down.
//!
//! Pure, and the same for every store: each brings the old and the new claim to its row in one step of its own.

use crate::object::ObjectKey;
use crate::ports::{StoreError, TopicClaim};

/// The claim after `rule` has claimed the topic, which is also the answer; unchanged if it is another tenant's.
pub fn claimed(before: Option<TopicClaim>, rule: &ObjectKey, now_ms: u64) -> (Option<TopicClaim>, TopicClaim) {
    let mut claim =
        before.unwrap_or_else(|| TopicClaim { tenant: rule.tenant.clone(), rules: Vec::new(), claimed_ms: now_ms });
    if claim.tenant == rule.tenant {
        claim.claimed_ms = now_ms;
        if let Err(place) = claim.rules.binary_search(&rule.name) {
            claim.rules.insert(place, rule.name.clone());
        }
    }
    (Some(claim.clone()), claim)
}

/// The claim without `rule`; none without its last rule.
pub fn released(before: Option<TopicClaim>, rule: &ObjectKey) -> Option<TopicClaim> {
    let mut claim = before?;
    if claim.tenant == rule.tenant {
        claim.rules.retain(|name| *name != rule.name);
    }
    Some(claim).filter(|claim| !claim.rules.is_empty())
}

/// A claim's row.
pub fn write(claim: &TopicClaim) -> Vec<u8> {
    serde_json::to_vec(claim).expect("numbers and strings are JSON")
}

/// The claim of a row.
pub fn read(row: &[u8]) -> Result<TopicClaim, StoreError> {
    serde_json::from_slice(row).map_err(|e| StoreError::Corrupt { reason: format!("claim of a topic: {e}") })
}
