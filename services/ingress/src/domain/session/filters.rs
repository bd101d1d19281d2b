//! The filters of a session, with what each of them wants once it is routed by.
//!
//! Domain layer, pure. Most sessions have none, and own nothing for them.

use std::collections::BTreeMap;

use crate::domain::router::Options;
use crate::ports::sessions::Subscription;

#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    /// Absent if there are none.
    #[expect(clippy::box_collection, reason = "one word in the many sessions that have none")]
    all: Option<Box<BTreeMap<Box<str>, Options>>>,
}

impl Filters {
    /// Those of these subscriptions.
    pub fn of(subscriptions: &[Subscription]) -> Self {
        let all: BTreeMap<_, _> = subscriptions.iter().map(|of| (of.filter.clone(), of.options)).collect();
        Self { all: (!all.is_empty()).then(|| Box::new(all)) }
    }

    pub fn len(&self) -> usize {
        self.all.as_ref().map_or(0, |all| all.len())
    }

    pub fn contains(&self, filter: &str) -> bool {
        self.all.as_ref().is_some_and(|all| all.contains_key(filter))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Options)> {
        let all = self.all.iter().flat_map(|all| all.iter());
        all.map(|(filter, options)| (&**filter, *options))
    }

    /// Adds a filter that is not routed by yet.
    pub fn insert(&mut self, filter: &str) {
        self.all.get_or_insert_default().insert(filter.into(), Options::default());
    }

    /// What a filter wants, if it is there.
    pub fn set(&mut self, filter: &str, options: Options) {
        if let Some(known) = self.all.as_mut().and_then(|all| all.get_mut(filter)) {
            *known = options;
        }
    }

    /// Removes a filter; whether it was there.
    pub fn remove(&mut self, filter: &str) -> bool {
        let removed = self.all.as_mut().is_some_and(|all| all.remove(filter).is_some());
        self.all.take_if(|all| all.is_empty());
        removed
    }

    /// Removes those that are not `allowed`.
    pub fn remove_denied(&mut self, allowed: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        let Some(all) = &mut self.all else { return Vec::new() };
        let denied: Vec<_> = all.extract_if(.., |filter, _| !allowed(filter)).map(|(filter, _)| filter).collect();
        self.all.take_if(|all| all.is_empty());
        denied
    }

    /// Removes all.
    pub fn take(&mut self) -> Vec<Box<str>> {
        self.all.take().map(|all| all.into_keys().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_filters_nothing_is_owned() {
        let mut filters = Filters::of(&[]);
        assert!(filters.all.is_none());
        filters.insert("a");
        filters.insert("b");
        assert_eq!((filters.len(), filters.contains("a"), filters.iter().count()), (2, true, 2));
        assert!(filters.remove("a") && !filters.remove("a"));
        assert_eq!(filters.remove_denied(|filter| filter != "b"), [Box::<str>::from("b")]);
        assert!(filters.all.is_none());
        filters.insert("c");
        assert_eq!(filters.take(), [Box::<str>::from("c")]);
        assert!(filters.all.is_none());
    }
}
