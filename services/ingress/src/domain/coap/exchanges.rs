//! Requests by their message ids, so that one that comes again is neither carried out again nor left without its answer
//! (RFC 7252 sections 4.2, 4.3 and 4.5).
//!
//! Pure. Bounded: at the limit the oldest is forgotten before its time, and counted.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{EXCHANGE_LIFETIME_MS, MessageKey};

/// Requests remembered, about 20 MB: 400 a second over their lifetime.
pub const EXCHANGES_MAX: usize = 100_000;
/// How long the peer of a confirmable request waits before it sends it again is 2 s at least (section 4.8); it is told
/// before that that its request has come.
pub const SEPARATE_MS: u64 = 1_000;

/// What is known of a request that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    New,
    /// It is being carried out; with what to tell its peer if it is told already that it has come.
    UnderWay(Option<Bytes>),
    /// It was answered with this; empty: not in the same message, or not at all.
    Answered(Bytes),
}

#[derive(Debug)]
enum State {
    UnderWay { confirmable: bool, acknowledged: bool },
    Answered(Bytes),
}

/// The requests of the last time.
#[derive(Debug)]
pub struct Exchanges {
    known: HashMap<MessageKey, (u64, State)>,
    /// With when they came, the oldest first; holds left-overs, and so at most twice as many.
    order: VecDeque<(u64, MessageKey)>,
    /// Confirmable ones that may have to be acknowledged before their answer, the oldest first.
    unacknowledged: VecDeque<(u64, MessageKey)>,
    max: usize,
    /// Forgotten before their time.
    crowded_out: u64,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self::with_capacity(EXCHANGES_MAX)
    }
}

impl Exchanges {
    /// Remembers at most so many.
    pub fn with_capacity(max: usize) -> Self {
        let (known, order, unacknowledged) = Default::default();
        Self { known, order, unacknowledged, max, crowded_out: 0 }
    }

    /// A request has come.
    pub fn begin(&mut self, key: MessageKey, confirmable: bool, now_ms: u64) -> Seen {
        self.forget_old(now_ms);
        match self.known.get(&key) {
            Some((_, State::UnderWay { acknowledged, .. })) => {
                return Seen::UnderWay(acknowledged.then(|| acknowledgement(key.1)));
            }
            Some((_, State::Answered(answer))) => return Seen::Answered(answer.clone()),
            None => {}
        }
        while self.known.len() >= self.max || self.order.len() >= 2 * self.max {
            self.crowded_out += u64::from(self.forget_first());
        }
        self.known.insert(key, (now_ms, State::UnderWay { confirmable, acknowledged: false }));
        self.order.push_back((now_ms, key));
        if confirmable {
            self.unacknowledged.push_back((now_ms, key));
        }
        Seen::New
    }

    /// Confirmable requests that their peers are to be told of now, for their answers are not there yet.
    pub fn slow(&mut self, now_ms: u64) -> Vec<(MessageKey, Bytes)> {
        let mut slow = Vec::new();
        let due = |(since_ms, _): &mut (u64, MessageKey)| since_ms.saturating_add(SEPARATE_MS) <= now_ms;
        while let Some((since_ms, key)) = self.unacknowledged.pop_front_if(due) {
            if let Some((known_ms, State::UnderWay { acknowledged, .. })) = self.known.get_mut(&key)
                && *known_ms == since_ms
            {
                *acknowledged = true;
                slow.push((key, acknowledgement(key.1)));
            }
        }
        slow
    }

    /// Whether the answer to a request may be in the same message as its acknowledgement.
    pub fn may_piggyback(&self, key: &MessageKey) -> bool {
        matches!(self.known.get(key), Some((_, State::UnderWay { confirmable: true, acknowledged: false })))
    }

    /// A request is answered; `answer` is sent again when the request comes again.
    pub fn answered(&mut self, key: &MessageKey, answer: Bytes) {
        if let Some((_, state)) = self.known.get_mut(key) {
            let was_told = matches!(state, State::UnderWay { acknowledged: true, .. });
            *state = State::Answered(if was_told { acknowledgement(key.1) } else { answer });
        }
    }

    /// A request is answered, and when it comes again it may be carried out again.
    pub fn forget(&mut self, key: &MessageKey) {
        self.known.remove(key);
    }

    /// Requests forgotten before their time since this was asked last.
    pub fn take_crowded_out(&mut self) -> u64 {
        std::mem::take(&mut self.crowded_out)
    }

