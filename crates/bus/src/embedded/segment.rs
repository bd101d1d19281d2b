//! Segment files of a topic: names, header, sparse index, and reading sections back.
//!
//! `SEQUENCE.GENERATION.log` starts with a header frame (which segments it stands for and the first offset of each
//! partition), then frames of sections. A sealed segment has a `.index` beside it; it only speeds things up and is
//! rebuilt by scanning when it is missing or damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::frame::{self, Broken, FIXED_BYTES, Fixed};
use super::log_file::{FileError, LogFile};
use super::section::{HEAD_BYTES, Section, SectionHead};
use crate::{Offset, Partition};

/// First bytes of a segment's header; the digit is its format.
const SEGMENT_MAGIC: &[u8] = b"drover-segment-1";
/// First bytes of an index; the digit is its format.
const INDEX_MAGIC: &[u8] = b"drover-index-1";
/// One index entry per partition and this many bytes of file.
const INDEX_STEP_BYTES: u64 = 64 * 1024;
/// Bytes of an encoded index entry.
const ENTRY_BYTES: usize = 24;
/// Read ahead while walking over frames.
const WINDOW_BYTES: usize = 64 * 1024;

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub sequence: u64,
    /// Last sequence number this segment stands for, after merging by compaction.
    pub last_sequence: u64,
    /// Offset each partition had reached when the segment began.
    pub bases: Vec<Offset>,
}

impl SegmentHeader {
    /// The header as the file's first frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut head = SEGMENT_MAGIC.to_vec();
        head.put_u64(self.sequence);
        head.put_u64(self.last_sequence);
        head.put_u32(self.bases.len() as u32);
        self.bases.iter().for_each(|base| head.put_u64(*base));
        let mut bytes = frame::join(&head, 0);
        frame::seal(&mut bytes, head.len(), 0);
        bytes
    }

    fn parse(mut head: Bytes) -> Result<Self, Malformed> {
        if head.take_exact(SEGMENT_MAGIC.len())? != SEGMENT_MAGIC {
            return Err(Malformed);
        }
        let (sequence, last_sequence) = (head.take_u64()?, head.take_u64()?);
        let bases = (0..head.take_u32()?).map(|_| head.take_u64()).collect::<Result<_, _>>()?;
        Ok(Self { sequence, last_sequence, bases })
    }

    /// Reads the header of a segment file; with the position of the first frame.
    pub fn read(file: &File, end: u64) -> io::Result<Option<(Self, u64)>> {
        let Ok(Some(frame)) = frame::read(file, 0, end)? else { return Ok(None) };
        Ok(Self::parse(frame.head).ok().map(|header| (header, frame.fixed.frame_bytes())))
    }
}

/// Path of a segment: ten digits so that names sort as numbers do.
pub(super) fn segment_path(directory: &Path, sequence: u64, generation: u64) -> PathBuf {
    directory.join(format!("{sequence:010}.{generation}.log"))
}

/// Sequence and generation from a segment's file name; `None` for other files.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, generation) = name.strip_suffix(".log")?.split_once('.')?;
    Some((sequence.parse().ok()?, generation.parse().ok()?))
}

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
    pub entries: Vec<Entry>,
}

/// Sparse index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub partitions: Vec<PartitionIndex>,
}

/// What is kept in memory of a sealed segment's index.
pub(super) struct IndexHead {
    /// Bytes of the segment this index was made for.
    pub length: u64,
    /// Newest timestamp of each partition.
    pub newest_ms: Vec<i64>,
    /// State of idempotent producers at the end of the segment, as `producers` encodes it.
    pub producers: Bytes,
    blocks: Vec<(u32, u32)>,
}

impl Index {
    pub fn new(partitions: usize) -> Self {
        Self { partitions: vec![PartitionIndex { newest_ms: i64::MIN, entries: Vec::new() }; partitions] }
    }

    /// Learns of a section in the frame at `at`.
    pub fn note(&mut self, head: &SectionHead, at: u64) {
        let partition = &mut self.partitions[head.partition as usize];
        if partition.entries.last().is_none_or(|last| at >= last.at + INDEX_STEP_BYTES) {
            partition.entries.push(Entry { offset: head.base, at, newest_before_ms: partition.newest_ms });
        }
        partition.newest_ms = partition.newest_ms.max(head.newest_ms);
    }

