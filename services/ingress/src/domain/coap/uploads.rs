//! Bodies that come in blocks (Block1, RFC 7959 section 2.5): put together in order, within bounds.
//!
//! Pure. Whoever sends has shown who it is, with each block.

use std::collections::HashMap;

use bytes::Bytes;
use drover_types::DeviceKey;

use super::block::Block;
use super::{EXCHANGE_LIFETIME_MS, Peer};

/// Bodies under way, and those of one device; a device sends one after the other (NSTART is 1).
const UPLOADS_MAX: usize = 1_024;
const UPLOADS_PER_DEVICE_MAX: usize = 4;
/// Bytes of all of them.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Whose body it is, and what for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadKey {
    pub device: DeviceKey,
    pub peer: Peer,
    pub topic: String,
    pub tag: Vec<u8>,
}

/// What a block leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The body is complete.
    Whole(Bytes),
    /// The next block, please.
    Continue,
    /// It is not the block that follows, or its body is not known.
    Incomplete,
    /// The body is larger than it may be.
    TooLarge,
    /// There is no room for another body now.
    Full,
}

#[derive(Debug)]
struct Upload {
    body: Vec<u8>,
    /// Size of its last block.
    last: usize,
    touched_ms: u64,
}

/// The bodies under way.
#[derive(Debug, Default)]
pub struct Uploads {
    open: HashMap<UploadKey, Upload>,
    bytes: usize,
}

impl Uploads {
    /// A block has come.
    pub fn take(&mut self, key: UploadKey, block: Block, payload: &[u8], limit: usize, now_ms: u64) -> Taken {
        if block.number == 0 {
            self.remove(&key);
            if !block.more {
                let whole = payload.len() <= limit;
                return if whole { Taken::Whole(Bytes::copy_from_slice(payload)) } else { Taken::TooLarge };
            }
            if !self.has_room(&key, now_ms) {
                return Taken::Full;
            }
            self.open.insert(key.clone(), Upload { body: Vec::new(), last: 0, touched_ms: now_ms });
        }
        let Some(upload) = self.open.get_mut(&key) else { return Taken::Incomplete };
        upload.touched_ms = now_ms;
        let have = upload.body.len();
        if block.number > 0 && block.more && block.offset() + payload.len() == have && payload.len() == upload.last {
            return Taken::Continue; // it has come before, in another message
        }
        let fits = payload.len() == block.bytes() || !block.more && payload.len() <= block.bytes();
        if block.offset() != have || !fits {
            return Taken::Incomplete;
        }
        if have + payload.len() > limit {
            self.remove(&key);
            return Taken::TooLarge;
        }
        if self.bytes + payload.len() > BYTES_MAX {
            self.remove(&key);
            return Taken::Full;
        }
        upload.body.extend_from_slice(payload);
        upload.last = payload.len();
        self.bytes += payload.len();
        if block.more {
            return Taken::Continue;
        }
        self.remove(&key).map_or(Taken::Incomplete, |body| Taken::Whole(body.into()))
    }

    /// Bodies that did not go on are forgotten.
    pub fn forget_old(&mut self, now_ms: u64) {
        let old = |upload: &Upload| upload.touched_ms.saturating_add(EXCHANGE_LIFETIME_MS) <= now_ms;
        let gone: Vec<UploadKey> = self.open.iter().filter(|(_, u)| old(u)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.remove(key)));
    }

    fn has_room(&mut self, key: &UploadKey, now_ms: u64) -> bool {
        let of_device = |open: &HashMap<UploadKey, Upload>| open.keys().filter(|k| k.device == key.device).count();
        if self.open.len() >= UPLOADS_MAX || of_device(&self.open) >= UPLOADS_PER_DEVICE_MAX {
            self.forget_old(now_ms);
        }
        self.open.len() < UPLOADS_MAX && of_device(&self.open) < UPLOADS_PER_DEVICE_MAX
    }

    fn remove(&mut self, key: &UploadKey) -> Option<Vec<u8>> {
        let upload = self.open.remove(key)?;
        self.bytes -= upload.body.len();
        Some(upload.body)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use drover_types::{DeviceId, TenantId};

    use super::*;

    fn key(tag: u8) -> UploadKey {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        UploadKey { device, peer: SocketAddr::from(([127, 0, 0, 1], 7)).into(), topic: "t".into(), tag: vec![tag] }
    }

    fn block(number: u32, more: bool) -> Block {
        Block { number, more, exponent: 0 }
    }

    const FULL: [u8; 16] = [b'x'; 16];

    #[test]
    fn blocks_in_order_make_a_body_and_a_block_that_comes_again_changes_nothing() {
        let mut uploads = Uploads::default();
        let mut take = |number, more, payload: &[u8]| uploads.take(key(0), block(number, more), payload, 100, 0);
        assert_eq!(take(0, true, &FULL), Taken::Continue);
        assert_eq!(take(1, true, &FULL), Taken::Continue);
        assert_eq!(take(1, true, &FULL), Taken::Continue);
        assert_eq!(take(2, false, b"end"), Taken::Whole(Bytes::from([&FULL[..], &FULL, b"end"].concat())));
        assert_eq!(take(3, false, b"more"), Taken::Incomplete, "there is no body any more");
        assert_eq!(take(0, false, b"all"), Taken::Whole("all".into()));
        assert_eq!((uploads.open.len(), uploads.bytes), (0, 0));
    }

    #[test]
    fn a_gap_a_short_block_and_a_body_over_the_limit_are_refused() {
        let mut uploads = Uploads::default();
        let mut take = |number, more, payload: &[u8]| uploads.take(key(0), block(number, more), payload, 32, 0);
        assert_eq!(take(1, true, &FULL), Taken::Incomplete, "without a beginning");
        assert_eq!(take(0, true, &FULL), Taken::Continue);
        assert_eq!(take(2, true, &FULL), Taken::Incomplete);
        assert_eq!(take(1, true, b"short"), Taken::Incomplete);
        assert_eq!(take(1, true, &FULL), Taken::Continue, "the body is still there");
        assert_eq!(take(2, false, b""), Taken::Whole([FULL, FULL].concat().into()), "at the limit");
        assert_eq!(take(0, true, &FULL), Taken::Continue);
        assert_eq!(take(1, true, &FULL), Taken::Continue);
        assert_eq!(take(2, false, b"x"), Taken::TooLarge);
        assert_eq!(take(0, false, &[0; 33]), Taken::TooLarge);
        assert_eq!((uploads.open.len(), uploads.bytes), (0, 0));
    }

    #[test]
    fn a_device_has_room_for_a_few_bodies_and_old_ones_give_way() {
        let mut uploads = Uploads::default();
        let mut begin = |tag, now_ms| uploads.take(key(tag), block(0, true), &FULL, 100, now_ms);
        (0..4).for_each(|tag| assert_eq!(begin(tag, 0), Taken::Continue));
        assert_eq!(begin(4, 1), Taken::Full);
        assert_eq!(begin(3, 1), Taken::Continue, "it begins anew");
        assert_eq!(begin(4, EXCHANGE_LIFETIME_MS), Taken::Continue);
        assert_eq!((uploads.open.len(), uploads.bytes), (2, 32));
    }
}
