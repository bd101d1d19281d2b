//! Rules: what is done with messages. A rule that does not compile is refused when it is written.

use drover_types::object::RuleSpec;
use drover_types::{ApiError, ErrorCode, TenantId, subdomain};

use super::claims::{Needed, outputs};
use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Object, ObjectKey};

impl Domain {
    /// Creates or replaces a rule. `already_exists` if it would write to another tenant's Kafka topic, `permission_denied` if to
    /// one that no rule of its tenant may have.
    pub async fn put_rule(&self, rule: Declared) -> Result<Object, ApiError> {
        subdomain("metadata.name", &rule.name)?;
        checks::labels(&rule.labels)?;
        let compiled = drover_rule_sql::check(rule.spec.rule())?;
        for function in compiled.user_functions() {
            let key = ObjectKey::new(Kind::Function, &rule.tenant, &function.name);
            if self.store.get(&key).await?.is_none() {
                return Err(function.unknown.clone().into());
            }
        }
        for (field, function) in called(rule.spec.rule()) {
            if self.store.get(&ObjectKey::new(Kind::Function, &rule.tenant, function)).await?.is_none() {
                return Err(ApiError::invalid(field, format!("function {function} does not exist")));
            }
        }
        let key = ObjectKey::new(Kind::Rule, &rule.tenant, &rule.name);
        let _alone = self.writing_rule.lock().await;
        let current = self.current_or_room(&key, self.settings.rules_per_tenant_max, "rules").await?;
        self.check_outputs(&rule.tenant, rule.spec.rule())?;
        self.put_with_claims(rule, current).await
    }

    fn check_outputs(&self, tenant: &TenantId, rule: &RuleSpec) -> Result<(), ApiError> {
        for Needed { name, taken } in outputs(rule) {
            if !self.settings.output_topics.are_open_to(tenant, &name) {
                let message = format!("topic {name} is not the tenant's: its own begin with {tenant}.");
                return Err(ApiError { code: ErrorCode::PermissionDenied, message, ..taken });
            }
        }
        Ok(())
    }

    /// A rule.
    pub async fn get_rule(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        self.get(ObjectKey::new(Kind::Rule, tenant, name)).await
    }

    /// Rules in the order of their names.
    pub async fn list_rules(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page(Kind::Rule, request).await
    }

    /// Deletes a rule; topics that no other rule of its tenant writes to are free again.
    pub async fn delete_rule(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let _alone = self.writing_rule.lock().await;
        self.delete_with_claims(ObjectKey::new(Kind::Rule, tenant, name)).await
    }

    /// Creates, or replaces what is there.
    pub(super) async fn put(&self, declared: Declared) -> Result<Object, ApiError> {
        let key = ObjectKey::new(declared.spec.kind(), &declared.tenant, &declared.name);
        match self.store.get(&key).await? {
            Some(current) => self.replace(declared, current).await,
            None if declared.revision != 0 => Err(super::stale(&key, declared.revision, 0)),
            None => match self.create(declared.clone()).await {
                // Somebody else was faster: theirs is replaced.
                Err(error) if error.code == ErrorCode::AlreadyExists => {
                    let current = self.get(key).await?;
                    self.replace(declared, current).await
                }
                created => created,
            },
        }
    }
}

/// Functions that its actions call.
fn called(spec: &RuleSpec) -> Vec<(String, &str)> {
    let called = spec.all_actions().filter_map(|(field, action)| {
        action.function.as_ref().map(|called| (format!("{field}.function.ref"), called.function.as_str()))
    });
    called.collect()
}
