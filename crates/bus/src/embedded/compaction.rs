//! Compaction: rewrites sealed segments of a compacted topic so that each key keeps its last record.
//!
//! Runs beside the writer, on segments nobody writes any more, oldest first. Offsets stay. A rewritten segment replaces its
//! originals by one rename and says in its header which it stands for, so a crash leaves either; opening removes the rest.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;

use super::log_file::{FileError, sync_directory_of};
use super::section::{FRAME_BYTES, Section, SectionFrame};
use super::segment::{self, Index, IndexHead, ScanError, SegmentHeader, Walk};
use super::topic::{SegmentView, TopicLog};
use crate::{Offset, Partition, Record};

/// Most keys looked at in one pass: with keys of 50 bytes about 150 MB while it runs.
const KEYS_MAX: usize = 1_000_000;

/// What may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Superseded records with timestamps before this may go.
    pub superseded_before_ms: i64,
    /// Tombstones with timestamps before this may go.
    pub tombstones_before_ms: i64,
    /// Segments are merged up to this size.
    pub segment_bytes: u64,
}

type Key = (Partition, Bytes);

/// One pass over a topic.
struct Pass<'a> {
    rules: Rules,
    newest: HashMap<Key, Offset>,
    /// Keys with a superseded record that stays: their tombstones must stay too.
    pinned: HashSet<Key>,
    proceed: &'a dyn Fn() -> bool,
}

/// Compacts the sealed segments of `log` as long as `proceed` says so; how many records went.
pub(super) fn compact(log: &Arc<TopicLog>, rules: Rules, proceed: &dyn Fn() -> bool) -> Result<u64, ScanError> {
    let mut sealed = log.view().sealed();
    let mut pass = Pass { rules, newest: HashMap::new(), pinned: HashSet::new(), proceed };
    sealed.truncate(pass.learn(&sealed)?);
    let mut dropped = 0;
    for group in groups(&sealed, rules.segment_bytes) {
        if !proceed() {
            break;
        }
        dropped += pass.rewrite(log, group)?;
    }
    Ok(dropped)
}

/// Runs of neighbours that fit into one segment.
fn groups(sealed: &[SegmentView], segment_bytes: u64) -> impl Iterator<Item = &[SegmentView]> {
    let mut rest = sealed;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |segment: &&SegmentView| {
            bytes += segment.length;
            bytes <= segment_bytes
        };
        let (group, later) = rest.split_at(rest.iter().take_while(fits).count().max(1).min(rest.len()));
        rest = later;
        (!group.is_empty()).then_some(group)
    })
}

/// Hands every section of a segment to `each`.
fn walk(segment: &SegmentView, mut each: impl FnMut(Section) -> Result<(), ScanError>) -> Result<(), ScanError> {
    let file = File::open(&segment.path).map_err(FileError::at("open", &segment.path))?;
    let mut walk = Walk::new(file, &segment.path, 0, segment.length);
    while let Some(frame) = walk.next_frame()? {
        for (head, at) in frame.places() {
            each(walk.section(head, at)?)?;
        }
    }
    Ok(())
}

fn records(segment: &SegmentView, section: &Section) -> Result<Vec<(Offset, Record)>, ScanError> {
    let records: Result<_, _> = section.records(0).collect();
    records.map_err(|_| ScanError::undecodable(&segment.path))
}