    fn forget_old(&mut self, now_ms: u64) {
        let old = |(since_ms, _): &(u64, MessageKey)| since_ms.saturating_add(EXCHANGE_LIFETIME_MS) <= now_ms;
        while self.order.front().is_some_and(old) {
            self.forget_first();
        }
    }

    /// Whether the oldest was still known.
    fn forget_first(&mut self) -> bool {
        let Some((since_ms, key)) = self.order.pop_front() else { return false };
        let same = self.known.get(&key).is_some_and(|(known_ms, _)| *known_ms == since_ms);
        if same {
            self.known.remove(&key);
        }
        same
    }
}

fn acknowledgement(id: u16) -> Bytes {
    Bytes::copy_from_slice(&super::reply::empty(coap_lite::MessageType::Acknowledgement, id))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::domain::coap::Peer;

    fn key(id: u16) -> MessageKey {
        (SocketAddr::from(([127, 0, 0, 1], 7)).into(), id)
    }

    #[test]
    fn a_request_that_comes_again_gets_the_same_answer_for_its_lifetime() {
        let mut exchanges = Exchanges::default();
        assert_eq!(exchanges.begin(key(1), true, 0), Seen::New);
        assert_eq!(exchanges.begin(key(1), true, 10), Seen::UnderWay(None));
        assert!(exchanges.may_piggyback(&key(1)));
        exchanges.answered(&key(1), "a".into());
        assert_eq!(exchanges.begin(key(1), true, EXCHANGE_LIFETIME_MS - 1), Seen::Answered("a".into()));
        let elsewhere = (SocketAddr::from(([127, 0, 0, 1], 8)).into(), 1);
        assert_eq!(exchanges.begin(elsewhere, true, 20), Seen::New, "ids are those of their peer");
        let associated = (Peer { association: 1, ..key(1).0 }, 1);
        assert_eq!(exchanges.begin(associated, true, 20), Seen::New, "an association is a peer of its own");
        assert_eq!(exchanges.begin(key(1), true, EXCHANGE_LIFETIME_MS), Seen::New);
    }

    #[test]
    fn a_slow_request_is_acknowledged_once_and_again_when_it_comes_again() {
        let mut exchanges = Exchanges::default();
        exchanges.begin(key(1), true, 0);
        exchanges.begin(key(2), false, 0);
        exchanges.begin(key(3), true, 0);
        exchanges.answered(&key(3), "quick".into());
        assert!(exchanges.slow(SEPARATE_MS - 1).is_empty());
        let acknowledgement = Bytes::from_static(&[0x60, 0, 0, 1]);
        assert_eq!(exchanges.slow(SEPARATE_MS), [(key(1), acknowledgement.clone())]);
        assert!(exchanges.slow(SEPARATE_MS).is_empty() && !exchanges.may_piggyback(&key(1)));
        assert_eq!(exchanges.begin(key(1), true, 2_000), Seen::UnderWay(Some(acknowledgement.clone())));
        exchanges.answered(&key(1), "separate".into());
        assert_eq!(exchanges.begin(key(1), true, 3_000), Seen::Answered(acknowledgement));
    }

    #[test]
    fn at_the_limit_the_oldest_is_forgotten_and_counted() {
        let mut exchanges = Exchanges::with_capacity(2);
        (1..=2).for_each(|id| assert_eq!(exchanges.begin(key(id), true, 0), Seen::New));
        exchanges.forget(&key(1));
        assert_eq!(exchanges.begin(key(3), true, 0), Seen::New);
        assert_eq!(exchanges.take_crowded_out(), 0, "there was room");
        assert_eq!(exchanges.begin(key(4), true, 0), Seen::New);
        assert_eq!((exchanges.take_crowded_out(), exchanges.take_crowded_out()), (1, 0));
        assert_eq!(exchanges.begin(key(2), true, 0), Seen::New, "it was the oldest");
    }

    #[test]
    fn requests_that_are_not_kept_leave_no_more_than_so_many_behind() {
        let mut exchanges = Exchanges::with_capacity(2);
        for id in 1..=9 {
            assert_eq!(exchanges.begin(key(id), true, 0), Seen::New);
            exchanges.forget(&key(id));
        }
        assert_eq!((exchanges.order.len(), exchanges.take_crowded_out()), (4, 0));
    }
}
