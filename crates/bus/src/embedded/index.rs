//! The sparse index of a segment: where each partition's records are, about, and how new they are.
//!
//! In memory for the segment being written, in a file beside each sealed one. The file is a cache: whatever is wrong with
//! it, it is made anew by a scan.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::disk::{FileError, Files};
use super::frame::{self, FIXED_BYTES, Fixed, Mark};
use super::section::SectionHead;
use crate::{Offset, Partition};

/// First bytes of an index; the digit is its format.
const INDEX_MAGIC: &[u8] = b"drover-index-2";
/// One index entry per partition and this many bytes of file.
const INDEX_STEP_BYTES: u64 = 64 * 1024;
/// Bytes of an encoded index entry.
const ENTRY_BYTES: usize = 24;

/// A known place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// First offset of the partition in the frame at `at`.
    pub offset: Offset,
    pub at: u64,
    /// Newest timestamp of the partition in this segment before `at`.
    pub newest_before_ms: i64,
}

/// Sparse index of one partition in one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionIndex {
    /// Newest timestamp; `i64::MIN` without records.
    pub newest_ms: i64,
    /// Offset behind the last record.
    pub end: Offset,
    pub entries: Vec<Entry>,
}

/// Sparse index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub partitions: Vec<PartitionIndex>,
}

/// What is kept in memory of a sealed segment's index.
pub(super) struct IndexHead {
    /// Newest timestamp of each partition.
    pub newest_ms: Vec<i64>,
    /// Offset behind the last record of each partition.
    pub ends: Vec<Offset>,
    /// State of idempotent producers at the end of the segment, as `producers` encodes it.
    pub producers: Bytes,
    blocks: Vec<(u32, u32)>,
}

impl Index {
    /// Of an empty segment whose partitions begin at `bases`.
    pub fn new(bases: &[Offset]) -> Self {
        let empty = |base: &Offset| PartitionIndex { newest_ms: i64::MIN, end: *base, entries: Vec::new() };
        Self { partitions: bases.iter().map(empty).collect() }
    }

    /// Offset behind the last record of each partition.
    pub fn ends(&self) -> Vec<Offset> {
        self.partitions.iter().map(|partition| partition.end).collect()
    }

    /// Newest timestamp of each partition.
    pub fn newest_ms(&self) -> Vec<i64> {
        self.partitions.iter().map(|partition| partition.newest_ms).collect()
    }

    /// Learns of a section in the frame at `at`.
    pub fn note(&mut self, head: &SectionHead, at: u64) {
        let partition = &mut self.partitions[head.partition as usize];
        if partition.entries.last().is_none_or(|last| at >= last.at + INDEX_STEP_BYTES) {
            partition.entries.push(Entry { offset: head.base, at, newest_before_ms: partition.newest_ms });
        }
        partition.newest_ms = partition.newest_ms.max(head.newest_ms);
        partition.end = head.next;
    }

    /// Writes the index of `segment`. It is not synced: a torn index is rebuilt.
    pub fn write(&self, files: &Files, segment: &Indexed<'_>, producers: &[u8]) -> Result<(), FileError> {
        let mut body = Vec::new();
        let mut head = INDEX_MAGIC.to_vec();
        segment.mark.put(&mut head);
        head.put_u64(segment.length);
        head.put_u32(self.partitions.len() as u32);
        for partition in &self.partitions {
            let start = body.len();
            for entry in &partition.entries {
                body.put_u64(entry.offset);
                body.put_u64(entry.at);
                body.put_i64(entry.newest_before_ms);
            }
            head.put_i64(partition.newest_ms);
            head.put_u64(partition.end);
            head.put_u32(partition.entries.len() as u32);
            head.put_u32(crc32fast::hash(&body[start..]));
        }
        head.put_bytes(producers);
        let mut bytes = frame::join(&head, body.len());
        bytes.extend_from_slice(&body);
        frame::seal(&mut bytes, head.len(), Mark::INDEX, 0);
        let path = segment.path.with_extension("index");
        files.write(&files.create(&path)?, &path, &bytes, 0)
    }
}

/// The segment an index belongs to: by its mark and length it knows its own index from any other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed<'a> {
    pub path: &'a Path,
    pub mark: Mark,
    pub length: u64,
}

impl IndexHead {
    /// Reads the index beside a segment; `None` if it is missing, damaged or of another file.
    pub fn read(segment: &Indexed<'_>) -> Option<Self> {
        let (file, fixed) = open_index(segment.path)?;
        let mut head = vec![0; fixed.head_bytes];
        file.read_exact_at(&mut head, FIXED_BYTES as u64).ok()?;
        let mut bytes = [0; FIXED_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        fixed.matches(&bytes, &head).then(|| Self::parse(head.into(), segment).ok())?
    }

    fn parse(mut head: Bytes, segment: &Indexed<'_>) -> Result<Self, Malformed> {
        if head.take_exact(INDEX_MAGIC.len())? != INDEX_MAGIC {
            return Err(Malformed);
        }
        if Mark::take(&mut head)? != segment.mark || head.take_u64()? != segment.length {
            return Err(Malformed);
        }
        let (mut newest_ms, mut ends, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..head.take_u32()? {
            newest_ms.push(head.take_i64()?);
            ends.push(head.take_u64()?);
            blocks.push((head.take_u32()?, head.take_u32()?));
        }
        Ok(Self { newest_ms, ends, producers: head.take_bytes()?, blocks })
    }

    /// The entries of one partition; `None` if they cannot be trusted.
    pub fn entries(&self, segment: &Path, partition: Partition) -> Option<Vec<Entry>> {
        let (file, fixed) = open_index(segment)?;
        let before: usize = self.blocks[..partition as usize].iter().map(|(count, _)| *count as usize).sum();
        let (count, crc) = self.blocks[partition as usize];
        let mut block = vec![0; count as usize * ENTRY_BYTES];
        file.read_exact_at(&mut block, (FIXED_BYTES + fixed.head_bytes + before * ENTRY_BYTES) as u64).ok()?;
        if crc32fast::hash(&block) != crc {
            return None;
        }
        let mut block = Bytes::from(block);
        let entry = |block: &mut Bytes| {
            Ok::<_, Malformed>(Entry {
                offset: block.take_u64()?,
                at: block.take_u64()?,
                newest_before_ms: block.take_i64()?,
            })
        };
        (0..count).map(|_| entry(&mut block).ok()).collect()
    }
}

fn open_index(segment: &Path) -> Option<(File, Fixed)> {
    let file = File::open(segment.with_extension("index")).ok()?;
    let mut bytes = [0; FIXED_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let fixed = Fixed::parse(&bytes, Mark::INDEX)?;
    (file.metadata().ok()?.len() == fixed.frame_bytes()).then_some((file, fixed))
}
