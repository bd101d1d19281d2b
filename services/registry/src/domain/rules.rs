//! Rules: what is done with messages. A rule that does not compile is refused when it is written.

use drover_rule_sql::{CompiledRule, Rule};
use drover_types::limits::TOPIC_BYTES_MAX;
use drover_types::object::{Action, RuleSpec};
use drover_types::{ApiError, ErrorCode, TenantId};

use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Object, ObjectKey, Spec};

impl Domain {
    /// Creates or replaces a rule. `already_exists` if it would write to another tenant's Kafka topic.
    pub async fn put_rule(&self, rule: Declared) -> Result<Object, ApiError> {
        checks::subdomain("metadata.name", &rule.name)?;
        checks::labels(&rule.labels)?;
        let compiled = check(spec(&rule.spec))?;
        for function in compiled.user_functions() {
            let key = ObjectKey::new(Kind::Function, &rule.tenant, &function.name);
            if self.store.get(&key).await?.is_none() {
                return Err(function.unknown.clone().into());
            }
        }
        let key = ObjectKey::new(Kind::Rule, &rule.tenant, &rule.name);
        let _alone = self.writing_rule.lock().await;
        let current = self.store.get(&key).await?;
        let limit = self.settings.rules_per_tenant_max;
        if current.is_none() && self.store.page(Kind::Rule, &rule.tenant, "", limit).await?.len() >= limit {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "the tenant has too many rules");
            return Err(error.over(limit, limit + 1));
        }
        let wanted = spec(&rule.spec).clone();
        let outcome = match self.claim_topics(&key, &wanted).await {
            Ok(()) => self.put(rule).await,
            Err(error) => Err(error),
        };
        let former = current.as_ref().map(|current| spec(&current.spec));
        self.settle_topics(&key, former.into_iter().chain([&wanted])).await;
        outcome
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
        let key = ObjectKey::new(Kind::Rule, tenant, name);
        let deleted = self.delete(key.clone()).await?;
        self.settle_topics(&key, [spec(&deleted.spec)]).await;
        Ok(())
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

fn check(spec: &RuleSpec) -> Result<CompiledRule, ApiError> {
    spec.check()?;
    let rule = Rule::compile_open(&spec.sql)?;
    for (i, action) in spec.actions.iter().enumerate() {
        check_templates(&rule, &format!("spec.actions[{i}]"), action)?;
    }
    spec.error_action.as_ref().map_or(Ok(()), |action| check_templates(&rule, "spec.errorAction", action))?;
    Ok(rule)
}

fn check_templates(rule: &CompiledRule, field: &str, action: &Action) -> Result<(), ApiError> {
    if let Some(key) = action.kafka.as_ref().and_then(|kafka| kafka.key.as_ref()) {
        check_template(rule, &format!("{field}.kafka.key"), key)?;
    }
    if let Some(republish) = &action.republish {
        check_template(rule, &format!("{field}.republish.topic"), &republish.topic)?;
    }
    Ok(())
}

fn check_template(rule: &CompiledRule, field: &str, text: &str) -> Result<(), ApiError> {
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
        return Err(ApiError::invalid(field, format!("a template has 1 to {TOPIC_BYTES_MAX} bytes"))
            .over(TOPIC_BYTES_MAX, text.len()));
    }
    rule.template(text).map(drop).map_err(|e| e.in_field(field))
}

pub(super) fn spec(spec: &Spec) -> &RuleSpec {
    match spec {
        Spec::Rule(spec) => spec,
        Spec::Device(_) | Spec::Credential(_) | Spec::Policy(_) | Spec::ApiToken(_) | Spec::Function(_) => {
            unreachable!("a rule's key holds a rule")
        }
    }
}