    /// Writes the index of a segment of `length` bytes. It is not synced: a torn index is rebuilt.
    pub fn write(&self, segment: &Path, length: u64, producers: &[u8]) -> Result<(), FileError> {
        let mut body = Vec::new();
        let mut head = INDEX_MAGIC.to_vec();
        head.put_u64(length);
        head.put_u32(self.partitions.len() as u32);
        for partition in &self.partitions {
            let start = body.len();
            for entry in &partition.entries {
                body.put_u64(entry.offset);
                body.put_u64(entry.at);
                body.put_i64(entry.newest_before_ms);
            }
            head.put_i64(partition.newest_ms);
            head.put_u32(partition.entries.len() as u32);
            head.put_u32(crc32fast::hash(&body[start..]));
        }
        head.put_bytes(producers);
        let mut bytes = frame::join(&head, body.len());
        bytes.extend_from_slice(&body);
        frame::seal(&mut bytes, head.len(), 0);
        let path = segment.with_extension("index");
        std::fs::write(&path, bytes).map_err(FileError::at("write", &path))
    }
}

impl IndexHead {
    /// Reads the index beside a segment of `length` bytes; `None` if it is missing, damaged or of another length.
    pub fn read(segment: &Path, length: u64) -> Option<Self> {
        let (file, fixed) = open_index(segment)?;
        let mut head = vec![0; fixed.head_bytes];
        file.read_exact_at(&mut head, FIXED_BYTES as u64).ok()?;
        let mut bytes = [0; FIXED_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let head = fixed.matches(&bytes, &head).then(|| Self::parse(head.into()).ok())??;
        (head.length == length).then_some(head)
    }

    fn parse(mut head: Bytes) -> Result<Self, Malformed> {
        if head.take_exact(INDEX_MAGIC.len())? != INDEX_MAGIC {
            return Err(Malformed);
        }
        let length = head.take_u64()?;
        let (mut newest_ms, mut blocks) = (Vec::new(), Vec::new());
        for _ in 0..head.take_u32()? {
            newest_ms.push(head.take_i64()?);
            blocks.push((head.take_u32()?, head.take_u32()?));
        }
        Ok(Self { length, newest_ms, producers: head.take_bytes()?, blocks })
    }

    /// The entries of one partition; `None` if they cannot be trusted.
    fn entries(&self, segment: &Path, partition: Partition) -> Option<Vec<Entry>> {
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
    let fixed = Fixed::parse(&bytes)?;
    (file.metadata().ok()?.len() == fixed.frame_bytes()).then_some((file, fixed))
}

/// Where to begin looking in a segment.
#[derive(Clone, Debug)]
pub(super) enum Begin {
    /// Known: the segment's index is in memory.
    At(u64),
    /// To be found in the index file beside the segment.
    Indexed,
}

/// What a reader looks for in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sought {
    /// Records at or behind this offset.
    Offset(Offset),
    /// Records at or after this time, in milliseconds since the Unix epoch.
    Time(i64),
}

impl Sought {
    /// Last place that cannot be behind what is sought.
    pub fn begin(self, entries: &[Entry]) -> u64 {
        let count = match self {
            Self::Offset(from) => entries.partition_point(|e| e.offset <= from),
            Self::Time(from) => entries.partition_point(|e| e.newest_before_ms < from),
        };
        count.checked_sub(1).map_or(0, |last| entries[last].at)
    }

    fn may_be_in(self, head: &SectionHead) -> bool {
        match self {
            Self::Offset(from) => head.next > from,
            Self::Time(from) => head.newest_ms >= from,
        }
    }
}

/// One search through one segment; made under the topic's lock, run without it.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub path: PathBuf,
    /// Readable bytes of the file.
    pub length: u64,
    pub partition: Partition,
    pub begin: Begin,
}

/// Why sections could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} at byte {at}: {reason}", path.display())]
    Corrupt { path: PathBuf, at: u64, reason: Broken },
    #[error("{}: a record with a sound checksum cannot be decoded", path.display())]
    Undecodable { path: PathBuf },
}

impl ScanError {
    pub fn undecodable(path: &Path) -> Self {
        Self::Undecodable { path: path.to_owned() }
    }

    /// Whether the file is gone: retention or compaction replaced it meanwhile.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::File(error) if error.source.kind() == io::ErrorKind::NotFound)
    }
}

