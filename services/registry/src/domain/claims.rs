//! Kafka topics: each belongs to the first tenant whose rule writes to it, until the last such rule goes.
//!
//! A claim is written before its rule, and given up after the rule no longer needs it: whatever fails in between leaves
//! a claim too many, never a rule without its claim. One that is left over is found when another tenant wants the topic.

use std::collections::BTreeSet;

use drover_types::object::RuleSpec;
use drover_types::{ApiError, ErrorCode};

use super::Domain;
use super::rules::spec;
use crate::object::{Kind, ObjectKey};
use crate::ports::StoreError;

/// A younger claim may be that of a rule about to be written, milliseconds; far longer than a write takes.
const CLAIM_SETTLES_MS: u64 = 60_000;

impl Domain {
    /// Claims every topic the rule is to write to; `already_exists` names the field of one that is another tenant's,
    /// and never that tenant.
    pub(super) async fn claim_topics(&self, rule: &ObjectKey, wanted: &RuleSpec) -> Result<(), ApiError> {
        for (field, topic) in outputs(wanted) {
            if !self.claim_topic(rule, topic).await? {
                let message = format!("topic {topic} belongs to another tenant");
                let error = ApiError::new(ErrorCode::AlreadyExists, message);
                return Err(ApiError { field: Some(field), value: Some(topic.to_owned()), ..error });
            }
        }
        Ok(())
    }

    /// Gives up those topics of `specs` that the rule, as it is stored now, does not write to. A failure leaves claims
    /// too many.
    pub(super) async fn settle_topics(&self, rule: &ObjectKey, specs: impl IntoIterator<Item = &RuleSpec>) {
        let topics: BTreeSet<&str> = specs.into_iter().flat_map(outputs).map(|(_, topic)| topic).collect();
        for topic in topics {
            let settled = match self.writes_to(rule, topic).await {
                Ok(true) => Ok(()),
                Ok(false) => self.store.release_topic(topic, rule).await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                tracing::warn!(%rule, topic, %error, "a topic that is not needed may stay claimed for now");
            }
        }
    }

    /// Whether the topic is the rule's tenant's now.
    async fn claim_topic(&self, rule: &ObjectKey, topic: &str) -> Result<bool, StoreError> {
        let now_ms = self.clock.now_ms();
        let claim = self.store.claim_topic(topic, rule, now_ms).await?;
        if claim.tenant == rule.tenant {
            return Ok(true);
        }
        if now_ms.saturating_sub(claim.claimed_ms) < CLAIM_SETTLES_MS {
            return Ok(false);
        }
        let writers = || claim.rules.iter().map(|name| ObjectKey::new(Kind::Rule, &claim.tenant, name));
        for writer in writers() {
            if self.writes_to(&writer, topic).await? {
                return Ok(false);
            }
        }
        for writer in writers() {
            self.store.release_topic(topic, &writer).await?; // what a failure has left over
        }
        Ok(self.store.claim_topic(topic, rule, now_ms).await?.tenant == rule.tenant)
    }

    async fn writes_to(&self, rule: &ObjectKey, topic: &str) -> Result<bool, StoreError> {
        let stored = self.store.get(rule).await?;
        Ok(stored.is_some_and(|rule| outputs(spec(&rule.spec)).any(|(_, output)| output == topic)))
    }
}

/// The Kafka topics a rule writes to, each with its field.
fn outputs(spec: &RuleSpec) -> impl Iterator<Item = (String, &str)> {
    spec.all_actions().filter_map(|(field, action)| {
        // Those of other clusters are not the platform's to give.
        let kafka = action.kafka.as_ref().filter(|kafka| kafka.cluster.is_none())?;
        Some((format!("{field}.kafka.topic"), kafka.topic.as_str()))
    })
}
