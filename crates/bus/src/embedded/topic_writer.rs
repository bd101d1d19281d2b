//! A topic as the writer sees it: the segment being written, the next offsets, and what still has to be synced.
//!
//! Frames of plain appends are durable when `append` returns. Frames of transactions are durable in the journal already;
//! here they may stay unsynced (`lazy`) until the journal is trimmed, and are written again after a failure.

use std::sync::Arc;

use super::disk::{FileError, Files};
use super::index::{Index, Indexed};
use super::log_file::{Doubt, LogFile, NotCreated};
use super::producers::Producers;
use super::section::{Section, SectionFrame};
use super::segment::{self, SegmentHeader};
use super::topic::{Expired, SegmentView, TopicLog};
use crate::{Offset, Partition};

/// Frames and the places they stand at in the last segment.
pub(super) type Placed = Vec<(u64, SectionFrame)>;

/// The write side of one topic.
#[derive(Debug)]
pub(super) struct TopicWriter {
    pub log: Arc<TopicLog>,
    pub producers: Producers,
    files: Files,
    next: Vec<Offset>,
    file: LogFile,
    /// A next segment that could be neither completed nor withdrawn. The next start may take this one for sealed, so
    /// nothing is added to it before that is settled.
    doubt: Option<Doubt>,
    lazy: Vec<Vec<Section>>,
    segment_bytes: u64,
    /// Newest timestamp of the first section of the last segment, whichever process wrote it; milliseconds since the Unix
    /// epoch. A segment is as old as that; `None`: it has no records.
    began_ms: Option<i64>,
    /// Expired records stay because they are not consumed yet.
    awaiting: bool,
}

impl TopicWriter {
    /// Takes over a topic whose last segment is `file`, as old as `began_ms` says.
    pub fn new(
        files: &Files,
        log: Arc<TopicLog>,
        file: LogFile,
        producers: Producers,
        segment_bytes: u64,
        began_ms: Option<i64>,
    ) -> Self {
        let next = log.view().ends.clone();
        let segment_bytes = match log.config.retention_bytes {
            // Retention goes by whole segments: four of them make the limit worth its name.
            Some(limit) => segment_bytes.min((limit / 4).max(SEGMENT_BYTES_MIN)),
            None => segment_bytes,
        };
        let files = files.clone();
        let (doubt, lazy, awaiting) = (None, Vec::new(), false);
        Self { log, producers, files, next, file, doubt, lazy, segment_bytes, began_ms, awaiting }
    }

    /// Next offset of each partition, counting what is written and not yet published.
    pub fn next(&self) -> &[Offset] {
        &self.next
    }

    /// Gives sections their offsets, in order; they count only once the sections are written.
    pub fn place(&self, sections: &mut [Section], next: &mut [Offset]) {
        for section in sections {
            let next = &mut next[section.head.partition as usize];
            section.place(*next);
            *next = section.head.next;
        }
    }

    /// Writes placed sections durably and publishes them. On failure none of them will be readable. Answers whether a new
    /// segment was begun.
    pub fn append(&mut self, sections: Vec<Section>) -> Result<bool, FileError> {
        let rolled = self.roll_when_full()?;
        self.repair()?;
        let placed = self.write(sections)?;
        self.file.sync()?;
        self.lazy.clear();
        self.publish(placed);
        Ok(rolled)
    }

    /// Writes and publishes sections that are durable in the journal. A failure is made good by the next [`Self::sync`].
    pub fn append_lazily(&mut self, sections: Vec<Section>) -> Result<(), FileError> {
        let ready = self.repair();
        self.lazy.push(sections.clone());
        let written = ready.and_then(|()| self.write(sections.clone()));
        let (placed, result) = match written {
            Ok(placed) => (placed, Ok(())),
            Err(error) => (self.places_after_repair(sections), Err(error)),
        };
        self.publish(placed);
        result
    }

    /// Whether a failure has left something to mend before the file says what readers were told.
    pub fn is_behind(&self) -> bool {
        self.doubt.is_some() || self.file.is_suspect()
    }

    /// Bytes of records in memory that a failure would have written again.
    pub fn lazy_bytes(&self) -> usize {
        self.lazy.iter().flatten().map(|section| section.body.len()).sum()
    }

    /// Makes everything of this topic durable.
    pub fn sync(&mut self) -> Result<(), FileError> {
        self.repair()?;
        self.file.sync()?;
        self.lazy = Vec::new();
        Ok(())
    }

    /// Makes everything of this topic durable, and begins a new segment if only transactions have filled this one.
    pub fn settle(&mut self) -> Result<(), FileError> {
        self.sync()?;
        self.roll_when_full().map(drop)
    }

