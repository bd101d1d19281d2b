//! Which group is within which.

use std::collections::BTreeMap;
use std::iter;

use drover_types::ApiError;
use drover_types::limits::GROUP_DEPTH_MAX;

/// Where the error of a group that cannot be where it is to be points to.
const FIELD: &str = "spec.parent";

/// The groups of a tenant: of each its name, and the one it is within.
#[derive(Debug, Default)]
pub(super) struct GroupTree(BTreeMap<String, Option<String>>);

impl GroupTree {
    /// Puts a group where it is to be.
    pub(super) fn put(&mut self, name: &str, parent: Option<&str>) {
        self.0.insert(name.to_owned(), parent.map(str::to_owned));
    }

    /// Refuses a group that is within one that is not there, or within itself, or that makes a chain of more than
    /// [`GROUP_DEPTH_MAX`] groups.
    pub(super) fn check(&self, name: &str) -> Result<(), ApiError> {
        let Some(Some(parent)) = self.0.get(name) else { return Ok(()) };
        if !self.0.contains_key(parent) {
            let error = ApiError::invalid(FIELD, format!("group {parent} does not exist"));
            return Err(error.over("existing groups", parent));
        }
        if self.path(parent).any(|group| group == name) {
            let error = ApiError::invalid(FIELD, format!("group {parent} is within {name}, or is it"));
            return Err(error.over("groups that are not within it", parent));
        }
        let is_too_deep = |group: &String| {
            let path: Vec<&str> = self.path(group).collect();
            path.len() > GROUP_DEPTH_MAX && path.contains(&name)
        };
        if self.0.keys().any(is_too_deep) {
            let error = ApiError::invalid(FIELD, "too many groups are one within the other");
            return Err(error.over(GROUP_DEPTH_MAX, GROUP_DEPTH_MAX + 1));
        }
        Ok(())
    }

    /// A group and those it is within, the innermost first; no more of them than show that there are too many.
    fn path<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a str> {
        let within = |group: &&'a str| self.0.get(*group).and_then(Option::as_deref);
        iter::successors(Some(group), within).take(GROUP_DEPTH_MAX + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(groups: &[(&str, Option<&str>)]) -> GroupTree {
        let mut tree = GroupTree::default();
        groups.iter().for_each(|(name, parent)| tree.put(name, *parent));
        tree
    }

    /// `PREFIX0`, with `PREFIX1` within it, and so on.
    fn chain(tree: &mut GroupTree, prefix: &str, length: usize) {
        let name = |i: usize| format!("{prefix}{i}");
        (0..length).for_each(|i| tree.put(&name(i), i.checked_sub(1).map(name).as_deref()));
    }

    #[test]
    fn a_group_is_within_one_that_is_there_and_never_within_itself() {
        let groups = tree(&[("a", Some("c")), ("b", Some("a")), ("c", Some("b")), ("d", Some("none")), ("e", None)]);
        for (name, value) in [("a", Some("c")), ("c", Some("b")), ("d", Some("none")), ("e", None)] {
            let refused = groups.check(name).err();
            assert_eq!(refused.as_ref().and_then(|error| error.value.as_deref()), value, "{refused:?}");
            assert!(refused.is_none_or(|error| error.field.as_deref() == Some(FIELD)));
        }
        assert!(tree(&[("a", Some("a"))]).check("a").is_err());
        assert_eq!(tree(&[("a", None), ("b", Some("a"))]).check("b"), Ok(()));
    }

    #[test]
    fn a_chain_has_as_many_groups_as_may_be_and_none_more() {
        let mut groups = GroupTree::default();
        chain(&mut groups, "a", GROUP_DEPTH_MAX + 1);
        assert_eq!(
            groups.check(&format!("a{}", GROUP_DEPTH_MAX - 1)).map_err(|error| error.limit),
            Err(Some("8".into()))
        );
        let mut groups = GroupTree::default();
        chain(&mut groups, "a", GROUP_DEPTH_MAX);
        assert_eq!(groups.check(&format!("a{}", GROUP_DEPTH_MAX - 1)), Ok(()));
    }

    #[test]
    fn what_is_within_a_group_that_moves_counts_too() {
        let mut groups = GroupTree::default();
        chain(&mut groups, "a", 4);
        chain(&mut groups, "b", 4);
        groups.put("b0", Some("a3"));
        assert_eq!(groups.check("b0"), Ok(()), "four within four");
        groups.put("b4", Some("b3"));
        let refused = groups.check("b0").expect_err("nine");
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("8"), Some("9")));
    }
}
