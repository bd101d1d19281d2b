//! Segment files of a topic: names, header, and reading sections back.
//!
//! `SEQUENCE.GENERATION.log` starts with a header frame (its topic, which segments it stands for and the first offset of
//! each partition), then frames of sections. A sealed segment has a `.index` beside it; it only speeds things up and is
//! rebuilt by scanning when it is missing or damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::codec::{Malformed, Put, Take};
use super::disk::{FileError, Files};
use super::frame::{self, Broken, FIXED_BYTES, Fixed, Mark};
use super::index::{Entry, IndexHead, Indexed};
use super::kept::TopicId;
use super::log_file::{LogFile, NotCreated};
use super::section::{HEAD_BYTES, Section, SectionHead};
use crate::{Offset, Partition};

/// First bytes of a segment's header; the digit is its format.
const SEGMENT_MAGIC: &[u8] = b"drover-segment-2";
/// Read ahead while walking over frames.
const WINDOW_BYTES: usize = 64 * 1024;

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub topic: TopicId,
    pub sequence: u64,
    /// Last sequence number this segment stands for, after merging by compaction.
    pub last_sequence: u64,
    /// Offset each partition had reached when the segment began.
    pub bases: Vec<Offset>,
}

impl SegmentHeader {
    /// The header as the first frame of a file with this mark.
    pub fn frame(&self, mark: Mark) -> Vec<u8> {
        let mut head = SEGMENT_MAGIC.to_vec();
        head.put_u32(self.topic);
        head.put_u64(self.sequence);
        head.put_u64(self.last_sequence);
        head.put_u32(self.bases.len() as u32);
        self.bases.iter().for_each(|base| head.put_u64(*base));
        let mut bytes = frame::join(&head, 0);
        frame::seal(&mut bytes, head.len(), mark, 0);
        bytes
    }

    fn parse(mut head: Bytes) -> Result<Self, Malformed> {
        if head.take_exact(SEGMENT_MAGIC.len())? != SEGMENT_MAGIC {
            return Err(Malformed);
        }
        let (topic, sequence, last_sequence) = (head.take_u32()?, head.take_u64()?, head.take_u64()?);
        let bases = (0..head.take_u32()?).map(|_| head.take_u64()).collect::<Result<_, _>>()?;
        Ok(Self { topic, sequence, last_sequence, bases })
    }

    /// Reads the header of a segment file; with the file's mark and the position of the first frame.
    pub fn read(file: &File, end: u64) -> io::Result<Option<(Self, Mark, u64)>> {
        let Some(mark) = Mark::of(file)? else { return Ok(None) };
        let Ok(Some(frame)) = frame::read(file, mark, 0, end)? else { return Ok(None) };
        Ok(Self::parse(frame.head).ok().map(|header| (header, mark, frame.fixed.frame_bytes())))
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
    pub mark: Mark,
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
    /// Sections of the partition that may hold what is sought, in order, until `bytes_max` is reached. What lies before a
    /// damaged place is still found; the search that begins there fails.
    pub fn run(&self, sought: Sought, bytes_max: usize) -> Result<Vec<Section>, ScanError> {
        let mut found = Vec::new();
        match self.gather(sought, bytes_max, &mut found) {
            Err(error) if found.is_empty() => Err(error),
            Ok(()) | Err(_) => Ok(found),
        }
    }

    fn gather(&self, sought: Sought, bytes_max: usize, found: &mut Vec<Section>) -> Result<(), ScanError> {
        let file = File::open(&self.path).map_err(FileError::at("open", &self.path))?;
        let mut walk = Walk::new(file, self.segment(), self.begin(sought));
        let mut bytes = 0;
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
        Ok(())
    }

    fn segment(&self) -> Indexed<'_> {
        Indexed { path: &self.path, mark: self.mark, length: self.length }
    }

    fn begin(&self, sought: Sought) -> u64 {
        match self.begin {
            Begin::At(at) => at,
            Begin::Indexed => IndexHead::read(&self.segment())
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
    segment: Indexed<'a>,
    at: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walk<'a> {
    /// From the frame at `at` (0: the first behind the header) to the end of `segment`, which is open as `file`.
    pub fn new(file: File, segment: Indexed<'a>, at: u64) -> Self {
        Self { file, segment, at, window: Vec::new(), window_at: 0 }
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
        if self.at >= self.segment.length {
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
        let mark = self.segment.mark;
        let fixed = Fixed::parse(self.bytes(at, FIXED_BYTES)?, mark);
        let fixed = fixed.ok_or_else(|| self.corrupt(at, Broken::NoFrame))?;
        if fixed.frame_bytes() > self.segment.length - at {
            Err(self.corrupt(at, Broken::Incomplete))
        } else {
            Ok(fixed)
        }
    }

    fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], ScanError> {
        if at + count as u64 > self.segment.length {
            return Err(self.corrupt(at, Broken::Incomplete));
        }
        let inside = at >= self.window_at && at + count as u64 <= self.window_at + self.window.len() as u64;
        if !inside {
            let wanted = count.max(WINDOW_BYTES).min((self.segment.length - at) as usize);
            self.window.resize(wanted, 0);
            self.window_at = at;
            self.file.read_exact_at(&mut self.window, at).map_err(FileError::at("read", self.segment.path))?;
        }
        let start = (at - self.window_at) as usize;
        Ok(&self.window[start..start + count])
    }

    fn corrupt(&self, at: u64, reason: Broken) -> ScanError {
        ScanError::Corrupt { path: self.segment.path.to_owned(), at, reason }
    }
}

/// Creates an empty segment.
pub(super) fn create(
    files: &Files,
    directory: &Path,
    header: &SegmentHeader,
    generation: u64,
) -> Result<LogFile, NotCreated> {
    let mark = Mark::draw();
    LogFile::create(files, &segment_path(directory, header.sequence, generation), mark, &header.frame(mark))
}

/// Removes a segment that nobody looks up any more, and its index.
pub(super) fn remove(files: &Files, path: &Path) -> Result<(), FileError> {
    files.remove(path)?;
    files.remove_if_there(&path.with_extension("index"))
}
