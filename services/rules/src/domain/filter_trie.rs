//! Which of many filters match a topic: one walk over the topic's levels, whatever the number of filters.

use std::collections::HashMap;

/// Values under MQTT topic filters.
#[derive(Clone, Debug)]
pub struct FilterTrie<T> {
    levels: HashMap<Box<str>, FilterTrie<T>>,
    /// Below `+`.
    any: Option<Box<FilterTrie<T>>>,
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that end here with `#`.
    below: Vec<T>,
}

impl<T> Default for FilterTrie<T> {
    fn default() -> Self {
        Self { levels: HashMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> FilterTrie<T> {
    /// Puts `value` under a valid filter.
    pub fn insert(&mut self, filter: &str, value: T) {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return node.below.push(value),
                "+" => node.any.get_or_insert_default(),
                name => node.levels.entry(name.into()).or_default(),
            };
        }
        node.here.push(value);
    }

    /// The values whose filter matches a valid topic name (MQTT 5 section 4.7), in no order.
    pub fn matches<'t>(&'t self, topic: &str) -> Vec<&'t T> {
        let levels: Vec<&str> = topic.split('/').collect();
        let mut found = Vec::new();
        self.collect(&levels, topic.starts_with('$'), &mut found);
        found
    }

    /// `hidden`: wildcards do not match the next level [MQTT-4.7.2-1].
    fn collect<'t>(&'t self, levels: &[&str], hidden: bool, found: &mut Vec<&'t T>) {
        if !hidden {
            found.extend(&self.below);
        }
        let Some((level, rest)) = levels.split_first() else {
            return found.extend(&self.here);
        };
        if let Some(node) = self.levels.get(*level) {
            node.collect(rest, false, found);
        }
        if let Some(node) = self.any.as_deref().filter(|_| !hidden) {
            node.collect(rest, false, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::{TopicFilter, TopicName};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_trie_agrees_with_matching_one_by_one(
            filters in prop::collection::vec("(\\+|a|b|\\$s|)(/(\\+|a|b|)){0,3}(/#)?|#", 0..12),
            topic in "(a|b|\\$s|)(/(a|b|)){0,4}"
        ) {
            prop_assume!(TopicName::check(&topic).is_ok());
            let filters: Vec<TopicFilter> = filters.iter().filter_map(|f| TopicFilter::new(f).ok()).collect();
            let mut trie = FilterTrie::default();
            for (i, filter) in filters.iter().enumerate() {
                trie.insert(filter.as_str(), i);
            }
            let mut found: Vec<usize> = trie.matches(&topic).into_iter().copied().collect();
            found.sort_unstable();
            let expected: Vec<usize> = (0..filters.len()).filter(|i| filters[*i].matches(&topic)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
