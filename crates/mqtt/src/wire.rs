//! Data representation of section 1.5: integers, variable byte integers, UTF-8 text and binary data.

use bytes::BufMut;

use crate::packet::PacketId;
use crate::{DecodeError, EncodeError};

/// Largest value of a variable byte integer (section 1.5.5), so also the largest remaining length.
pub const VAR_INT_MAX: u32 = 268_435_455;

/// Longest encoding of a variable byte integer.
const VAR_INT_BYTES_MAX: usize = 4;

/// Reads fields from the front of a packet's body.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything left.
    #[inline]
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u16()?;
        self.take(usize::from(count))
    }

    /// UTF-8 text without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2].
    #[inline]
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| DecodeError::NotUtf8)?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::NullCharacter);
        }
        Ok(text)
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    pub(crate) fn var_int(&mut self) -> Result<u32, DecodeError> {
        let (value, count) = var_int(self.bytes)?.ok_or(DecodeError::Truncated)?;
        if count != var_int_len(value) {
            return Err(DecodeError::VarInt);
        }
        self.take(count)?;
        Ok(value)
    }
}

/// Reads a variable byte integer, also in a form longer than needed: its value and its length in bytes.
/// `None` if more bytes are needed.
#[inline]
pub(crate) fn var_int(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(VAR_INT_BYTES_MAX).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < VAR_INT_BYTES_MAX { Ok(None) } else { Err(DecodeError::VarInt) }
}

/// Bytes the shortest form of `value` takes.
#[inline]
pub(crate) fn var_int_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000.. => 4,
    }
}

#[inline]
pub(crate) fn put_var_int(out: &mut impl BufMut, mut value: u32) {
    while value > 0x7f {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes of a length-prefixed field; the only place where its length is checked.
#[inline]
pub(crate) fn binary_len(bytes: &[u8]) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong { bytes: bytes.len() });
    }
    Ok(2 + bytes.len())
}

/// Writes a field whose length [`binary_len`] has checked.
#[inline]
pub(crate) fn put_binary(out: &mut impl BufMut, bytes: &[u8]) {
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_have_the_bounds_of_table_1_1() {
        for (value, len) in
            [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4), (VAR_INT_MAX, 4)]
        {
            let mut out = Vec::new();
            put_var_int(&mut out, value);
            assert_eq!((out.len(), var_int_len(value)), (len, len), "{value}");
            assert_eq!(Reader::new(&out).var_int(), Ok(value));
            assert_eq!(var_int(&out[..len - 1]), Ok(None), "{value} cut by one byte");
        }
    }

    #[test]
    fn a_fifth_byte_of_a_variable_byte_integer_is_refused() {
        assert_eq!(var_int(&[0x80, 0x80, 0x80, 0x80]), Err(DecodeError::VarInt));
    }

    #[test]
    fn mqtt_1_5_5_1_a_longer_form_than_needed_is_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).var_int(), Err(DecodeError::VarInt));
    }
}
