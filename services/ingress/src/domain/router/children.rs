//! Children of a node by the text of their level: none, one, or a table.
//!
//! Domain layer, pure.

use std::collections::HashMap;

/// The children; two words where there is none or one.
#[derive(Debug)]
pub(super) enum Children<C> {
    None,
    One(Box<(Box<str>, C)>),
    /// More than one, or there were.
    Many(Box<HashMap<Box<str>, C>>),
}

impl<C> Default for Children<C> {
    fn default() -> Self {
        Self::None
    }
}

impl<C> Children<C> {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub fn get(&self, level: &str) -> Option<&C> {
        match self {
            Self::None => None,
            Self::One(child) => (*child.0 == *level).then_some(&child.1),
            Self::Many(children) => children.get(level),
        }
    }

    pub fn get_mut(&mut self, level: &str) -> Option<&mut C> {
        match self {
            Self::None => None,
            Self::One(child) => (*child.0 == *level).then_some(&mut child.1),
            Self::Many(children) => children.get_mut(level),
        }
    }

    pub fn remove(&mut self, level: &str) {
        match self {
            Self::None => {}
            Self::One(child) => {
                if *child.0 == *level {
                    *self = Self::None;
                }
            }
            Self::Many(children) => {
                children.remove(level);
                if children.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }
}

impl<C: Default> Children<C> {
    /// The child of `level`, made if it is not there.
    pub fn get_or_default(&mut self, level: &str) -> &mut C {
        if self.get(level).is_none() {
            *self = match std::mem::take(self) {
                Self::None => Self::One(Box::new((level.into(), C::default()))),
                Self::One(child) => Self::Many(Box::new(HashMap::from([*child, (level.into(), C::default())]))),
                Self::Many(mut children) => {
                    children.insert(level.into(), C::default());
                    Self::Many(children)
                }
            };
        }
        self.get_mut(level).expect("it was put there if it was not")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_and_go() {
        let mut children = Children::<u32>::default();
        for (number, level) in (1..).zip(["a", "b", "", "a"]) {
            *children.get_or_default(level) += number;
        }
        assert_eq!(["a", "b", "", "c"].map(|level| children.get(level).copied()), [Some(5), Some(2), Some(3), None]);
        for level in ["c", "b", "a", ""] {
            assert!(!children.is_empty());
            children.remove(level);
            assert_eq!(children.get_mut(level), None);
        }
        assert!(children.is_empty());
        *children.get_or_default("x") = 7;
        children.remove("y");
        assert_eq!((children.get("x"), children.get("y")), (Some(&7), None));
        assert!(size_of::<Children<[u64; 9]>>() <= 16);
    }
}
