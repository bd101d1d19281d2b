//! When each of many has to be looked at again: one time each, found by who is next, so that those that wait cost
//! nothing meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use tokio::time::Instant;

/// A time for each key that has one.
#[derive(Debug)]
pub struct Alarms<K> {
    by_time: BTreeSet<(Instant, K)>,
    times: HashMap<K, Instant>,
}

impl<K> Default for Alarms<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), times: HashMap::new() }
    }
}

impl<K: Clone + Ord + Hash> Alarms<K> {
    /// Sets the time of `key` in place of the one it has; `None`: it has none any more.
    pub fn set(&mut self, key: &K, at: Option<Instant>) {
        if let Some(before) = self.times.remove(key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.times.insert(key.clone(), at);
            self.by_time.insert((at, key.clone()));
        }
    }

    /// Takes out the keys whose time has come.
    pub fn ring(&mut self, now: Instant) -> Vec<K> {
        let mut rung = Vec::new();
        while let Some((at, key)) = self.by_time.pop_first() {
            if at > now {
                self.by_time.insert((at, key));
                break;
            }
            self.times.remove(&key);
            rung.push(key);
        }
        rung
    }

    /// The earliest time of all.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_rings_once_at_the_time_that_it_was_given_last() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut alarms = Alarms::default();
        for (key, seconds) in [("a", 3), ("b", 1), ("c", 2), ("a", 1), ("b", 4)] {
            alarms.set(&key, Some(at(seconds)));
        }
        alarms.set(&"c", None);
        assert_eq!((alarms.next(), alarms.ring(at(0))), (Some(at(1)), vec![]));
        assert_eq!((alarms.ring(at(1)), alarms.ring(at(1))), (vec!["a"], vec![]));
        assert_eq!((alarms.next(), alarms.ring(at(9)), alarms.next()), (Some(at(4)), vec!["b"], None));
    }
}
