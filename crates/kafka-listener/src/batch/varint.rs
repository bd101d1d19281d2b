//! Zigzag varints of records: like protobuf's `sint64`.
//!
//! Protocol layer, pure.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Appends `value`.
pub fn put(buffer: &mut BytesMut, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        buffer.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
}

/// Bytes that [`put`] appends.
pub fn bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Takes one value off the front; `None` if it is cut off or longer than 64 bits.
pub fn take(buffer: &mut Bytes) -> Option<i64> {
    let mut raw = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = buffer.try_get_u8().ok()?;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}
