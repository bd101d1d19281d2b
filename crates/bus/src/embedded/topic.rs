//! A topic as readers see it: which segments hold what, the newest sections in memory, and how far it may be read.
//!
//! The writer publishes here only what is durable. The lock is held for look-ups, never for reading files.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::frame::Mark;
use super::index::{Index, Indexed};
use super::kept::TopicId;
use super::section::{Section, SectionFrame};
use super::segment::{Begin, Search, Sought};
use crate::{Bounds, Offset, Partition, TopicConfig, TopicPartition};

/// Starts listening to all of these at once.
pub(super) fn listen<'a>(changes: impl Iterator<Item = &'a Notify>) -> Vec<Pin<Box<Notified<'a>>>> {
    let listening = |change: &'a Notify| {
        let mut notified = Box::pin(change.notified());
        notified.as_mut().enable();
        notified
    };
    changes.map(listening).collect()
}

/// One segment as readers need it.
#[derive(Clone, Debug)]
pub(super) struct SegmentView {
    pub path: PathBuf,
    pub mark: Mark,
    pub sequence: u64,
    pub last_sequence: u64,
    pub generation: u64,
    pub bases: Vec<Offset>,
    /// Newest timestamp of each partition; `i64::MIN` without records. Of a sealed segment only.
    pub newest_ms: Vec<i64>,
    /// Readable bytes.
    pub length: u64,
    /// Of the last segment, which is still written; the others have theirs in a file.
    pub index: Option<Index>,
}

impl SegmentView {
    /// Newest timestamp of a partition.
    fn newest_of(&self, partition: Partition) -> i64 {
        match &self.index {
            Some(index) => index.partitions[partition as usize].newest_ms,
            None => self.newest_ms[partition as usize],
        }
    }

    /// Index and last sequence number of the segment being written.
    pub fn unsealed(&self) -> (Index, u64) {
        (self.index.clone().expect("the last segment is indexed in memory"), self.last_sequence)
    }

    /// What its index is known by.
    pub fn indexed(&self) -> Indexed<'_> {
        Indexed { path: &self.path, mark: self.mark, length: self.length }
    }

    /// The first partition of which a record of this segment, before `next`, is at or behind its `consumed` offset.
    fn first_unconsumed(&self, next: &Self, consumed: &[Offset]) -> Option<Partition> {
        let ends = self.bases.iter().zip(&next.bases).zip(consumed);
        let awaited = (0..).zip(ends).find(|(_, ((base, end), consumed))| base < end && *consumed < end);
        awaited.map(|(partition, _)| partition)
    }

    fn search(&self, partition: Partition, sought: Sought) -> Search {
        let begin = match &self.index {
            Some(index) => Begin::At(sought.begin(&index.partitions[partition as usize].entries)),
            None => Begin::Indexed,
        };
        Search { path: self.path.clone(), mark: self.mark, length: self.length, partition, begin }
    }
}

/// What retention took out of a view.
#[derive(Debug)]
pub(super) struct Expired {
    pub segments: Vec<SegmentView>,
    /// The partition whose records have to be consumed before more may go.
    pub awaited: Option<Partition>,
}

/// What is readable.
#[derive(Debug)]
pub(super) struct View {
    /// Oldest first; the last one is still written.
    pub segments: Vec<SegmentView>,
    /// Next offset of each partition.
    pub ends: Vec<Offset>,
    /// Newest sections of each partition, without a gap up to the end.
    tail: Vec<VecDeque<Section>>,
}

/// Where the records behind an offset are.
#[derive(Debug)]
pub(super) enum Located {
    /// Nothing there yet.
    End,
    /// Nothing there any more.
    Gone,
    Memory(Vec<Section>),
    /// In this file; if it has none, go on at the offset.
    File(Search, Offset),
}

/// One topic.
#[derive(Debug)]
pub(super) struct TopicLog {
    pub id: TopicId,
    pub config: TopicConfig,
    pub directory: PathBuf,
    /// Turns for records without a key.
    pub turn: AtomicU32,
    /// Told whenever records become readable, or the topic is deleted.
    pub changed: Notify,
    view: Mutex<View>,
}

impl TopicLog {
    pub fn new(
        id: TopicId,
        config: TopicConfig,
        directory: PathBuf,
        segments: Vec<SegmentView>,
        ends: Vec<Offset>,
    ) -> Self {
        let tail = vec![VecDeque::new(); ends.len()];
        let view = Mutex::new(View { segments, ends, tail });
        Self { id, config, directory, turn: AtomicU32::new(0), changed: Notify::new(), view }
    }

    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn partition(&self, partition: Partition) -> TopicPartition {
        TopicPartition::new(self.config.topic.clone(), partition)
    }
}

