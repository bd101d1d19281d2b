//! From which offset of each partition on this process works by a rule as it is now.
//!
//! Records that are read again after a failed commit meet the rules of then, so an offset may become smaller, never larger. What
//! a process did before it had a partition is not known to it: there the offset is where it began.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_bus::{Offset, Partition};

use super::rule_set::RuleSet;
use super::status::RuleKey;

/// The first offsets of partitions.
pub type Offsets = BTreeMap<Partition, Offset>;

/// What the engine works by. Shared between engine and server.
#[derive(Debug, Default)]
pub struct InForce(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rules: Arc<RuleSet>,
    /// Where this process began with each partition that it has.
    began: Offsets,
    /// Of rules that are others than they were there; for all of the same partitions.
    changed: HashMap<RuleKey, Offsets>,
}

impl InForce {
    /// The rules are these, from `next` of each partition on.
    pub fn follow(&self, rules: &Arc<RuleSet>, next: &Offsets) {
        let state = &mut *self.state();
        if !next.is_empty() {
            let changed = rules.new_since(&state.rules);
            state.changed.extend(changed.map(|rule| (rule.key.clone(), next.clone())));
        }
        state.changed.retain(|key, _| rules.get(key).is_some());
        state.rules = rules.clone();
    }

    /// A partition is this process's, from `next` on; or goes back to it.
    pub fn assign(&self, partition: Partition, next: Offset) {
        let State { began, changed, .. } = &mut *self.state();
        for offsets in changed.values_mut().chain([began]) {
            let first = offsets.entry(partition).or_insert(next);
            *first = next.min(*first);
        }
    }

    /// A partition is another process's.
    pub fn revoke(&self, partition: Partition) {
        let State { began, changed, .. } = &mut *self.state();
        for offsets in changed.values_mut().chain([began]) {
            offsets.remove(&partition);
        }
    }

    /// All partitions may be other processes'.
    pub fn leave(&self) {
        *self.state() = State::default();
    }

    /// From where on messages meet this generation of a rule; empty if another one is in force, or none.
    pub fn since(&self, key: &RuleKey, generation: u64) -> Offsets {
        let state = self.state();
        let is_in_force = state.rules.get(key).is_some_and(|rule| rule.generation == generation);
        if is_in_force { state.changed.get(key).unwrap_or(&state.began).clone() } else { Offsets::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use drover_types::TenantId;
    use drover_types::object::RuleSpec;

    use super::super::definition::Definition;
    use super::*;

    /// `before` with another generation of a rule.
    fn with(before: &Arc<RuleSet>, name: &str, generation: u64) -> Arc<RuleSet> {
        let spec = serde_json::json!({"sql": "SELECT * FROM '#'", "actions": [{"kafka": {"topic": "home.t"}}]});
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        let definition = Definition::compile(TenantId::new("home").expect("valid"), name, &spec).expect("compiles");
        let mut rules = RuleSet::clone(before);
        rules.put(Definition { generation, ..definition });
        Arc::new(rules)
    }

    #[test]
    fn a_rule_is_met_from_where_it_changed_or_from_where_the_partition_began() {
        let in_force = InForce::default();
        let key = |name: &str| (TenantId::new("home").expect("valid"), name.to_owned());
        let since = |name: &str, generation| in_force.since(&key(name), generation).into_iter().collect::<Vec<_>>();
        let both = with(&with(&Arc::default(), "r", 1), "other", 1);
        in_force.follow(&both, &Offsets::new());
        in_force.assign(0, 10);
        in_force.assign(1, 20);
        assert_eq!(since("r", 1), [(0, 10), (1, 20)]);

        let second = with(&both, "r", 2);
        in_force.follow(&second, &Offsets::from([(0, 15), (1, 20)]));
        assert_eq!((since("r", 1), since("r", 2)), (vec![], vec![(0, 15), (1, 20)]), "of one generation");
        assert_eq!(since("other", 1), [(0, 10), (1, 20)]);

        // A batch was dropped, and its records come again.
        in_force.assign(0, 12);
        assert_eq!((since("r", 2), since("other", 1)), (vec![(0, 12), (1, 20)], vec![(0, 10), (1, 20)]));
        in_force.revoke(1);
        in_force.assign(2, 30);
        assert_eq!((since("r", 2), since("other", 1)), (vec![(0, 12), (2, 30)], vec![(0, 10), (2, 30)]));

        let mut without = RuleSet::clone(&second);
        without.remove(&key("r").0, "r");
        in_force.follow(&Arc::new(without), &Offsets::from([(0, 40), (2, 40)]));
        assert!(since("r", 2).is_empty());
        in_force.leave();
        assert!(since("other", 1).is_empty());
    }
}
