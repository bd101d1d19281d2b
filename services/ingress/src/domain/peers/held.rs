//! Messages of shared subscriptions that a peer has given to a member, who has not acknowledged them yet: if the peer is
//! lost, others have them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::message::Message;
use crate::domain::shares::Share;

/// Messages held for one peer; of more the oldest are forgotten, and go with the peer if it is lost.
const HELD_MAX: usize = 10_000;
/// Their bytes.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whoever waits for a message is told when the last of these is gone.
pub type Done = Arc<oneshot::Sender<()>>;

/// A message that nobody was given, and whom it is for.
#[derive(Debug)]
pub struct Unplaced {
    pub message: Arc<Message>,
    pub share: Share,
    /// Who waits for it.
    pub done: Vec<Done>,
}

/// What one peer has, oldest first.
#[derive(Debug, Default)]
pub struct Held {
    messages: VecDeque<(u64, Arc<Message>, Arc<str>)>,
    bytes: usize,
}

impl Held {
    /// The peer has given the message to a member, as part of the batch `sequence`.
    pub fn hold(&mut self, sequence: u64, message: Arc<Message>, filter: Arc<str>) {
        self.bytes += message.bytes();
        self.messages.push_back((sequence, message, filter));
        while self.messages.len() > HELD_MAX || self.bytes > HELD_BYTES_MAX {
            self.let_go();
        }
    }

    /// The members have done with all batches up to `sequence`.
    pub fn completed(&mut self, sequence: u64) {
        while self.messages.front().is_some_and(|(of, ..)| *of <= sequence) {
            self.let_go();
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// The peer is lost: all it had is to be given to others.
    pub fn lost(&mut self) -> Vec<Unplaced> {
        self.bytes = 0;
        let unplaced = |(_, message, filter)| Unplaced { message, share: Share::new(filter), done: Vec::new() };
        std::mem::take(&mut self.messages).into_iter().map(unplaced).collect()
    }

    fn let_go(&mut self) {
        if let Some((_, message, _)) = self.messages.pop_front() {
            self.bytes -= message.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::tests::message;

    #[test]
    fn what_members_have_not_done_with_is_given_to_others_when_their_node_is_lost() {
        let mut held = Held::default();
        (1..=4).for_each(|sequence| held.hold(sequence, message(vec![0]), "$share/g/t".into()));
        held.completed(2);
        let lost = held.lost();
        assert_eq!(lost.len(), 2);
        assert!(lost.iter().all(|lost| lost.share == Share::new("$share/g/t".into()) && lost.done.is_empty()));
        assert!(held.lost().is_empty(), "once");
    }

    #[test]
    fn no_more_than_so_many_messages_and_bytes_are_held() {
        let mut held = Held::default();
        (0..=HELD_MAX as u64).for_each(|sequence| held.hold(sequence, message(vec![0]), "$share/g/t".into()));
        assert_eq!(held.messages.front().map(|(sequence, ..)| *sequence), Some(1));
        held.completed(u64::MAX);
        assert_eq!((held.messages.len(), held.bytes), (0, 0));
        let large = message(vec![0; HELD_BYTES_MAX / 4]);
        (0..4).for_each(|sequence| held.hold(sequence, large.clone(), "$share/g/t".into()));
        assert_eq!(held.messages.len(), 3, "with topic and properties they are more than a quarter each");
    }
}