impl View {
    pub fn bounds(&self, partition: Partition) -> Bounds {
        let first = self.segments.first().expect("a topic has at least the segment being written");
        Bounds { earliest: first.bases[partition as usize], end: self.ends[partition as usize] }
    }

    /// The segment being written.
    pub fn active(&mut self) -> &mut SegmentView {
        self.segments.last_mut().expect("a topic has at least the segment being written")
    }

    /// The segments that are not written any more, oldest first.
    pub fn sealed(&self) -> Vec<SegmentView> {
        self.segments[..self.segments.len() - 1].to_vec()
    }

    /// Puts a rewritten segment in the place of those it stands for.
    pub fn replace(&mut self, rewritten: SegmentView) {
        let replaced = |s: &SegmentView| (rewritten.sequence..=rewritten.last_sequence).contains(&s.sequence);
        let at = self.segments.partition_point(|s| s.sequence < rewritten.sequence);
        self.segments.retain(|s| !replaced(s));
        self.segments.insert(at, rewritten);
    }

    /// Takes away the oldest sealed segments that expired: whose records are all older than `before_ms`, or that are too
    /// many for `bytes_max`. One with a record at or behind the `consumed` offset of its partition stays, and whatever is
    /// newer with it.
    pub fn expire(&mut self, before_ms: Option<i64>, bytes_max: Option<u64>, consumed: Option<&[Offset]>) -> Expired {
        let mut bytes: u64 = self.segments.iter().map(|s| s.length).sum();
        let (mut count, mut awaited) = (0, None);
        for pair in self.segments.windows(2) {
            let (segment, next) = (&pair[0], &pair[1]);
            let newest_ms = segment.newest_ms.iter().max().copied().unwrap_or(i64::MIN);
            if before_ms.is_none_or(|before| newest_ms >= before) && bytes_max.is_none_or(|max| bytes <= max) {
                break;
            }
            awaited = consumed.and_then(|consumed| segment.first_unconsumed(next, consumed));
            if awaited.is_some() {
                break;
            }
            bytes -= segment.length;
            count += 1;
        }
        Expired { segments: self.segments.drain(..count).collect(), awaited }
    }

    /// Makes frames readable that stand at these places of the last segment.
    pub fn publish(&mut self, frames: Vec<(u64, SectionFrame)>) {
        for (at, frame) in frames {
            let active = self.active();
            active.length = active.length.max(at + frame.bytes.len() as u64);
            let index = active.index.as_mut().expect("the last segment is indexed in memory");
            frame.sections.iter().for_each(|section| index.note(&section.head, at));
            for section in frame.sections {
                let partition = section.head.partition as usize;
                self.ends[partition] = section.head.next;
                self.tail[partition].push_back(section);
            }
        }
    }

    /// Drops the oldest section of the tail of `partition`.
    pub fn forget_oldest(&mut self, partition: Partition) {
        let tail = &mut self.tail[partition as usize];
        tail.pop_front();
        if tail.is_empty() {
            tail.shrink_to_fit();
        }
    }

    /// Finds records of `partition` from `from` on; [`Located::Gone`] if retention was faster than who has checked the bounds.
    pub fn locate(&self, partition: Partition, from: Offset, bytes_max: usize) -> Located {
        let index = partition as usize;
        if from >= self.ends[index] {
            return Located::End;
        }
        let tail = &self.tail[index];
        if tail.front().is_some_and(|oldest| oldest.head.base <= from) {
            return Located::Memory(from_tail(tail, from, bytes_max));
        }
        let Some(segment) = self.segments.partition_point(|s| s.bases[index] <= from).checked_sub(1) else {
            return Located::Gone;
        };
        let next = self.segments.get(segment + 1).map_or(self.ends[index], |next| next.bases[index]);
        Located::File(self.segments[segment].search(partition, Sought::Offset(from)), next)
    }

    /// The first segment that may hold a record of `partition` at or after `timestamp_ms`.
    pub fn locate_time(&self, partition: Partition, timestamp_ms: i64) -> Option<Search> {
        let segment = self.segments.iter().find(|s| s.newest_of(partition) >= timestamp_ms)?;
        Some(segment.search(partition, Sought::Time(timestamp_ms)))
    }
}

fn from_tail(tail: &VecDeque<Section>, from: Offset, bytes_max: usize) -> Vec<Section> {
    let start = tail.partition_point(|section| section.head.next <= from);
    let mut bytes = 0;
    let fits = |section: &&Section| {
        let fits = bytes < bytes_max.max(1);
        bytes += section.body.len();
        fits
    };
    tail.range(start..).take_while(fits).cloned().collect()
}
