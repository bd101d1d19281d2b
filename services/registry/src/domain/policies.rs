//! Policies: what devices may do.

use drover_types::object::{DEFAULT_POLICY, Effect, PolicyAction, PolicySpec, Statement};
use drover_types::{ApiError, TenantId};

use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Meta, Object, ObjectKey, Spec};

impl Domain {
    /// Creates or replaces a policy.
    pub async fn put_policy(&self, policy: Declared) -> Result<Object, ApiError> {
        checks::policy(&policy.name, policy.spec.policy())?;
        checks::labels(&policy.labels)?;
        let key = ObjectKey::new(Kind::Policy, &policy.tenant, &policy.name);
        let _alone = self.writing_policy.lock().await;
        self.current_or_room(&key, self.settings.policies_per_tenant_max, "policies").await?;
        self.put(policy).await
    }

    /// A policy of the tenant, or the built-in one.
    pub async fn get_policy(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        if name == DEFAULT_POLICY {
            return Ok(built_in(tenant));
        }
        self.get(ObjectKey::new(Kind::Policy, tenant, name)).await
    }

    /// Policies in the order of their names, the built-in one in its place.
    pub async fn list_policies(&self, request: &PageRequest) -> Result<Page, ApiError> {
        let limit = request.limit()?;
        let mut found = self.store.page(Kind::Policy, &request.tenant, &request.after, limit + 1).await?;
        if request.after.as_str() < DEFAULT_POLICY {
            let place = found.partition_point(|policy| policy.meta.name.as_str() < DEFAULT_POLICY);
            found.insert(place, built_in(&request.tenant));
        }
        Ok(Page::cut(found, limit))
    }

    /// Deletes a policy. Devices that still name it lose what it allowed and what it denied.
    pub async fn delete_policy(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        if name == DEFAULT_POLICY {
            return Err(checks::built_in());
        }
        self.delete(ObjectKey::new(Kind::Policy, tenant, name)).await.map(drop)
    }
}

/// The policy `default`, which every tenant has: connect as itself; publish and subscribe any topic that does not
/// start with `$` (a filter that starts with a wildcard matches none that does, MQTT section 4.7.2); its own shadow
/// and commands.
fn built_in(tenant: &TenantId) -> Object {
    let meta = Meta {
        tenant: tenant.clone(),
        name: DEFAULT_POLICY.to_owned(),
        labels: Default::default(),
        generation: 1,
        revision: 0,
        created_ms: 0,
        updated_ms: 0,
        owner: String::new(),
    };
    Object { meta, spec: Spec::Policy(PolicySpec { statements: default_statements() }) }
}

/// What the policy `default` says.
pub(super) fn default_statements() -> Vec<Statement> {
    let allow = |actions: &[PolicyAction], resources: &[&str]| Statement {
        effect: Effect::Allow,
        actions: actions.to_vec(),
        resources: resources.iter().map(|r| (*r).to_owned()).collect(),
    };
    vec![
        allow(&[PolicyAction::Connect], &["${device}"]),
        allow(
            &[PolicyAction::Publish, PolicyAction::Subscribe],
            &["#", "$aws/things/${device}/#", "$drover/commands/${device}/#", "$drover/errors/${device}"],
        ),
    ]
}
