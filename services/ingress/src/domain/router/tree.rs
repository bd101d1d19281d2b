//! A tree of topic levels; at each filter's end hangs a list.
//!
//! Domain layer, pure. Most nodes are on the way to one filter of one device, so a node with one child has no table of
//! them, and a list begins with room for one.

use super::children::Children;

/// What hangs where filters end.
#[derive(Debug)]
pub(super) struct Tree<T> {
    children: Children<Tree<T>>,
    /// Below `+`.
    any: Option<Box<Tree<T>>>,
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that end here with `#`: this level and all below.
    below: Vec<T>,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { children: Children::default(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> Tree<T> {
    /// The list of `filter`, made if it is not there.
    pub fn at(&mut self, filter: &str) -> &mut Vec<T> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return &mut node.below,
                "+" => node.any.get_or_insert_default(),
                text => node.children.get_or_default(text),
            };
        }
        &mut node.here
    }

    /// The list of `filter`.
    pub fn get(&self, filter: &str) -> Option<&[T]> {
        let mut node = self;
        for level in filter.split('/') {
            node = match level {
                "#" => return Some(&node.below),
                "+" => node.any.as_deref()?,
                text => node.children.get(text)?,
            };
        }
        Some(&node.here)
    }

    /// Changes the list of `filter`, then removes the branches that hold nothing.
    pub fn remove(&mut self, filter: &str, change: impl FnOnce(&mut Vec<T>)) {
        self.remove_levels(filter.split('/'), change);
    }

    fn remove_levels<'a>(&mut self, mut levels: impl Iterator<Item = &'a str>, change: impl FnOnce(&mut Vec<T>)) {
        match levels.next() {
            None => change(&mut self.here),
            Some("#") => change(&mut self.below),
            Some("+") => {
                if let Some(any) = &mut self.any {
                    any.remove_levels(levels, change);
                }
                self.any.take_if(|any| any.is_empty());
            }
            Some(level) => {
                let Some(child) = self.children.get_mut(level) else { return };
                child.remove_levels(levels, change);
                if child.is_empty() {
                    self.children.remove(level);
                }
            }
        }
    }

    /// Adds everything whose filter matches `topic`. Wildcards do not match a first level that starts with `$`
    /// [MQTT-4.7.2-1]. The answer: how many nodes it has looked at.
    pub fn collect<'a>(&'a self, topic: &str, found: &mut Vec<&'a T>) -> usize {
        self.collect_rest(Some(topic), !topic.starts_with('$'), found)
    }

    /// `rest`: the levels of the topic below this node; `None`: the topic ends here.
    fn collect_rest<'a>(&'a self, rest: Option<&str>, wildcards: bool, found: &mut Vec<&'a T>) -> usize {
        if wildcards {
            found.extend(&self.below);
        }
        let Some(rest) = rest else {
            found.extend(&self.here);
            return 1;
        };
        let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
        let mut nodes = 1;
        if let Some(child) = self.children.get(level) {
            nodes += child.collect_rest(rest, true, found);
        }
        if let Some(any) = self.any.as_ref().filter(|_| wildcards) {
            nodes += any.collect_rest(rest, true, found);
        }
        nodes
    }

    pub fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}