impl Pass<'_> {
    /// Learns the newest offset of each key; how many segments that covers.
    fn learn(&mut self, sealed: &[SegmentView]) -> Result<usize, ScanError> {
        for (number, segment) in sealed.iter().enumerate() {
            if self.newest.len() >= KEYS_MAX || !(self.proceed)() {
                return Ok(number);
            }
            walk(segment, |section| {
                for (offset, record) in records(segment, &section)? {
                    if let Some(key) = record.key {
                        // A copy of the key: the slice would hold its whole section in memory.
                        self.newest.insert((section.head.partition, Bytes::copy_from_slice(&key)), offset);
                    }
                }
                Ok(())
            })?;
        }
        Ok(sealed.len())
    }

    fn keeps(&mut self, partition: Partition, offset: Offset, record: &Record) -> bool {
        let Some(key) = &record.key else { return true };
        let key = (partition, key.clone());
        let superseded = self.newest.get(&key).is_some_and(|newest| *newest > offset);
        if superseded && record.timestamp_ms < self.rules.superseded_before_ms {
            return false;
        }
        if superseded {
            self.pinned.insert((partition, Bytes::copy_from_slice(&key.1)));
        }
        let expired = record.value.is_none() && record.timestamp_ms < self.rules.tombstones_before_ms;
        !expired || self.pinned.contains(&key)
    }

    /// Rewrites neighbours as one segment; how many records went. Leaves them alone if that gains nothing.
    fn rewrite(&mut self, log: &Arc<TopicLog>, group: &[SegmentView]) -> Result<u64, ScanError> {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let generation = group.iter().map(|s| s.generation).max().unwrap_or(0) + 1;
        let header =
            SegmentHeader { sequence: first.sequence, last_sequence: last.last_sequence, bases: first.bases.clone() };
        let path = segment::segment_path(&log.directory, header.sequence, generation);
        let mut output = Output::create(path.with_extension("tmp"), &header)?;
        let mut dropped = 0;
        for segment in group {
            walk(segment, |section| {
                let partition = section.head.partition;
                let all = records(segment, &section)?;
                let kept: Vec<_> =
                    all.iter().filter(|(offset, record)| self.keeps(partition, *offset, record)).collect();
                dropped += (all.len() - kept.len()) as u64;
                if kept.is_empty() {
                    return Ok(());
                }
                let records = kept.iter().map(|(offset, record)| (*offset, record));
                Ok(output.add(Section::encode(partition, records))?)
            })?;
        }
        if dropped == 0 && group.len() == 1 {
            std::fs::remove_file(&output.path).map_err(FileError::at("remove", &output.path))?;
            return Ok(0);
        }
        let producers = IndexHead::read(&last.path, last.length).map(|index| index.producers).unwrap_or_default();
        let (index, length) = output.finish()?;
        index.write(&path, length, &producers)?;
        let temporary = path.with_extension("tmp");
        std::fs::rename(&temporary, &path).map_err(FileError::at("rename", &temporary))?;
        sync_directory_of(&path)?;
        let newest_ms = index.partitions.iter().map(|p| p.newest_ms).collect();
        let (sequence, last_sequence) = (header.sequence, header.last_sequence);
        let bases = header.bases;
        let view = SegmentView { path, sequence, last_sequence, generation, bases, newest_ms, length, index: None };
        log.view().replace(view);
        group.iter().try_for_each(|old| segment::remove(&old.path))?;
        Ok(dropped)
    }
}

/// A segment being rewritten.
struct Output {
    path: std::path::PathBuf,
    file: File,
    length: u64,
    index: Index,
    gathered: Vec<Section>,
    gathered_bytes: usize,
}

impl Output {
    fn create(path: std::path::PathBuf, header: &SegmentHeader) -> Result<Self, FileError> {
        let mut file = File::create(&path).map_err(FileError::at("create", &path))?;
        let bytes = header.frame();
        file.write_all(&bytes).map_err(FileError::at("write", &path))?;
        let index = Index::new(header.bases.len());
        Ok(Self { path, file, length: bytes.len() as u64, index, gathered: Vec::new(), gathered_bytes: 0 })
    }

    fn add(&mut self, section: Section) -> Result<(), FileError> {
        self.gathered_bytes += section.body.len();
        self.gathered.push(section);
        if self.gathered_bytes >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        self.gathered_bytes = 0;
        for mut frame in SectionFrame::gather(std::mem::take(&mut self.gathered)) {
            frame.seal(0);
            self.file.write_all(&frame.bytes).map_err(FileError::at("write", &self.path))?;
            frame.sections.iter().for_each(|section| self.index.note(&section.head, self.length));
            self.length += frame.bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes it durable under its temporary name; its index and length.
    fn finish(mut self) -> Result<(Index, u64), FileError> {
        self.flush()?;
        self.file.sync_all().map_err(FileError::at("sync", &self.path))?;
        Ok((self.index, self.length))
    }
}
