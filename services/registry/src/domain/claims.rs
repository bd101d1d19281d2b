//! Names that one tenant only may have, Kafka topics and subjects of certificate authorities: each belongs to the first
//! tenant with an object that needs it, until the last such object goes.
//!
//! A claim is written before its object, and given up after the object no longer needs it: whatever fails in between leaves
//! a claim too many, never an object without its claim. One that is left over is found when another tenant wants the name.

use std::collections::BTreeSet;

use drover_types::object::RuleSpec;
use drover_types::{ApiError, ErrorCode};

use super::{Declared, Domain, authorities};
use crate::object::{Object, ObjectKey, Spec};
use crate::ports::StoreError;

/// A younger claim may be that of an object about to be written, milliseconds; far longer than a write takes.
const CLAIM_SETTLES_MS: u64 = 60_000;

/// A name that an object needs.
pub(super) struct Needed {
    pub(super) name: String,
    /// The error where it is another tenant's; never says whose.
    pub(super) taken: ApiError,
}

impl Domain {
    /// Creates an object with the names it needs, or replaces `current`; `already_exists` if one of them is another
    /// tenant's. The caller holds a lock of its kind.
    pub(super) async fn put_with_claims(
        &self,
        declared: Declared,
        current: Option<Object>,
    ) -> Result<Object, ApiError> {
        let key = ObjectKey::new(declared.spec.kind(), &declared.tenant, &declared.name);
        let names = names(current.iter().map(|current| &current.spec).chain([&declared.spec]));
        let outcome = match self.claim_all(&key, &declared.spec).await {
            Ok(()) => self.put(declared).await,
            Err(error) => Err(error),
        };
        self.settle(&key, names).await;
        outcome
    }

    /// Deletes an object; names that no other of its tenant needs are free again. The caller holds a lock of its kind.
    pub(super) async fn delete_with_claims(&self, key: ObjectKey) -> Result<(), ApiError> {
        let deleted = self.delete(key.clone()).await?;
        self.settle(&key, names([&deleted.spec])).await;
        Ok(())
    }

    async fn claim_all(&self, holder: &ObjectKey, spec: &Spec) -> Result<(), ApiError> {
        for Needed { name, taken } in needed(spec) {
            if !self.claim(holder, &name).await? {
                return Err(taken);
            }
        }
        Ok(())
    }

    /// Gives up those of `names` that `holder`, as it is stored now, does not need. A failure leaves a claim too many.
    async fn settle(&self, holder: &ObjectKey, names: BTreeSet<String>) {
        for name in names {
            let settled = match self.needs(holder, &name).await {
                Ok(true) => Ok(()),
                Ok(false) => self.store.release_topic(&name, holder).await,
                Err(error) => Err(error),
            };
            if let Err(error) = settled {
                tracing::warn!(%holder, name, %error, "a name that is not needed may stay claimed for now");
            }
        }
    }

    /// Whether the name is the holder's tenant's now.
    async fn claim(&self, holder: &ObjectKey, name: &str) -> Result<bool, StoreError> {
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
        let stored = self.store.get(holder).await?;
        Ok(stored.is_some_and(|stored| needed(&stored.spec).iter().any(|needed| needed.name == name)))
    }
}

fn names<'a>(specs: impl IntoIterator<Item = &'a Spec>) -> BTreeSet<String> {
    specs.into_iter().flat_map(needed).map(|needed| needed.name).collect()
}

/// The names an object needs.
fn needed(spec: &Spec) -> Vec<Needed> {
    match spec {
        Spec::Rule(rule) => outputs(rule).collect(),
        Spec::CertificateAuthority(authority) => authorities::needed(authority).into_iter().collect(),
        Spec::Device(_)
        | Spec::Credential(_)
        | Spec::Policy(_)
        | Spec::ApiToken(_)
        | Spec::Function(_)
        | Spec::DeviceType(_)
        | Spec::DeviceGroup(_) => Vec::new(),
    }
}

/// The Kafka topics a rule writes to.
pub(super) fn outputs(rule: &RuleSpec) -> impl Iterator<Item = Needed> {
    rule.all_actions().filter_map(|(field, action)| {
        // Those of other clusters are not the platform's to give.
        let topic = action.kafka.as_ref().filter(|kafka| kafka.cluster.is_none())?.topic.clone();
        let error = ApiError::new(ErrorCode::AlreadyExists, format!("topic {topic} belongs to another tenant"));
        let field = Some(format!("{field}.kafka.topic"));
        Some(Needed { taken: ApiError { field, value: Some(topic.clone()), ..error }, name: topic })
    })
}
