//! Names that one tenant only may have, Kafka topics and subjects of certificate authorities: each belongs to the first
//! tenant with an object that needs it, until the last such object goes.
//!
//! A claim is written before its object, and given up after the object no longer needs it: whatever fails in between leaves
//! a claim too many, never an object without its claim. One that is left over is found when another tenant wants the name.

use std::collections::BTreeSet;

use drover_types::object::RuleSpec;
use drover_types::{ApiError, ErrorCode};

use super::{Domain, authorities};
use crate::object::{Object, ObjectKey, Spec};
use crate::ports::StoreError;

/// A younger claim may be that of an object about to be written, milliseconds; far longer than a write takes.
const CLAIM_SETTLES_MS: u64 = 60_000;

impl Domain {
    /// Claims every topic the rule is to write to; `already_exists` names the field of one that is another tenant's,
    /// and never that tenant, `permission_denied` that of one that no rule of this tenant may have.
    pub(super) async fn claim_topics(&self, rule: &ObjectKey, wanted: &RuleSpec) -> Result<(), ApiError> {
        for (field, topic) in outputs(wanted) {
            if !self.settings.output_topics.are_open_to(&rule.tenant, topic) {
                let message = format!("topic {topic} is not the tenant's: its own begin with {}.", rule.tenant);
                let error = ApiError::new(ErrorCode::PermissionDenied, message);
                return Err(ApiError { field: Some(field), value: Some(topic.to_owned()), ..error });
            }
            if !self.claim(rule, topic).await? {
                let message = format!("topic {topic} belongs to another tenant");
                let error = ApiError::new(ErrorCode::AlreadyExists, message);
                return Err(ApiError { field: Some(field), value: Some(topic.to_owned()), ..error });
            }
        }
        Ok(())
    }

    /// Gives up those topics of `specs` that the rule, as it is stored now, does not write to.
    pub(super) async fn settle_topics(&self, rule: &ObjectKey, specs: impl IntoIterator<Item = &RuleSpec>) {
        let topics: BTreeSet<&str> = specs.into_iter().flat_map(outputs).map(|(_, topic)| topic).collect();
        for topic in topics {
            self.settle(rule, topic).await;
        }
    }

    /// Gives up a name, unless `holder`, as it is stored now, needs it. A failure leaves a claim too many.
    pub(super) async fn settle(&self, holder: &ObjectKey, name: &str) {
        let settled = match self.needs(holder, name).await {
            Ok(true) => Ok(()),
            Ok(false) => self.store.release_topic(name, holder).await,
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            tracing::warn!(%holder, name, %error, "a name that is not needed may stay claimed for now");
        }
    }

    /// Whether the name is the holder's tenant's now.
    pub(super) async fn claim(&self, holder: &ObjectKey, name: &str) -> Result<bool, StoreError> {
        let now_ms = self.clock.now_ms();
        let claim = self.store.claim_topic(name, holder, now_ms).await?;
        if claim.tenant == holder.tenant {
            return Ok(true);
        }
        if now_ms.saturating_sub(claim.claimed_ms) < CLAIM_SETTLES_MS {
            return Ok(false);
        }
        let others = || claim.rules.iter().map(|other| ObjectKey::new(holder.kind, &claim.tenant, other));
        for other in others() {
            if self.needs(&other, name).await? {
                return Ok(false);
            }
        }
        for other in others() {
            self.store.release_topic(name, &other).await?; // what a failure has left over
        }
        Ok(self.store.claim_topic(name, holder, now_ms).await?.tenant == holder.tenant)
    }

    async fn needs(&self, holder: &ObjectKey, name: &str) -> Result<bool, StoreError> {
        Ok(self.store.get(holder).await?.is_some_and(|stored| has(&stored, name)))
    }
}

/// Whether an object has a claimed name.
fn has(object: &Object, name: &str) -> bool {
    match &object.spec {
        Spec::Rule(rule) => outputs(rule).any(|(_, topic)| topic == name),
        Spec::CertificateAuthority(authority) => authorities::claimed_by(authority).is_some_and(|own| own == name),
        Spec::Device(_) | Spec::Credential(_) | Spec::Policy(_) | Spec::ApiToken(_) | Spec::Function(_) => false,
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
