//! All accepted rules, and the functions they may call. A message of a tenant meets that tenant's only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use drover_bus::Topic;
use drover_rule_sql::rule_named_by;
use drover_types::TenantId;
use drover_types::object::FunctionSpec;

use super::definition::Definition;
use super::filter_trie::FilterTrie;
use super::status::RuleKey;

/// The rules in force. Cheap to clone: tenants are shared until changed.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    tenants: HashMap<TenantId, Arc<TenantRules>>,
    functions: HashMap<TenantId, Arc<BTreeMap<String, Arc<FunctionSpec>>>>,
    /// Rules that are sound but not in force yet.
    waiting: HashSet<RuleKey>,
}

#[derive(Clone, Debug, Default)]
struct TenantRules {
    by_name: BTreeMap<String, Arc<Definition>>,
    by_filter: FilterTrie<Arc<Definition>>,
}

impl RuleSet {
    /// Adds a rule, or replaces the one of its name.
    pub fn put(&mut self, definition: Definition) {
        let tenant = Arc::make_mut(self.tenants.entry(definition.tenant.clone()).or_default());
        self.waiting.remove(&(definition.tenant.clone(), definition.name.clone()));
        let rule = Arc::new(definition);
        match tenant.by_name.insert(rule.name.clone(), rule.clone()) {
            // At a start there are thousands of them.
            None => tenant.find(&rule),
            Some(_) => tenant.index(),
        }
    }

    /// A rule will be put once its topics and functions are there; what is in force of its name stays so.
    pub fn wait(&mut self, key: RuleKey) {
        self.waiting.insert(key);
    }

    /// Whether a rule is about to be put.
    pub fn is_waiting(&self, key: &RuleKey) -> bool {
        self.waiting.contains(key)
    }

    /// The rule of this name that is in force.
    pub fn get(&self, (tenant, name): &RuleKey) -> Option<&Arc<Definition>> {
        self.tenants.get(tenant)?.by_name.get(name)
    }

    /// The rules that are others here than in `before`, or not there.
    pub fn new_since<'r>(&'r self, before: &'r Self) -> impl Iterator<Item = &'r Arc<Definition>> {
        let tenants = self.tenants.iter().filter(move |&(tenant, rules)| {
            before.tenants.get(tenant).is_none_or(|before| !Arc::ptr_eq(before, rules))
        });
        let rules = tenants.flat_map(|(_, rules)| rules.by_name.values());
        rules.filter(move |&rule| before.get(&rule.key).is_none_or(|before| !Arc::ptr_eq(before, rule)))
    }

    /// Removes a rule if it is there.
    pub fn remove(&mut self, tenant: &TenantId, name: &str) {
        self.waiting.remove(&(tenant.clone(), name.to_owned()));
        let Some(rules) = self.tenants.get_mut(tenant).filter(|rules| rules.by_name.contains_key(name)) else { return };
        let rules = Arc::make_mut(rules);
        rules.by_name.remove(name);
        rules.index();
        if rules.by_name.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Adds a function that rules may call, or replaces the one of its name.
    pub fn put_function(&mut self, tenant: &TenantId, name: &str, function: FunctionSpec) {
        let functions = Arc::make_mut(self.functions.entry(tenant.clone()).or_default());
        functions.insert(name.to_owned(), Arc::new(function));
    }

    /// Removes a function if it is there; rows of rules that call it fail from then on.
    pub fn remove_function(&mut self, tenant: &TenantId, name: &str) {
        if let Some(functions) = self.functions.get_mut(tenant) {
            Arc::make_mut(functions).remove(name);
        }
    }

    /// A function of the tenant.
    pub fn function(&self, tenant: &TenantId, name: &str) -> Option<&Arc<FunctionSpec>> {
        self.functions.get(tenant)?.get(name)
    }

    /// The tenant's rules that a message of this topic is for, by name: those whose filter matches, or the one that the
    /// topic names (Basic Ingest), whatever its filters are.
    pub fn matching(&self, tenant: &TenantId, topic: &str) -> Vec<&Arc<Definition>> {
        let Some(rules) = self.tenants.get(tenant) else { return Vec::new() };
        if let Some(name) = rule_named_by(topic) {
            return rules.by_name.get(name).into_iter().collect();
        }
        let mut found = rules.by_filter.matches(topic);
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        // Several filters of one rule may match.
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        found
    }

    /// Another tenant that writes to the output topic `topic`: a topic belongs to one tenant.
    pub fn other_writer(&self, tenant: &TenantId, topic: &str) -> Option<&TenantId> {
        let writes = |rules: &TenantRules| {
            rules.by_name.values().any(|rule| rule.output_topics().any(|(output, _)| &**output == topic))
        };
        self.tenants.iter().find(|(other, rules)| *other != tenant && writes(rules)).map(|(other, _)| other)
    }

    /// Every topic that rules write to, with the partitions it is to be made with.
    pub fn output_topics(&self) -> Vec<(Topic, u32)> {
        let rules = self.tenants.values().flat_map(|rules| rules.by_name.values());
        rules.flat_map(|rule| rule.output_topics().map(|(topic, partitions)| (topic.clone(), partitions))).collect()
    }
}

impl TenantRules {
    fn index(&mut self) {
        self.by_filter = FilterTrie::default();
        let rules: Vec<Arc<Definition>> = self.by_name.values().cloned().collect();
        rules.iter().for_each(|rule| self.find(rule));
    }

