//! Whose turn it is: one test at a time has Kafka, Cassandra and all processes, or others would start theirs while it measures.

use std::sync::{Condvar, Mutex, PoisonError};

/// Nine processes, a Kafka and a Cassandra are as much as a small machine carries: whoever starts them has this, until it is
/// dropped.
pub struct Turn;

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

impl Turn {
    /// Waits for it. Who has it must not wait for another.
    pub fn wait() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        *FREE.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner) = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}
