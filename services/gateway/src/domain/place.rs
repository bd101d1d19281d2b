//! Where a live stream stands in its topic of the log, and the `id` by which clients name it: whoever shows the id of an
//! event gets what comes behind it, each record once.
//!
//! Domain layer, no I/O. Clients hand an id back as it is. Its checksum over topic and offsets finds out what was cut,
//! mistyped or made for another topic. It is no signature: a place opens no record that `earliest` would not.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_bus::{Offset, Partition, Topic};
use drover_types::{ApiError, ErrorCode, fnv1a};

/// Begins each id, and tells it from the other words of `from`; the number is that of this form.
const PREFIX: &str = "p1.";
/// Bytes of the checksum, which is in front.
const CHECKSUM_BYTES: usize = 4;
/// Bytes of the longest offset, of 63 bits as Kafka's are: seven in each byte, the lowest first (LEB128).
const OFFSET_BYTES_MAX: usize = 9;
/// Partitions of the largest topic that the log makes.
const PARTITIONS_MAX: usize = 1_024;
/// Longest id, in bytes. The head of a request, in which it comes, may have 64 KiB.
const ID_BYTES_MAX: usize = PREFIX.len() + (CHECKSUM_BYTES + PARTITIONS_MAX * OFFSET_BYTES_MAX).div_ceil(3) * 4;

/// The next offset of each partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    topic: Topic,
    next: Vec<Offset>,
}

impl Place {
    /// The place before the records at `next`, by partition.
    pub fn new(topic: &str, next: Vec<Offset>) -> Self {
        Self { topic: Arc::from(topic), next }
    }

    /// Whether a text is meant as an id, right or wrong.
    pub fn is_id(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads an [`id`](Self::id) of a stream of `topic`; `invalid_argument` about `field` if it is none.
    pub fn parse(field: &str, id: &str, topic: &str) -> Result<Self, ApiError> {
        if id.len() > ID_BYTES_MAX {
            return Err(ApiError::invalid(field, "is longer than the id of any event").over(ID_BYTES_MAX, id.len()));
        }
        let next = offsets(id, topic)
            .ok_or_else(|| ApiError::invalid(field, "is not the id of an event of this stream, as it was sent"))?;
        Ok(Self::new(topic, next))
    }

    /// `out_of_range` if the topic has fewer partitions now, so that it is another one.
    pub fn check(&self, partitions: usize) -> Result<(), ApiError> {
        if self.next.len() <= partitions {
            return Ok(());
        }
        let message = "the id is of a topic with more partitions: this one was made anew";
        Err(ApiError::new(ErrorCode::OutOfRange, message).over(partitions, self.next.len()))
    }

    /// Where a partition goes on; `None`: the topic has grown it since.
    pub fn next(&self, partition: Partition) -> Option<Offset> {
        self.next.get(partition as usize).copied()
    }

    /// Moves on in a partition, which it has.
    pub fn advance(&mut self, partition: Partition, next: Offset) {
        self.next[partition as usize] = next;
    }

    /// The place as text without spaces, good in a query as it is.
    pub fn id(&self) -> String {
        let mut bytes = vec![0; CHECKSUM_BYTES];
        for &next in &self.next {
            let mut left = next;
            while left > 0x7f {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
        }
        let checksum = checksum(&self.topic, &bytes[CHECKSUM_BYTES..]);
        bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn offsets(id: &str, topic: &str) -> Option<Vec<Offset>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(id.strip_prefix(PREFIX)?).ok()?;
    let (front, bytes) = bytes.split_at_checked(CHECKSUM_BYTES)?;
    if front != checksum(topic, bytes) {
        return None;
    }
    let (mut offsets, mut offset, mut length) = (Vec::new(), 0, 0);
    for byte in bytes {
        if length == OFFSET_BYTES_MAX {
            return None;
        }
        offset |= Offset::from(byte & 0x7f) << (7 * length);
        length += 1;
        if byte & 0x80 == 0 {
            offsets.push(offset);
            (offset, length) = (0, 0);
        }
    }
    (length == 0).then_some(offsets)
}

/// The same in every gateway and in every version.
fn checksum(topic: &str, offsets: &[u8]) -> [u8; CHECKSUM_BYTES] {
    fnv1a(topic.bytes().chain([0]).chain(offsets.iter().copied())).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_each_partition_goes_on_and_keeps_its_bound() {
        for next in [vec![0], vec![0, 127, 128, 300], vec![i64::MAX as u64; PARTITIONS_MAX]] {
            let place = Place::new("t", next);
            let id = place.id();
            assert!(id.len() <= ID_BYTES_MAX && Place::is_id(&id), "{id}");
            assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{id}");
            assert_eq!(Place::parse("from", &id, "t"), Ok(place));
        }
        let mut place = Place::new("t", vec![7, 8]);
        place.advance(1, 9);
        assert_eq!((place.next(0), place.next(1), place.next(2)), (Some(7), Some(9), None));
        assert_eq!(place.id().len(), PREFIX.len() + 8, "small offsets are a byte each");
    }

    #[test]
    fn what_is_no_id_of_the_topic_is_refused() {
        let id = Place::new("t", vec![1_000, 2_000]).id();
        let doubled = format!("{id}{id}");
        for wrong in ["", "p1.", "p1.AAAA", "p1.!", "now", &id[..id.len() - 1], &id[1..], &doubled] {
            let refused = Place::parse("from", wrong, "t").expect_err("refused");
            assert_eq!((refused.field.as_deref(), refused.limit), (Some("from"), None), "{wrong}");
        }
        assert!(Place::parse("from", &id, "u").is_err(), "of another topic");
        let long = Place::parse("from", &"p".repeat(ID_BYTES_MAX + 1), "t").expect_err("too long");
        assert_eq!((long.limit, long.value), (Some(ID_BYTES_MAX.to_string()), Some((ID_BYTES_MAX + 1).to_string())));
    }

    #[test]
    fn an_offset_of_more_than_63_bits_is_none() {
        let id = Place::new("t", vec![1 << 63]).id();
        assert!(Place::parse("from", &id, "t").is_err());
    }

    #[test]
    fn a_topic_may_grow_but_not_shrink() {
        let place = Place::new("t", vec![1, 2]);
        assert!(place.check(2).is_ok() && place.check(3).is_ok());
        let refused = place.check(1).expect_err("refused");
        assert_eq!((refused.code, refused.limit.as_deref()), (ErrorCode::OutOfRange, Some("1")));
    }
}
