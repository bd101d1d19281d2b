//! What the subscribers of a node want, in the few bytes that other nodes have to know: a hash for each distinct literal
//! beginning of their filters.
//!
//! Domain layer, pure. A topic has as many beginnings as levels; a node may want a message if one of them is among its
//! hashes. A filter without wildcards counts as a whole. Two beginnings with one hash cost a wasted hop, never a message.

use std::collections::{HashMap, VecDeque};

use drover_types::TenantId;

use crate::domain::shares::Memberships;

/// Distinct beginnings a node tells of; one with more is told everything. 2.4 MB, a message may have 4.
pub const HASHES_MAX: usize = 300_000;
/// Newest beginnings kept apart, for peers that know all others.
const NEWS_MAX: usize = 4_096;
/// No filter begins so: it only makes a new version.
const NOTHING: u64 = 0;
/// Beginnings nobody wants any more that peers are left to believe in: this many, or as many as are wanted.
const OUTDATED_MAX: usize = 1_000;

/// A running hash over the bytes of a topic.
#[derive(Clone, Copy)]
struct Running(u64);

impl Running {
    fn of_tenant(tenant: &TenantId) -> Self {
        // FNV-1a: the same on every node and in every version.
        let mut running = Self(0xcbf2_9ce4_8422_2325);
        running.feed(tenant.as_str().as_bytes());
        running.feed(&[0]);
        running
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Levels up to here, and more behind them.
    fn beginning(self) -> u64 {
        mixed(self.0)
    }

    /// All levels.
    fn whole(self) -> u64 {
        mixed(self.0 ^ 0x5bf0_3635)
    }
}

/// Spreads the bits (the finaliser of SplitMix64).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// The hash of a filter's literal beginning.
pub fn of_filter(tenant: &TenantId, filter: &str) -> u64 {
    let mut running = Running::of_tenant(tenant);
    for (at, level) in filter.split('/').enumerate() {
        if matches!(level, "+" | "#") {
            if at > 0 {
                running.feed(b"/");
            }
            return running.beginning();
        }
        if at > 0 {
            running.feed(b"/");
        }
        running.feed(level.as_bytes());
    }
    running.whole()
}

/// The hashes of all beginnings of a topic, and of the topic as a whole.
pub fn of_topic(tenant: &TenantId, topic: &str) -> Vec<u64> {
    let mut running = Running::of_tenant(tenant);
    let mut hashes = vec![running.beginning()];
    for (at, level) in topic.split('/').enumerate() {
        if at > 0 {
            running.feed(b"/");
        }
        running.feed(level.as_bytes());
        let mut beginning = running;
        beginning.feed(b"/");
        hashes.push(beginning.beginning());
    }
    hashes.push(running.whole());
    hashes
}

/// What the subscribers of this node want.
#[derive(Debug, Default)]
pub struct Interest {
    /// How many subscriptions begin so.
    counts: HashMap<u64, u32>,
    /// The newest beginnings, the last of them with the number `version`.
    news: VecDeque<u64>,
    /// Grows by one with each beginning that was not wanted before.
    version: u64,
    /// Grows when peers are to be told all anew.
    generation: u64,
    /// Beginnings nobody wants any more, since the last generation began.
    outdated: usize,
    /// What is wanted is not known yet: peers are told that it is everything.
    unknown: bool,
    /// Told beside the beginnings: shared subscriptions are none of these.
    pub memberships: Memberships,
}

/// What a peer has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// It replaces what was told before, and is all there is; without it, it adds to the version `from`.
    pub full: bool,
    /// The peer is to be sent everything: there are too many beginnings to tell.
    pub everything: bool,
    pub from: u64,
    pub to: u64,
    pub generation: u64,
    pub hashes: Vec<u64>,
}

impl Interest {
    /// One more subscription; the version that peers have to know before it is answered.
    pub fn add(&mut self, hash: u64) -> u64 {
        let count = self.counts.entry(hash).or_default();
        *count += 1;
        if *count == 1 {
            self.tell(hash);
        }
        self.version
    }

    /// One more member of a shared subscription; the version, as for [`Interest::add`].
    pub fn join(&mut self, tenant: &TenantId, filter: &str) -> u64 {
        if self.memberships.join(tenant, filter) {
            self.tell(NOTHING);
        }
        self.version
    }

    fn tell(&mut self, hash: u64) {
        self.version += 1;
        self.news.push_back(hash);
        if self.news.len() > NEWS_MAX {
            self.news.pop_front();
        }
    }

    /// One subscription less.
    pub fn remove(&mut self, hash: u64) {
        let Some(count) = self.counts.get_mut(&hash) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.counts.remove(&hash);
        self.outdated += 1;
        if self.outdated > OUTDATED_MAX.max(self.counts.len()) {
            (self.generation, self.outdated) = (self.generation + 1, 0);
        }
    }

