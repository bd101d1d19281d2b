//! Sections: the records that one append brings to one partition. A frame of a segment holds a table of section heads
//! and, behind it, their records.
//!
//! The producer encodes and checksums a section before it knows its offsets; the writer only fills in the base. Readers
//! check and decode just the sections they want.

use bytes::Bytes;

use super::codec::{Malformed, Put, Take, put_record, take_record};
use super::frame::{self, Mark};
use crate::{Offset, Partition, Record};

/// Bytes of one section head.
pub(super) const HEAD_BYTES: usize = 56;
/// Sections are gathered into frames of about this many bytes; small enough that finding one section reads little.
pub(super) const FRAME_BYTES: usize = 256 * 1024;
/// Records of one append to one partition are split into sections of about this many bytes.
pub(super) const SECTION_BYTES: usize = 256 * 1024;
/// Producer id of a section without one.
const NO_PRODUCER: i64 = -1;

/// Place of a batch in the sequence of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSequence {
    /// Producer id, from [`super::EmbeddedBus::allocate_producer_id`].
    pub id: i64,
    /// Newer holders of the id have higher epochs.
    pub epoch: i16,
    /// Sequence number of the batch's first record in its partition; wraps to 0 behind `i32::MAX`.
    pub first: i32,
}

/// What is known of a section without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SectionHead {
    pub partition: Partition,
    pub records: u32,
    /// Offset of the first record and the one behind the last.
    pub base: Offset,
    pub next: Offset,
    /// Newest timestamp of its records.
    pub newest_ms: i64,
    pub producer: Option<ProducerSequence>,
    pub bytes: u32,
    pub crc: u32,
}

/// A section with its encoded records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub head: SectionHead,
    pub body: Bytes,
}

impl SectionHead {
    pub fn put(&self, out: &mut Vec<u8>) {
        let producer = self.producer.unwrap_or(ProducerSequence { id: NO_PRODUCER, epoch: 0, first: 0 });
        out.put_u32(self.partition);
        out.put_u32(self.records);
        out.put_u64(self.base);
        out.put_u64(self.next);
        out.put_i64(self.newest_ms);
        out.put_i64(producer.id);
        out.put_u32(producer.epoch as u16 as u32);
        out.put_u32(producer.first as u32);
        out.put_u32(self.bytes);
        out.put_u32(self.crc);
    }

    pub fn take(from: &mut Bytes) -> Result<Self, Malformed> {
        let (partition, records) = (from.take_u32()?, from.take_u32()?);
        let (base, next) = (from.take_u64()?, from.take_u64()?);
        let newest_ms = from.take_i64()?;
        let producer = ProducerSequence {
            id: from.take_i64()?,
            epoch: from.take_u32()? as u16 as i16,
            first: from.take_u32()? as i32,
        };
        let producer = (producer.id != NO_PRODUCER).then_some(producer);
        let (bytes, crc) = (from.take_u32()?, from.take_u32()?);
        Ok(Self { partition, records, base, next, newest_ms, producer, bytes, crc })
    }

    /// The table of a frame's sections, from the frame's head.
    pub fn table(mut head: Bytes) -> Result<Vec<Self>, Malformed> {
        if !head.len().is_multiple_of(HEAD_BYTES) {
            return Err(Malformed);
        }
        (0..head.len() / HEAD_BYTES).map(|_| Self::take(&mut head)).collect()
    }
}

