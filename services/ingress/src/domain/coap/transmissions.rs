//! Confirmable messages to peers: sent again until they are answered, or given up (RFC 7252 section 4.2).
//!
//! Pure: time arrives as an argument, and the random part of the first wait as a number. `P` is what a message was sent for.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::MessageKey;

/// First wait for an acknowledgement, in milliseconds (ACK_TIMEOUT, section 4.8); up to half as long again by chance.
const ACK_TIMEOUT_MS: u64 = 2_000;
/// How often a message is sent again (MAX_RETRANSMIT); each wait is twice the one before.
const RETRANSMIT_MAX: u32 = 4;
/// Messages that wait for their acknowledgement.
pub const TRANSMISSIONS_MAX: usize = 10_000;

/// What time has come for.
#[derive(Debug, PartialEq, Eq)]
pub enum Due<P> {
    Again(MessageKey, Bytes),
    GivenUp(P),
}

#[derive(Debug)]
struct Transmission<P> {
    datagram: Bytes,
    purpose: P,
    wait_ms: u64,
    due_ms: u64,
    sent: u32,
}

/// The messages under way.
#[derive(Debug)]
pub struct Transmissions<P> {
    open: HashMap<MessageKey, Transmission<P>>,
    due: BTreeSet<(u64, MessageKey)>,
}

impl<P> Default for Transmissions<P> {
    fn default() -> Self {
        Self { open: HashMap::new(), due: BTreeSet::new() }
    }
}

impl<P> Transmissions<P> {
    /// A message was sent. `Err`: there are too many, or its id is taken; it will not be sent again.
    pub fn sent(&mut self, key: MessageKey, datagram: Bytes, purpose: P, now_ms: u64, random: u16) -> Result<(), P> {
        if !self.has_room() || self.open.contains_key(&key) {
            return Err(purpose);
        }
        let wait_ms = ACK_TIMEOUT_MS + u64::from(random) % (ACK_TIMEOUT_MS / 2 + 1);
        let due_ms = now_ms.saturating_add(wait_ms);
        self.due.insert((due_ms, key));
        self.open.insert(key, Transmission { datagram, purpose, wait_ms, due_ms, sent: 1 });
        Ok(())
    }

    /// Whether another one may be sent.
    pub fn has_room(&self) -> bool {
        self.open.len() < TRANSMISSIONS_MAX
    }

    /// The peer has answered message `key`; what it was for.
    pub fn answered(&mut self, key: &MessageKey) -> Option<P> {
        let done = self.open.remove(key)?;
        self.due.remove(&(done.due_ms, *key));
        Some(done.purpose)
    }

    /// What is due by now.
    pub fn due(&mut self, now_ms: u64) -> Vec<Due<P>> {
        let mut all = Vec::new();
        while let Some((due_ms, key)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.due.remove(&(due_ms, key));
            let Some(open) = self.open.get_mut(&key) else { continue };
            if open.sent > RETRANSMIT_MAX {
                all.extend(self.open.remove(&key).map(|given_up| Due::GivenUp(given_up.purpose)));
                continue;
            }
            open.sent += 1;
            open.wait_ms *= 2;
            open.due_ms = now_ms.saturating_add(open.wait_ms);
            self.due.insert((open.due_ms, key));
            all.push(Due::Again(key, open.datagram.clone()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn key(id: u16) -> MessageKey {
        (SocketAddr::from(([127, 0, 0, 1], 7)).into(), id)
    }

    #[test]
    fn a_message_is_sent_again_four_times_in_growing_waits_and_then_given_up() {
        let mut transmissions = Transmissions::default();
        transmissions.sent(key(1), "m".into(), 'p', 0, 0).expect("there is room");
        let (mut now_ms, mut seen) = (0, Vec::new());
        while seen.last().is_none_or(|(_, due)| *due != Due::GivenUp('p')) {
            now_ms += 500;
            seen.extend(transmissions.due(now_ms).into_iter().map(|due| (now_ms, due)));
        }
        let again = |at| (at, Due::Again(key(1), Bytes::from_static(b"m")));
        let expected = [again(2_000), again(6_000), again(14_000), again(30_000), (62_000, Due::GivenUp('p'))];
        assert_eq!(seen, expected);
        assert!(transmissions.due(u64::MAX).is_empty() && transmissions.answered(&key(1)).is_none());
    }

    #[test]
    fn an_answered_message_is_not_sent_again_and_an_id_is_used_once() {
        let mut transmissions = Transmissions::default();
        transmissions.sent(key(1), "m".into(), 'p', 0, u16::MAX).expect("there is room");
        assert_eq!(transmissions.sent(key(1), "n".into(), 'q', 0, 0), Err('q'));
        assert!(transmissions.due(2_000).is_empty(), "chance adds up to a second");
        assert_eq!(transmissions.answered(&key(1)), Some('p'));
        assert_eq!(transmissions.answered(&key(1)), None);
        assert!(transmissions.due(u64::MAX).is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut transmissions = Transmissions::default();
        for id in 0..TRANSMISSIONS_MAX {
            let id = u16::try_from(id).expect("below the limit");
            assert!(transmissions.has_room());
            transmissions.sent(key(id), Bytes::new(), (), 0, 0).expect("there is room");
        }
        assert!(!transmissions.has_room());
        assert_eq!(transmissions.sent(key(u16::MAX), Bytes::new(), (), 0, 0), Err(()));
        assert_eq!((transmissions.answered(&key(0)), transmissions.has_room()), (Some(()), true));
    }
}
