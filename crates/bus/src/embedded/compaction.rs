//! Compaction: rewrites sealed segments of a compacted topic so that each key keeps its last record.
//!
//! Runs beside the writer, on segments nobody writes any more, oldest first. Offsets stay. A rewritten segment replaces its
//! originals by one rename and says in its header which it stands for, so a crash leaves either; opening removes the rest.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{FileError, Files};
use super::frame::Mark;
use super::index::{Index, IndexHead};
use super::log_file::{NotCreated, install};
use super::section::{FRAME_BYTES, Section, SectionFrame};
use super::segment::{self, ScanError, SegmentHeader, Walk};
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
    files: &'a Files,
    rules: Rules,
    newest: HashMap<Key, Offset>,
    /// Keys with a superseded record that stays: their tombstones must stay too.
    pinned: HashSet<Key>,
    proceed: &'a dyn Fn() -> bool,
}

/// Compacts the sealed segments of `log` as long as `proceed` says so; how many records went.
pub(super) fn compact(
    files: &Files,
    log: &Arc<TopicLog>,
    rules: Rules,
    proceed: &dyn Fn() -> bool,
) -> Result<u64, ScanError> {
    let mut sealed = log.view().sealed();
    let mut pass = Pass { files, rules, newest: HashMap::new(), pinned: HashSet::new(), proceed };
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
    let mut walk = Walk::new(file, segment.indexed(), 0);
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

    /// Rewrites neighbours as one segment; how many records went. Leaves them alone if that gains nothing, or fails.
    fn rewrite(&mut self, log: &Arc<TopicLog>, group: &[SegmentView]) -> Result<u64, ScanError> {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let generation = group.iter().map(|s| s.generation).max().unwrap_or(0) + 1;
        let header = SegmentHeader {
            topic: log.id,
            sequence: first.sequence,
            last_sequence: last.last_sequence,
            bases: first.bases.clone(),
        };
        let path = segment::segment_path(&log.directory, header.sequence, generation);
        let temporary = path.with_extension("tmp");
        let written = self.write(group, &temporary, &header);
        let (output, dropped) = written.inspect_err(|_| self.discard(&temporary))?;
        if dropped == 0 && group.len() == 1 {
            self.files.remove(&temporary)?;
            return Ok(0);
        }
        let view = output.view(path, header, generation);
        let producers = IndexHead::read(&last.indexed()).map(|index| index.producers).unwrap_or_default();
        let index = output.index.write(self.files, &view.indexed(), &producers);
        let installed = index.map_err(NotCreated::from).and_then(|()| install(self.files, &temporary, &view.path));
        // A doubt does no harm here: what the next start may find stands for segments that have not changed.
        if let Err(NotCreated { error, doubt: _ }) = installed {
            self.discard(&temporary);
            self.discard(&view.path.with_extension("index"));
            return Err(error.into());
        }
        log.view().replace(view);
        group.iter().try_for_each(|old| segment::remove(self.files, &old.path))?;
        Ok(dropped)
    }

    /// Writes what is kept of `group`, synced, under a temporary name; with the number of records left out.
    fn write(
        &mut self,
        group: &[SegmentView],
        temporary: &Path,
        header: &SegmentHeader,
    ) -> Result<(Output, u64), ScanError> {
        let mut output = Output::create(self.files, temporary, header)?;
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
        output.finish()?;
        Ok((output, dropped))
    }

    /// Removes what a failure left; what cannot be removed now goes at the next start.
    fn discard(&self, path: &Path) {
        if let Err(error) = self.files.remove_if_there(path) {
            tracing::debug!(%error, "remains of a failed compaction stay until the next start");
        }
    }
}

/// A segment being rewritten.
struct Output {
    files: Files,
    path: PathBuf,
    mark: Mark,
    file: File,
    length: u64,
    index: Index,
    gathered: Vec<Section>,
    gathered_bytes: usize,
}

impl Output {
    fn create(files: &Files, path: &Path, header: &SegmentHeader) -> Result<Self, FileError> {
        let mark = Mark::draw();
        let file = files.create(path)?;
        let bytes = header.frame(mark);
        files.write(&file, path, &bytes, 0)?;
        let (files, path, index) = (files.clone(), path.to_owned(), Index::new(&header.bases));
        Ok(Self { files, path, mark, file, length: bytes.len() as u64, index, gathered: Vec::new(), gathered_bytes: 0 })
    }

    fn add(&mut self, section: Section) -> Result<(), FileError> {
        self.gathered_bytes += section.body.len();
        self.gathered.push(section);
        if self.gathered_bytes >= FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        self.gathered_bytes = 0;
        for mut frame in SectionFrame::gather(std::mem::take(&mut self.gathered)) {
            frame.seal(self.mark, 0);
            self.files.write(&self.file, &self.path, &frame.bytes, self.length)?;
            frame.sections.iter().for_each(|section| self.index.note(&section.head, self.length));
            self.length += frame.bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes it durable under its temporary name.
    fn finish(&mut self) -> Result<(), FileError> {
        self.flush()?;
        self.files.sync(&self.file, &self.path)
    }

    /// How readers will see it under its final name.
    fn view(&self, path: PathBuf, header: SegmentHeader, generation: u64) -> SegmentView {
        SegmentView {
            path,
            mark: self.mark,
            sequence: header.sequence,
            last_sequence: header.last_sequence,
            generation,
            bases: header.bases,
            newest_ms: self.index.newest_ms(),
            length: self.length,
            index: None,
        }
    }
}
