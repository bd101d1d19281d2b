//! What other nodes have told of their subscribers' wishes. A node whose picture is missing, gapped or old is taken to
//! want everything.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::peer::LEASE;
use crate::domain::interest::News;

/// Nodes remembered; of others nothing is known, so they are taken to want everything.
const NODES_MAX: usize = 1_024;

/// The pictures, by the names of the nodes.
#[derive(Debug, Default)]
pub struct Pictures(Mutex<HashMap<String, Picture>>);

#[derive(Debug)]
struct Picture {
    boot: u64,
    version: u64,
    /// `None`: it wants everything.
    hashes: Option<HashSet<u64>>,
    /// When the node was last heard, monotonic.
    heard: Duration,
}

impl Pictures {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Picture>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node tells what is new; whether the picture of it is whole now. If not, it has to tell all.
    pub fn hear(&self, node: &str, boot: u64, news: News, now: Duration) -> bool {
        let mut pictures = self.lock();
        if news.full {
            let known = pictures.get(node);
            if known.is_none() && pictures.len() >= NODES_MAX {
                return true; // it is taken to want everything
            }
            if known.is_some_and(|known| known.boot == boot && known.version > news.to) {
                return true; // said again, late
            }
            let hashes = (!news.everything).then(|| news.hashes.into_iter().collect());
            pictures.insert(node.to_owned(), Picture { boot, version: news.to, hashes, heard: now });
            return true;
        }
        let whole = |picture: &&mut Picture| picture.boot == boot && news.from <= picture.version;
        let Some(picture) = pictures.get_mut(node).filter(whole) else {
            pictures.remove(node);
            return false;
        };
        (picture.version, picture.heard) = (picture.version.max(news.to), now);
        if let Some(hashes) = &mut picture.hashes {
            hashes.extend(news.hashes);
        }
        true
    }

    /// When a node was last heard, if it is known what its subscribers want.
    pub fn heard(&self, node: &str) -> Option<Duration> {
        self.lock().get(node).map(|picture| picture.heard)
    }

    /// Whether a node may want a message whose topic has these beginnings.
    pub fn may_want(&self, node: &str, beginnings: &[u64], now: Duration) -> bool {
        self.shown(node, beginnings, now).unwrap_or(true)
    }

    /// Whether a node is known to want it.
    pub fn wants(&self, node: &str, beginnings: &[u64], now: Duration) -> bool {
        self.shown(node, beginnings, now).unwrap_or(false)
    }

    /// What the picture of a node shows; `None`: everything.
    fn shown(&self, node: &str, beginnings: &[u64], now: Duration) -> Option<bool> {
        let pictures = self.lock();
        let known = pictures.get(node).filter(|picture| now.saturating_sub(picture.heard) < LEASE);
        let hashes = known.and_then(|picture| picture.hashes.as_ref())?;
        Some(beginnings.iter().any(|beginning| hashes.contains(beginning)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn news(full: bool, from: u64, to: u64, hashes: &[u64]) -> News {
        News { full, everything: false, from, to, generation: 0, hashes: hashes.to_vec() }
    }

    #[test]
    fn a_picture_that_is_missing_gapped_or_old_shows_everything() {
        let pictures = Pictures::default();
        let wants = |hash, now| pictures.may_want("n", &[hash], now);
        assert!(wants(1, NOW), "never heard of");
        assert!(!pictures.hear("n", 1, news(false, 0, 1, &[1]), NOW), "its beginning is missing");
        assert!(pictures.hear("n", 1, news(true, 0, 1, &[1]), NOW));
        assert_eq!([wants(1, NOW), wants(2, NOW)], [true, false]);
        let known = |hash, now| pictures.wants("n", &[hash], now);
        assert_eq!([known(1, NOW), known(2, NOW), known(1, NOW + LEASE)], [true, false, false]);
        assert!(pictures.hear("n", 1, news(false, 1, 2, &[2]), NOW));
        assert!(pictures.hear("n", 1, news(false, 1, 2, &[2]), NOW), "the same again");
        assert_eq!([wants(2, NOW), wants(3, NOW)], [true, false]);
        assert!(wants(3, NOW + LEASE), "it has said nothing for a lease");
        assert!(!pictures.hear("n", 1, news(false, 3, 4, &[4]), NOW), "a gap");
        assert!(wants(3, NOW));
        assert!(pictures.hear("n", 1, news(true, 0, 4, &[4]), NOW));
        assert!(!wants(3, NOW));
        assert!(!pictures.hear("n", 2, news(false, 4, 4, &[]), NOW), "it has started anew");
        assert!(pictures.hear("n", 2, News { everything: true, ..news(true, 0, 9, &[]) }, NOW));
        assert!(wants(3, NOW));
    }
}
