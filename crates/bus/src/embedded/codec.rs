//! Bytes of the embedded log's files: little-endian integers, LEB128 lengths, byte strings; and records made of them.
//!
//! Pure: no files, no state. Everything read is bounds-checked; what does not fit is [`Malformed`], never a panic.

use bytes::{Buf, Bytes};

use crate::{Headers, Offset, Record};

/// Bytes that are not what they should be; the caller knows which file and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Appends to a byte buffer.
pub(super) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    /// LEB128: 7 bits a byte, least significant first.
    fn put_length(&mut self, value: u64);
    /// Length and bytes.
    fn put_bytes(&mut self, value: &[u8]);
    /// Like `put_bytes`, with 0 for "none" and length + 1 otherwise.
    fn put_optional(&mut self, value: Option<&[u8]>);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_length(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_length(value.len() as u64);
        self.extend_from_slice(value);
    }

    fn put_optional(&mut self, value: Option<&[u8]>) {
        self.put_length(value.map_or(0, |v| v.len() as u64 + 1));
        self.extend_from_slice(value.unwrap_or_default());
    }
}

/// Takes from the front of shared bytes without copying them.
pub(super) trait Take {
    fn take_u8(&mut self) -> Result<u8, Malformed>;
    fn take_u32(&mut self) -> Result<u32, Malformed>;
    fn take_u64(&mut self) -> Result<u64, Malformed>;
    fn take_i64(&mut self) -> Result<i64, Malformed>;
    fn take_length(&mut self) -> Result<u64, Malformed>;
    fn take_exact(&mut self, bytes: usize) -> Result<Bytes, Malformed>;
    fn take_bytes(&mut self) -> Result<Bytes, Malformed>;
    fn take_optional(&mut self) -> Result<Option<Bytes>, Malformed>;
    fn take_text(&mut self) -> Result<String, Malformed>;
}

impl Take for Bytes {
    fn take_u8(&mut self) -> Result<u8, Malformed> {
        self.try_get_u8().map_err(|_| Malformed)
    }

    fn take_u32(&mut self) -> Result<u32, Malformed> {
        self.try_get_u32_le().map_err(|_| Malformed)
    }

    fn take_u64(&mut self) -> Result<u64, Malformed> {
        self.try_get_u64_le().map_err(|_| Malformed)
    }

    fn take_i64(&mut self) -> Result<i64, Malformed> {
        self.try_get_i64_le().map_err(|_| Malformed)
    }

    fn take_length(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take_u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take_exact(&mut self, bytes: usize) -> Result<Bytes, Malformed> {
        if bytes > self.len() { Err(Malformed) } else { Ok(self.split_to(bytes)) }
    }

    fn take_bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::try_from(self.take_length()?).map_err(|_| Malformed)?;
        self.take_exact(length)
    }

    fn take_optional(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.take_length()? {
            0 => Ok(None),
            length => self.take_exact(usize::try_from(length - 1).map_err(|_| Malformed)?).map(Some),
        }
    }

    fn take_text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.take_bytes()?.to_vec()).map_err(|_| Malformed)
    }
}

/// Appends one record; `delta` is its offset less the section's base.
pub(super) fn put_record(out: &mut Vec<u8>, delta: u64, record: &Record) {
    out.put_length(delta);
    out.put_i64(record.timestamp_ms);
    out.put_optional(record.key.as_deref());
    out.put_optional(record.value.as_deref());
    out.put_length(record.headers.len() as u64);
    out.extend_from_slice(record.headers.as_laid());
}

/// Takes one record and its offset.
pub(super) fn take_record(from: &mut Bytes, base: Offset) -> Result<(Offset, Record), Malformed> {
    let offset = base.checked_add(from.take_length()?).ok_or(Malformed)?;
    let timestamp_ms = from.take_i64()?;
    let key = from.take_optional()?;
    let value = from.take_optional()?;
    let count = from.take_length()?;
    let (headers, bytes) = Headers::taken(count, from).ok_or(Malformed)?;
    from.advance(bytes);
    Ok((offset, Record { key, value, headers, timestamp_ms }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let headers = proptest::collection::vec(("[a-z-]{0,12}", bytes()), 0..4).prop_map(Headers::from_iter);
        (proptest::option::of(bytes()), proptest::option::of(bytes()), headers, any::<i64>())
            .prop_map(|(key, value, headers, timestamp_ms)| Record { key, value, headers, timestamp_ms })
    }

    #[test]
    fn a_record_lies_in_the_log_as_it_always_has() {
        let long = [b'x'; 130];
        let headers = [("id", &[0, 255][..]), ("again", b"1"), ("again", b""), ("long", &long)].into();
        let record = Record { key: Some("k".into()), value: None, headers, timestamp_ms: 258 };
        let mut out = Vec::new();
        put_record(&mut out, 300, &record);
        let (head, tail) =
            (b"\xac\x02\x02\x01\0\0\0\0\0\0\x02k\0\x04", b"\x02id\x02\0\xff\x05again\x011\x05again\0\x04long\x82\x01");
        assert_eq!(out, [&head[..], tail, &long].concat());
        assert_eq!(take_record(&mut Bytes::from(out), 7), Ok((307, record)));
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(record in records(), delta in 0u64..1 << 40) {
            let mut out = Vec::new();
            put_record(&mut out, delta, &record);
            let mut bytes = Bytes::from(out);
            prop_assert_eq!(take_record(&mut bytes, 7), Ok((delta + 7, record)));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn cut_records_are_malformed_not_a_panic(record in records(), keep in 0usize..40) {
            let mut out = Vec::new();
            put_record(&mut out, 0, &record);
            prop_assume!(keep < out.len());
            out.truncate(keep);
            prop_assert_eq!(take_record(&mut Bytes::from(out), 0), Err(Malformed));
        }
    }
}
