//! Which Kafka topics rules of a tenant may write to, before any tenant has claimed them.
//!
//! Domain layer, no I/O.

use std::collections::BTreeMap;

use drover_types::TenantId;

/// The topics of tenants, as the operator gives them.
#[derive(Clone, Debug, Default)]
pub struct OutputTopics {
    /// Whether a tenant has those named `TENANT.…` and the listed ones alone; else all.
    pub own_only: bool,
    /// By tenant: names, or beginnings of names with `*` behind them.
    pub listed: BTreeMap<String, Vec<String>>,
}

impl OutputTopics {
    /// Whether the topic may be one of the tenant's.
    pub fn are_open_to(&self, tenant: &TenantId, topic: &str) -> bool {
        let own = || topic.strip_prefix(tenant.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let named = |names: &Vec<String>| names.iter().any(|name| means(name, topic));
        let listed = || self.listed.get(tenant.as_str()).is_some_and(named);
        !self.own_only || own() || listed()
    }
}

/// Whether a listed name is that of the topic.
fn means(name: &str, topic: &str) -> bool {
    name.strip_suffix('*').map_or(name == topic, |beginning| topic.starts_with(beginning))
}