    /// Makes a rule be found by its filters.
    fn find(&mut self, rule: &Arc<Definition>) {
        for filter in rule.rule.filters() {
            self.by_filter.insert(filter.as_str(), rule.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::object::RuleSpec;

    #[test]
    fn a_rule_is_found_once_however_many_of_its_filters_match() {
        let tenant = TenantId::new("home").expect("a tenant");
        let sql = "SELECT * FROM 'a/+', 'a/b', 'c'";
        let spec = serde_json::json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]});
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        let mut rules = RuleSet::default();
        rules.put(Definition::compile(tenant.clone(), "r", &spec).expect("compiles"));
        let found = |topic: &str| rules.matching(&tenant, topic).len();
        assert_eq!((found("a/b"), found("a/x"), found("c"), found("d")), (1, 1, 1, 0));
    }

    #[test]
    fn a_rule_that_is_put_again_is_found_by_its_new_filters_only() {
        let tenant = TenantId::new("home").expect("a tenant");
        let mut rules = RuleSet::default();
        for (name, from) in [("a", "x"), ("b", "x"), ("a", "y")] {
            let sql = format!("SELECT * FROM '{from}'");
            let spec = serde_json::json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]});
            let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
            rules.put(Definition::compile(tenant.clone(), name, &spec).expect("compiles"));
        }
        let found = |rules: &RuleSet, topic: &str| -> Vec<String> {
            rules.matching(&tenant, topic).into_iter().map(|rule| rule.name.clone()).collect()
        };
        assert_eq!((found(&rules, "x"), found(&rules, "y")), (vec!["b".to_owned()], vec!["a".to_owned()]));
        rules.remove(&tenant, "b");
        assert_eq!((found(&rules, "x"), found(&rules, "y")), (vec![], vec!["a".to_owned()]));
    }

    #[test]
    fn a_topic_that_names_a_rule_is_for_that_rule_alone() {
        let tenant = TenantId::new("home").expect("a tenant");
        let mut rules = RuleSet::default();
        for (name, from) in [("all", "#"), ("direct", ""), ("raw", "$aws/rules/#")] {
            let sql = format!("SELECT * FROM '{from}'");
            let spec = serde_json::json!({"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]});
            let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
            rules.put(Definition::compile(tenant.clone(), name, &spec).expect("compiles"));
        }
        let found = |topic: &str| -> Vec<&str> {
            rules.matching(&tenant, topic).into_iter().map(|rule| rule.name.as_str()).collect()
        };
        assert_eq!(found("$aws/rules/direct/a/b"), ["direct"]);
        assert_eq!(found("$aws/rules/all/a"), ["all"]);
        assert_eq!(found("$aws/rules/none/a"), Vec::<&str>::new());
        assert_eq!(found("$aws/rules/direct"), ["raw"], "nothing is behind the name");
        assert_eq!(found("a/b"), ["all"]);
    }
}
