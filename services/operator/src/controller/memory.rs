//! What is remembered of objects between their turns; none of it is needed to be right.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most objects of which something is remembered; of further ones nothing is.
const OBJECTS_MAX: usize = 100_000;

/// Something about each object, by its uid.
#[derive(Debug)]
pub struct Memory<V>(Mutex<HashMap<String, V>>);

impl<V> Default for Memory<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Copy> Memory<V> {
    pub fn get(&self, uid: &str) -> Option<V> {
        self.all().get(uid).copied()
    }

    /// Remembers what `change` makes of what is remembered, and answers it.
    pub fn update(&self, uid: String, change: impl FnOnce(Option<V>) -> V) -> V {
        let mut all = self.all();
        let value = change(all.get(&uid).copied());
        if all.len() < OBJECTS_MAX || all.contains_key(&uid) {
            all.insert(uid, value);
        }
        value
    }

    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let memory = Memory::default();
        for i in 0..=OBJECTS_MAX {
            memory.update(i.to_string(), |former: Option<u32>| former.unwrap_or(0) + 1);
        }
        assert_eq!((memory.get("0"), memory.get(&OBJECTS_MAX.to_string())), (Some(1), None));
        assert_eq!(memory.update("0".into(), |former| former.unwrap_or(0) + 1), 2);
        memory.forget("0");
        assert_eq!(memory.get("0"), None);
    }
}