    /// Removes whole segments that retention lets go; `now_ms` is known if there is a clock. `consumed`: the offset of each
    /// partition behind which nothing may go, where others have to have it first.
    pub fn retain(&mut self, now_ms: Option<i64>, consumed: Option<&[Offset]>) -> Result<(), FileError> {
        let config = &self.log.config;
        if config.compact {
            return Ok(());
        }
        let retention_ms = config.retention_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        let age = now_ms.zip(retention_ms);
        // A slow topic would never fill its segment: seal it after a quarter of the retention.
        let due = age.zip(self.began_ms).is_some_and(|((now, kept), began)| began < now.saturating_sub(kept / 4));
        if due {
            self.roll()?;
        }
        let before_ms = age.map(|(now, kept)| now.saturating_sub(kept));
        let Expired { segments, awaited } =
            self.log.view().expire(before_ms, self.log.config.retention_bytes, consumed);
        self.tell(awaited);
        segments.iter().try_for_each(|segment| segment::remove(&self.files, &segment.path))
    }

    /// Says once that expired records stay, and once that they go again.
    fn tell(&mut self, awaited: Option<Partition>) {
        let topic = &*self.log.config.topic;
        match awaited {
            Some(partition) if !self.awaiting => {
                tracing::warn!(
                    topic,
                    partition,
                    "expired records stay: a group that must have them has not consumed them"
                );
            }
            None if self.awaiting => tracing::info!(topic, "expired records are consumed and go"),
            Some(_) | None => {}
        }
        self.awaiting = awaited.is_some();
    }

    /// Seals the last segment and begins a new one if it is full.
    fn roll_when_full(&mut self) -> Result<bool, FileError> {
        let full = self.file.written() >= self.segment_bytes;
        if full { self.roll().map(|()| true) } else { Ok(false) }
    }

    /// Seals the last segment and begins a new one.
    pub fn roll(&mut self) -> Result<(), FileError> {
        self.sync()?;
        let (index, last_sequence) = self.log.view().active().unsealed();
        let sealed = Indexed { path: self.file.path(), mark: self.file.mark(), length: self.file.written() };
        index.write(&self.files, &sealed, &self.producers.encode())?;
        let (topic, sequence) = (self.log.id, last_sequence + 1);
        let header = SegmentHeader { topic, sequence, last_sequence: sequence, bases: self.next.clone() };
        match segment::create(&self.files, &self.log.directory, &header, 0) {
            Ok(file) => self.file = file,
            Err(NotCreated { error, doubt }) => {
                // Everything is synced; what comes before the doubt is settled is written after it, from memory.
                self.file.distrust();
                self.doubt = doubt;
                return Err(error);
            }
        }
        self.began_ms = None;
        let fresh = active_view(&self.file, header, 0);
        let mut view = self.log.view();
        let sealed = view.active();
        sealed.newest_ms = index.newest_ms();
        sealed.index = None;
        view.segments.push(fresh);
        Ok(())
    }

    /// After a failure: cuts the file back to what is durable, so that what a failed append has left does not come back
    /// where something else is acknowledged, and writes again what only the journal has.
    pub fn repair(&mut self) -> Result<(), FileError> {
        if let Some(doubt) = &self.doubt {
            doubt.settle()?;
            self.doubt = None;
        }
        if !self.file.is_suspect() {
            return Ok(());
        }
        self.file.cut_durably()?;
        for sections in self.lazy.clone() {
            self.write(sections)?;
        }
        Ok(())
    }

    fn write(&mut self, sections: Vec<Section>) -> Result<Placed, FileError> {
        let mut placed = Vec::new();
        for mut frame in SectionFrame::gather(sections) {
            let at = self.file.written();
            frame.seal(self.file.mark(), self.file.durable());
            self.file.append(&frame.bytes)?;
            placed.push((at, frame));
        }
        Ok(placed)
    }

    /// Where sections will stand that could not be written yet: behind the durable bytes and the earlier lazy ones.
    fn places_after_repair(&self, sections: Vec<Section>) -> Placed {
        let bytes = |sections: &Vec<Section>| -> u64 {
            SectionFrame::gather(sections.clone()).iter().map(|frame| frame.bytes.len() as u64).sum()
        };
        let earlier: u64 = self.lazy[..self.lazy.len() - 1].iter().map(bytes).sum();
        let place = |at: &mut u64, frame: SectionFrame| {
            let here = *at;
            *at += frame.bytes.len() as u64;
            Some((here, frame))
        };
        SectionFrame::gather(sections).into_iter().scan(self.file.durable() + earlier, place).collect()
    }

    fn publish(&mut self, placed: Placed) {
        for section in placed.iter().flat_map(|(_, frame)| &frame.sections) {
            self.next[section.head.partition as usize] = section.head.next;
            self.began_ms.get_or_insert(section.head.newest_ms);
            self.producers.record(&section.head);
        }
        self.log.view().publish(placed);
        self.log.changed.notify_waiters();
    }
}

/// Smallest segment, in bytes, however small the retention: each costs two files.
const SEGMENT_BYTES_MIN: u64 = 256 * 1024;

/// The view of a segment without records.
pub(super) fn active_view(file: &LogFile, header: SegmentHeader, generation: u64) -> SegmentView {
    SegmentView {
        path: file.path().to_owned(),
        mark: file.mark(),
        sequence: header.sequence,
        last_sequence: header.last_sequence,
        generation,
        index: Some(Index::new(&header.bases)),
        newest_ms: Vec::new(),
        bases: header.bases,
        length: file.durable(),
    }
}