impl Section {
    /// Encodes records with their offsets relative to the first; at least one.
    pub fn encode<'a>(partition: Partition, records: impl IntoIterator<Item = (Offset, &'a Record)>) -> Self {
        Self::encode_within(partition, records, 0)
    }

    /// As [`Section::encode`], of about `bytes`.
    pub fn encode_within<'a>(
        partition: Partition,
        records: impl IntoIterator<Item = (Offset, &'a Record)>,
        bytes: usize,
    ) -> Self {
        let mut body = Vec::with_capacity(bytes);
        let mut head = SectionHead {
            partition,
            records: 0,
            base: 0,
            next: 0,
            newest_ms: i64::MIN,
            producer: None,
            bytes: 0,
            crc: 0,
        };
        for (offset, record) in records {
            if head.records == 0 {
                head.base = offset;
            }
            put_record(&mut body, offset - head.base, record);
            head.records += 1;
            head.next = offset + 1;
            head.newest_ms = head.newest_ms.max(record.timestamp_ms);
        }
        head.bytes = body.len() as u32;
        head.crc = crc32fast::hash(&body);
        // Sections live on in the tail: without the spare room of a growing vector.
        Self { head, body: body.into_boxed_slice().into() }
    }

    /// Moves the section so that its first record has offset `base`.
    pub fn place(&mut self, base: Offset) {
        self.head.next = base + (self.head.next - self.head.base);
        self.head.base = base;
    }

    /// Whether the records are what was written.
    pub fn is_sound(&self) -> bool {
        self.body.len() == self.head.bytes as usize && crc32fast::hash(&self.body) == self.head.crc
    }

    /// The records from offset `from` on.
    pub fn records(&self, from: Offset) -> impl Iterator<Item = Result<(Offset, Record), Malformed>> + use<> {
        let (base, mut body, mut left) = (self.head.base, self.body.clone(), self.head.records);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            Some(take_record(&mut body, base))
        })
        .filter(move |record| record.as_ref().map_or(true, |(offset, _)| *offset >= from))
    }
}

/// Several sections as one frame of a segment, its mark and `synced` still to be filled in.
pub(super) struct SectionFrame {
    pub bytes: Vec<u8>,
    pub sections: Vec<Section>,
}

impl SectionFrame {
    fn of(sections: Vec<Section>) -> Self {
        let mut head = Vec::with_capacity(sections.len() * HEAD_BYTES);
        sections.iter().for_each(|section| section.head.put(&mut head));
        let mut bytes = frame::join(&head, sections.iter().map(|s| s.body.len()).sum());
        sections.iter().for_each(|section| bytes.extend_from_slice(&section.body));
        Self { bytes, sections }
    }

    /// Fills in the file's mark and up to where it is durable.
    pub fn seal(&mut self, mark: Mark, synced: u64) {
        frame::seal(&mut self.bytes, self.sections.len() * HEAD_BYTES, mark, synced);
    }

    /// Cuts a run of sections into frames of about [`FRAME_BYTES`].
    pub fn gather(sections: Vec<Section>) -> Vec<Self> {
        let mut frames = Vec::new();
        let (mut gathered, mut bytes) = (Vec::new(), 0);
        for section in sections {
            bytes += section.body.len() + HEAD_BYTES;
            gathered.push(section);
            if bytes >= FRAME_BYTES {
                frames.push(Self::of(std::mem::take(&mut gathered)));
                bytes = 0;
            }
        }
        if !gathered.is_empty() {
            frames.push(Self::of(gathered));
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str, timestamp_ms: i64) -> Record {
        Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), timestamp_ms, ..Record::default() }
    }

    #[test]
    fn a_section_keeps_gaps_when_it_is_placed() {
        let (a, b) = (record("a", 5), record("b", 3));
        let mut section = Section::encode(2, [(10, &a), (14, &b)]);
        section.place(100);
        let read: Vec<_> = section.records(101).map(|r| r.map(|(offset, r)| (offset, r.value))).collect();
        assert_eq!(read, [Ok((104, b.value))]);
        assert_eq!((section.head.next, section.head.newest_ms), (105, 5));
    }

    #[test]
    fn a_flipped_bit_is_not_sound() {
        let mut section = Section::encode(0, [(0, &record("value", 0))]);
        assert!(section.is_sound());
        let mut body = section.body.to_vec();
        body[3] ^= 1;
        section.body = body.into();
        assert!(!section.is_sound());
    }

    #[test]
    fn heads_read_back_as_they_were_written() {
        let mut head = Section::encode(7, [(3, &record("x", -1))]).head;
        head.producer = Some(ProducerSequence { id: 4, epoch: -2, first: i32::MAX });
        let mut out = Vec::new();
        head.put(&mut out);
        assert_eq!(out.len(), HEAD_BYTES);
        assert_eq!(SectionHead::table(out.into()), Ok(vec![head]));
    }
}
