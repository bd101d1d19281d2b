//! What this node has taken of others for members of shared subscriptions: up to which batch the members have done with
//! all, and what the newest batch could not be given to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError, Weak};

use crate::domain::message::Message;
use crate::domain::shares::Refused;

/// Nodes remembered; of others everything counts as done with.
const NODES_MAX: usize = 1_024;
/// Messages of one node that members have not done with; of more the oldest batches count as done with.
const MESSAGES_MAX: usize = 10_000;

/// By the names of the nodes.
#[derive(Debug, Default)]
pub struct Taken(Mutex<HashMap<String, Sender>>);

#[derive(Debug, Default)]
struct Sender {
    boot: u64,
    newest: u64,
    /// Of the newest batch.
    refused: Vec<Refused>,
    /// Messages that members have, as long as anybody holds them: a session lets go of what is acknowledged.
    batches: VecDeque<(u64, Vec<Weak<Message>>)>,
    /// Messages in all of them.
    messages: usize,
}

impl Sender {
    fn forget_oldest(&mut self) {
        if let Some((_, given)) = self.batches.pop_front() {
            self.messages -= given.len();
        }
    }
}

impl Taken {
    /// The batch `sequence` of a node was handed out: `given` to members, all but `refused`.
    pub fn note(&self, node: &str, boot: u64, sequence: u64, given: Vec<Weak<Message>>, refused: Vec<Refused>) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !senders.contains_key(node) && senders.len() >= NODES_MAX {
            return;
        }
        let sender = senders.entry(node.to_owned()).or_default();
        if sender.boot != boot {
            *sender = Sender { boot, ..Sender::default() };
        }
        (sender.newest, sender.refused) = (sequence, refused);
        if !given.is_empty() {
            sender.messages += given.len();
            sender.batches.push_back((sequence, given));
        }
        while sender.messages > MESSAGES_MAX {
            sender.forget_oldest();
        }
    }

    /// What nobody was given of the batch `sequence`, which may be asked for again.
    pub fn refused(&self, node: &str, boot: u64, sequence: u64) -> Vec<Refused> {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = senders.get(node).filter(|sender| (sender.boot, sender.newest) == (boot, sequence));
        newest.map(|sender| sender.refused.clone()).unwrap_or_default()
    }

    /// The last batch of those up to which members have done with all.
    pub fn completed(&self, node: &str, boot: u64) -> u64 {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = senders.get_mut(node).filter(|sender| sender.boot == boot) else { return 0 };
        while let Some((_, given)) = sender.batches.front_mut() {
            let before = given.len();
            given.retain(|message| message.strong_count() > 0);
            sender.messages -= before - given.len();
            if !given.is_empty() {
                break;
            }
            sender.batches.pop_front();
        }
        sender.batches.front().map_or(sender.newest, |(sequence, _)| sequence - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::session::tests::message;

    #[test]
    fn a_batch_is_done_with_when_nobody_holds_a_message_of_it_or_of_one_before_it() {
        let taken = Taken::default();
        let messages: Vec<Arc<Message>> = (0..3).map(|number| message(vec![number])).collect();
        for (sequence, given) in (1..).zip(&messages) {
            taken.note("n", 7, sequence, vec![Arc::downgrade(given)], Vec::new());
        }
        taken.note("n", 7, 4, Vec::new(), Vec::new());
        let mut messages = messages.into_iter();
        assert_eq!(taken.completed("n", 7), 0);
        let (first, second, third) = (messages.next(), messages.next(), messages.next());
        drop(second);
        assert_eq!(taken.completed("n", 7), 0, "the first is not acknowledged");
        drop(first);
        assert_eq!(taken.completed("n", 7), 2);
        drop(third);
        assert_eq!(taken.completed("n", 7), 4);
        assert_eq!((taken.completed("n", 8), taken.completed("other", 7)), (0, 0));
    }

    #[test]
    fn what_was_refused_is_told_again_as_long_as_the_batch_may_come_again() {
        let (taken, refused) = (Taken::default(), vec![Refused { message: 3, share: 0 }]);
        taken.note("n", 7, 1, Vec::new(), refused.clone());
        assert_eq!(taken.refused("n", 7, 1), refused);
        assert!(taken.refused("n", 8, 1).is_empty() && taken.refused("n", 7, 2).is_empty());
        taken.note("n", 8, 1, Vec::new(), Vec::new());
        assert!(taken.refused("n", 8, 1).is_empty(), "it has started anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (taken, held) = (Taken::default(), message(vec![0]));
        let many = |held: &Arc<Message>, count| std::iter::repeat_n(held, count).map(Arc::downgrade).collect();
        for sequence in 1..=3 {
            taken.note("n", 7, sequence, many(&held, MESSAGES_MAX / 2), Vec::new());
        }
        assert_eq!(taken.completed("n", 7), 1, "the oldest counts as done with");
        drop(held);
        assert_eq!(taken.completed("n", 7), 3);
        let held = message(vec![1]);
        taken.note("n", 7, 4, many(&held, MESSAGES_MAX), Vec::new());
        assert_eq!(taken.completed("n", 7), 3, "there is room for as many again");
    }
}