    /// Sessions of before are taken back: until [`Interest::known`] peers send everything.
    pub fn unknown(&mut self) {
        self.unknown = true;
    }

    /// All that is wanted is known; peers are told it.
    pub fn known(&mut self) {
        (self.unknown, self.generation) = (false, self.generation + 1);
    }

    /// Whether sessions of before are still taken back.
    pub fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// The version as of now.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What somebody has to be told who knows `known`, a generation and a version of it.
    pub fn news(&self, known: Option<(u64, u64)>) -> News {
        let behind = known.and_then(|(generation, version)| {
            let behind = usize::try_from(self.version - version).ok()?;
            (generation == self.generation && behind <= self.news.len()).then_some((version, behind))
        });
        let news = News {
            full: false,
            everything: false,
            from: 0,
            to: self.version,
            generation: self.generation,
            hashes: Vec::new(),
        };
        match behind {
            Some((from, behind)) => {
                let hashes = self.news.range(self.news.len() - behind..).copied().collect();
                News { from, hashes, ..news }
            }
            None if self.unknown || self.counts.len() > HASHES_MAX => News { full: true, everything: true, ..news },
            None => News { full: true, hashes: self.counts.keys().copied().collect(), ..news },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn home() -> TenantId {
        TenantId::new("home").expect("valid")
    }

    fn may_want(filter: &str, topic: &str) -> bool {
        of_topic(&home(), topic).contains(&of_filter(&home(), filter))
    }

    #[test]
    fn only_what_begins_otherwise_is_left_out() {
        for (filter, topic, expected) in [
            ("#", "a", true),
            ("+/b", "a/c", true), // begins alike: a wasted hop
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+", "ab/c", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/b/#", "a/c", false),
            ("/+", "/x", true),
            ("/+", "x/y", false),
            ("a//+", "a//b", true),
            ("a/", "a/", true),
            ("a/", "a", false),
        ] {
            assert_eq!(may_want(filter, topic), expected, "{filter} {topic}");
        }
        let other = TenantId::new("other").expect("valid");
        assert!(!of_topic(&other, "a/b").contains(&of_filter(&home(), "a/b")));
        assert!(!of_topic(&other, "a/b").contains(&of_filter(&home(), "#")));
    }

    #[test]
    fn a_peer_is_told_what_is_new_and_all_when_it_knows_too_little_or_too_much() {
        let mut interest = Interest::default();
        assert!(interest.news(None).hashes.is_empty());
        assert_eq!([7, 8, 7].map(|hash| interest.add(hash)), [1, 2, 2], "the same beginning twice is nothing new");
        let all = interest.news(None);
        assert!(all.full && !all.everything && all.hashes.len() == 2);
        let news = interest.news(Some((0, 1)));
        assert_eq!((news.full, news.from, news.to, news.hashes), (false, 1, 2, vec![8]));
        interest.remove(7);
        assert_eq!(interest.news(None).hashes.len(), 2, "one subscription is left");
        interest.remove(7);
        assert_eq!(interest.news(None).hashes, [8]);
        assert!(!interest.news(Some((0, 2))).full, "what is outdated does no harm");

        for hash in 100..100 + OUTDATED_MAX as u64 {
            interest.add(hash);
            interest.remove(hash);
        }
        let news = interest.news(Some((0, interest.version)));
        assert!(news.full && news.hashes == [8], "but not for ever");
        let known = Some((news.generation, news.to));
        for hash in 0..=NEWS_MAX as u64 {
            interest.add(10_000 + hash);
        }
        assert!(interest.news(known).full);
        for hash in 0..=HASHES_MAX as u64 {
            interest.add(1_000_000 + hash);
        }
        let news = interest.news(None);
        assert!(news.everything && news.hashes.is_empty());
    }

    #[test]
    fn while_it_is_not_known_what_is_wanted_peers_are_told_everything() {
        let mut interest = Interest::default();
        interest.unknown();
        interest.add(7);
        let news = interest.news(None);
        assert!(news.full && news.everything);
        interest.known();
        let news = interest.news(Some((news.generation, news.to)));
        assert!(news.full && !news.everything && news.hashes == [7]);
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")]
    }

    proptest! {
        #[test]
        fn whatever_a_filter_matches_is_never_left_out(
            topic in proptest::collection::vec(level(), 1..5),
            filter in proptest::collection::vec(prop_oneof![3 => level(), 1 => Just("+")], 0..5),
            rest in any::<bool>(),
        ) {
            let (topic, mut filter) = (topic.join("/"), filter);
            filter.extend(rest.then_some("#"));
            let filter = filter.join("/");
            if !filter.is_empty() && drover_types::matches(&filter, &topic) {
                prop_assert!(may_want(&filter, &topic), "{} {}", filter, topic);
            }
        }
    }
}
