//! Bodies that leave in blocks (Block2, RFC 7959 section 2.4): kept until the peer has had time to fetch them, within bounds.
//!
//! Pure. One body for each device, peer and filter: the newest.

use std::collections::HashMap;

use bytes::Bytes;
use drover_types::DeviceKey;

use super::{EXCHANGE_LIFETIME_MS, Peer};

/// Bodies kept, and those of one device, which fetches one after the other (NSTART is 1); at it the oldest give way.
const DOWNLOADS_MAX: usize = 1_024;
const DOWNLOADS_PER_DEVICE_MAX: usize = 8;
/// Bytes of all bodies; at it the oldest give way.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whose body it is, and of which resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DownloadKey {
    pub device: DeviceKey,
    pub peer: Peer,
    pub filter: String,
}

/// A body that does not fit one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub bytes: Bytes,
    pub etag: [u8; 8],
    pub content_format: Option<u16>,
}

#[derive(Debug)]
struct Kept {
    body: Body,
    touched_ms: u64,
    /// Its last block was asked for.
    fetched: bool,
}

/// The bodies under way.
#[derive(Debug, Default)]
pub struct Downloads {
    kept: HashMap<DownloadKey, Kept>,
    bytes: usize,
}

impl Downloads {
    /// Keeps a body whose first block is sent.
    pub fn keep(&mut self, key: DownloadKey, body: Body, now_ms: u64) {
        self.remove(&key);
        let same = |other: &DownloadKey| other.device == key.device;
        if self.kept.keys().filter(|other| same(other)).count() >= DOWNLOADS_PER_DEVICE_MAX {
            self.remove_oldest(same);
        }
        let full = |kept: usize, bytes: usize| kept >= DOWNLOADS_MAX || bytes + body.bytes.len() > BYTES_MAX;
        while !self.kept.is_empty() && full(self.kept.len(), self.bytes) {
            self.remove_oldest(|_| true);
        }
        self.bytes += body.bytes.len();
        self.kept.insert(key, Kept { body, touched_ms: now_ms, fetched: false });
    }

    /// The body of which a block from byte `offset` on is asked for, so many bytes.
    pub fn fetch(&mut self, key: &DownloadKey, offset: usize, bytes: usize, now_ms: u64) -> Option<Body> {
        let kept = self.kept.get_mut(key)?;
        kept.touched_ms = now_ms;
        kept.fetched |= offset + bytes >= kept.body.bytes.len();
        Some(kept.body.clone())
    }

    /// When a block of a body that is not fetched to its end was asked for last; `None`: nobody waits for one.
    pub fn fetching_since(&self, key: &DownloadKey) -> Option<u64> {
        self.kept.get(key).filter(|kept| !kept.fetched).map(|kept| kept.touched_ms)
    }

    /// Bodies that nobody fetches any more are forgotten.
    pub fn forget_old(&mut self, now_ms: u64) {
        let old = |kept: &Kept| kept.touched_ms.saturating_add(EXCHANGE_LIFETIME_MS) <= now_ms;
        let gone: Vec<DownloadKey> =
            self.kept.iter().filter(|(_, kept)| old(kept)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    fn remove_oldest(&mut self, of: impl Fn(&DownloadKey) -> bool) {
        let all = self.kept.iter().filter(|(key, _)| of(key));
        let oldest = all.min_by_key(|(_, kept)| kept.touched_ms).map(|(key, _)| key.clone());
        oldest.iter().for_each(|key| self.remove(key));
    }

    fn remove(&mut self, key: &DownloadKey) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes -= kept.body.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use drover_types::{DeviceId, TenantId};

    use super::*;

    fn key(filter: &str) -> DownloadKey {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        DownloadKey { device, peer: SocketAddr::from(([127, 0, 0, 1], 7)).into(), filter: filter.to_owned() }
    }

    fn body(bytes: usize) -> Body {
        Body { bytes: vec![0; bytes].into(), etag: [0; 8], content_format: None }
    }

    #[test]
    fn a_body_stays_while_it_is_fetched_and_is_done_with_its_last_block() {
        let mut downloads = Downloads::default();
        downloads.keep(key("a"), body(40), 0);
        assert_eq!(downloads.fetching_since(&key("a")), Some(0));
        assert_eq!(downloads.fetch(&key("a"), 16, 16, 5), Some(body(40)));
        assert_eq!(downloads.fetching_since(&key("a")), Some(5));
        assert!(downloads.fetch(&key("a"), 32, 16, 6).is_some() && downloads.fetching_since(&key("a")).is_none());
        assert!(downloads.fetch(&key("b"), 0, 16, 6).is_none());
        downloads.forget_old(5 + EXCHANGE_LIFETIME_MS);
        assert!(downloads.fetch(&key("a"), 0, 16, 7).is_some(), "it may be asked for again");
        downloads.forget_old(7 + EXCHANGE_LIFETIME_MS);
        assert_eq!((downloads.kept.len(), downloads.bytes), (0, 0));
    }

    #[test]
    fn at_the_limit_the_oldest_give_way() {
        let mut downloads = Downloads::default();
        downloads.keep(key("a"), body(BYTES_MAX / 2), 0);
        downloads.keep(key("b"), body(BYTES_MAX / 2), 1);
        downloads.keep(key("c"), body(1), 2);
        assert!(downloads.fetch(&key("a"), 0, 16, 3).is_none() && downloads.fetch(&key("b"), 0, 16, 3).is_some());
        downloads.keep(key("c"), body(2), 4);
        assert_eq!(downloads.bytes, BYTES_MAX / 2 + 2);
    }

    #[test]
    fn a_device_has_room_for_a_few_bodies_and_all_of_them_for_so_many() {
        let mut downloads = Downloads::default();
        for n in 0..=DOWNLOADS_PER_DEVICE_MAX {
            downloads.keep(key(&n.to_string()), body(1), n as u64);
        }
        assert_eq!((downloads.kept.len(), downloads.fetch(&key("0"), 0, 16, 9)), (DOWNLOADS_PER_DEVICE_MAX, None));
        for n in 0..DOWNLOADS_MAX {
            let device = DeviceId::new(format!("d{n}")).expect("valid");
            let device = DeviceKey { device, ..key("").device };
            downloads.keep(DownloadKey { device, ..key("a") }, body(1), 10);
        }
        assert_eq!((downloads.kept.len(), downloads.bytes), (DOWNLOADS_MAX, DOWNLOADS_MAX));
        assert_eq!(downloads.fetch(&key("1"), 0, 16, 11), None, "the oldest gave way");
    }
}
