//! Turns of those who may do something a bounded number of times at once, each counted by its key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Keys that are counted; with more, those without a turn under way are forgotten.
const KEYS_MAX: usize = 4_096;

/// The turns of each key.
#[derive(Debug)]
pub struct Turns<K>(Mutex<HashMap<K, Arc<Semaphore>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// The turns of a key, `at_once` of them if it is not counted yet.
    pub fn of(&self, key: K, at_once: usize) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= KEYS_MAX && !turns.contains_key(&key) {
            turns.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        turns.entry(key).or_insert_with(|| Arc::new(Semaphore::new(at_once))).clone()
    }
}
