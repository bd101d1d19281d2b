//! Which batches of other nodes were handed out: a batch that comes again is not.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Nodes remembered; beyond it a batch that comes again is handed out again.
const NODES_MAX: usize = 1_024;

/// Newest batch of each node.
#[derive(Debug, Default)]
pub struct Senders(Mutex<HashMap<String, (u64, u64)>>);

impl Senders {
    /// Whether the batch with this number of this boot was not seen before; it is from now on.
    pub fn is_new(&self, node: &str, boot: u64, sequence: u64) -> bool {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = newest.get_mut(node) {
            let new = (boot, sequence) > *seen;
            *seen = (*seen).max((boot, sequence));
            return new;
        }
        if newest.len() < NODES_MAX {
            newest.insert(node.to_owned(), (boot, sequence));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_new_once_and_a_node_that_starts_anew_counts_anew() {
        let senders = Senders::default();
        let seen =
            [(1, 1), (1, 2), (1, 2), (1, 1), (2, 1), (2, 1), (1, 3)].map(|(boot, n)| senders.is_new("a", boot, n));
        assert_eq!(seen, [true, true, false, false, true, false, false]);
        assert!(senders.is_new("b", 1, 1));
    }
}