impl Search {
    /// Sections of the partition that may hold what is sought, in order, until `bytes_max` is reached.
    pub fn run(&self, sought: Sought, bytes_max: usize) -> Result<Vec<Section>, ScanError> {
        let file = File::open(&self.path).map_err(FileError::at("open", &self.path))?;
        let mut walk = Walk::new(file, &self.path, self.begin(sought), self.length);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max
            && let Some(frame) = walk.next_frame()?
        {
            for (head, at) in frame.places() {
                if head.partition == self.partition && sought.may_be_in(&head) && bytes < bytes_max {
                    bytes += head.bytes as usize;
                    found.push(walk.section(head, at)?);
                }
            }
        }
        Ok(found)
    }

    fn begin(&self, sought: Sought) -> u64 {
        match self.begin {
            Begin::At(at) => at,
            Begin::Indexed => IndexHead::read(&self.path, self.length)
                .and_then(|index| index.entries(&self.path, self.partition))
                .map_or(0, |entries| sought.begin(&entries)),
        }
    }
}

/// A frame's table and where its sections lie.
pub(super) struct FrameTable {
    pub heads: Vec<SectionHead>,
    body_at: u64,
}

impl FrameTable {
    /// The section heads, each with the position of its records.
    pub fn places(&self) -> impl Iterator<Item = (SectionHead, u64)> {
        self.heads.iter().scan(self.body_at, |next, head| {
            let at = *next;
            *next += u64::from(head.bytes);
            Some((*head, at))
        })
    }
}

/// Walks over the frames of a segment, reading tables and only the sections asked for.
pub(super) struct Walk<'a> {
    file: File,
    path: &'a Path,
    at: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    /// From the frame at `at` (0: the first behind the header) to `end`.
    pub fn new(file: File, path: &'a Path, at: u64, end: u64) -> Self {
        Self { file, path, at, end, window: Vec::new(), window_at: 0 }
    }

    /// Position of the next frame.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next frame's table; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<FrameTable>, ScanError> {
        if self.at == 0 {
            self.at = self.fixed()?.frame_bytes();
        }
        if self.at >= self.end {
            return Ok(None);
        }
        let fixed = self.fixed()?;
        let table = self.bytes(self.at, FIXED_BYTES + fixed.head_bytes)?;
        if !fixed.matches(&table[..FIXED_BYTES], &table[FIXED_BYTES..]) {
            return Err(self.corrupt(self.at, Broken::Checksum));
        }
        let heads = SectionHead::table(Bytes::copy_from_slice(&table[FIXED_BYTES..]));
        let heads = heads.map_err(|Malformed| self.corrupt(self.at, Broken::NoFrame))?;
        let body_at = self.at + (FIXED_BYTES + heads.len() * HEAD_BYTES) as u64;
        self.at += fixed.frame_bytes();
        Ok(Some(FrameTable { heads, body_at }))
    }

    /// Reads and checks one section.
    pub fn section(&mut self, head: SectionHead, at: u64) -> Result<Section, ScanError> {
        let body = Bytes::copy_from_slice(self.bytes(at, head.bytes as usize)?);
        let section = Section { head, body };
        if section.is_sound() { Ok(section) } else { Err(self.corrupt(at, Broken::Checksum)) }
    }

    fn fixed(&mut self) -> Result<Fixed, ScanError> {
        let at = self.at;
        let fixed = Fixed::parse(self.bytes(at, FIXED_BYTES)?);
        let fixed = fixed.ok_or_else(|| self.corrupt(at, Broken::NoFrame))?;
        if fixed.frame_bytes() > self.end - at { Err(self.corrupt(at, Broken::Incomplete)) } else { Ok(fixed) }
    }

    fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], ScanError> {
        if at + count as u64 > self.end {
            return Err(self.corrupt(at, Broken::Incomplete));
        }
        let inside = at >= self.window_at && at + count as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let wanted = count.max(WINDOW_BYTES).min((self.end - at) as usize);
            self.window.resize(wanted, 0);
            self.window_at = at;
            self.file.read_exact_at(&mut self.window, at).map_err(FileError::at("read", self.path))?;
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..start + count])
    }

    fn corrupt(&self, at: u64, reason: Broken) -> ScanError {
        ScanError::Corrupt { path: self.path.to_owned(), at, reason }
    }
}

/// Creates an empty segment.
pub(super) fn create(directory: &Path, header: &SegmentHeader, generation: u64) -> Result<LogFile, FileError> {
    LogFile::create(&segment_path(directory, header.sequence, generation), &header.frame())
}

/// Removes a segment that nobody looks up any more, and its index.
pub(super) fn remove(path: &Path) -> Result<(), FileError> {
    std::fs::remove_file(path).map_err(FileError::at("remove", path))?;
    match std::fs::remove_file(path.with_extension("index")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at("remove the index of", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
