//! The files of one topic: creating them, and opening them after whatever happened.
//!
//! The last segment is scanned and its torn end cut; of the sealed ones only headers and indexes are looked at. They must
//! be the topic's own and follow one another without a gap.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{FileError, Files};
use super::frame::{self, Mark};
use super::index::{Index, IndexHead, Indexed};
use super::journal::{BrokenAt, cut_or_refuse};
use super::kept::TopicId;
use super::log_file::LogFile;
use super::producers::Producers;
use super::recovery::{Cut, OpenError, Recovery};
use super::section::{Section, SectionHead};
use super::segment::{self, SegmentHeader, Walk};
use super::topic::{SegmentView, TopicLog};
use super::topic_writer::{TopicWriter, active_view};
use crate::{Offset, TopicConfig};

/// Creates the files of a new topic; they count once the journal names it.
pub(super) fn create(files: &Files, topic: Found<'_>) -> Result<TopicWriter, FileError> {
    let Found { id, config, directory, segment_bytes } = topic;
    std::fs::create_dir_all(&directory).map_err(FileError::at("create", &directory))?;
    files.sync_directory_of(&directory)?;
    let ends = vec![0; config.partitions as usize];
    let header = SegmentHeader { topic: id, sequence: 0, last_sequence: 0, bases: ends.clone() };
    // A doubt does no harm here: the next start removes directories of topics that the journal does not name.
    let file = segment::create(files, &directory, &header, 0).map_err(|failed| failed.error)?;
    let log = TopicLog::new(id, config.clone(), directory, vec![active_view(&file, header, 0)], ends);
    Ok(TopicWriter::new(files, Arc::new(log), file, Producers::default(), segment_bytes, None))
}

/// A topic that the journal names.
pub(super) struct Found<'a> {
    pub id: TopicId,
    pub config: &'a TopicConfig,
    pub directory: PathBuf,
    pub segment_bytes: u64,
}

/// A segment file with its header.
struct Segment {
    path: PathBuf,
    generation: u64,
    mark: Mark,
    header: SegmentHeader,
    first_frame: u64,
    length: u64,
}

impl Segment {
    fn indexed(&self) -> Indexed<'_> {
        Indexed { path: &self.path, mark: self.mark, length: self.length }
    }

    fn view(&self, newest_ms: Vec<i64>, index: Option<Index>) -> SegmentView {
        SegmentView {
            path: self.path.clone(),
            mark: self.mark,
            sequence: self.header.sequence,
            last_sequence: self.header.last_sequence,
            generation: self.generation,
            bases: self.header.bases.clone(),
            newest_ms,
            length: self.length,
            index,
        }
    }
}

/// Opens the files of a topic.
pub(super) fn open(files: &Files, topic: Found<'_>, recovery: &mut Recovery) -> Result<TopicWriter, OpenError> {
    let mut found = find_segments(files, &topic, &mut recovery.removed)?;
    let Found { id, config, directory, segment_bytes } = topic;
    let Some(last) = found.pop() else {
        return Err(corrupt(&directory, 0, "a topic without segments"));
    };
    let mut segments = Vec::new();
    let mut producers = Producers::default();
    let mut sealed = found.into_iter().peekable();
    while let Some(segment) = sealed.next() {
        let (view, ends, known) = open_sealed(files, &segment)?;
        check_joint(&segment, &ends, sealed.peek().unwrap_or(&last))?;
        segments.push(view);
        producers = known;
    }
    let scan = scan_last(files, last, &mut producers, &mut recovery.cut)?;
    segments.push(scan.view);
    let log = TopicLog::new(id, config.clone(), directory, segments, scan.ends);
    Ok(TopicWriter::new(files, Arc::new(log), scan.file, producers, segment_bytes, scan.began_ms))
}

/// Whether a topic's directory holds anything but headers of segments.
pub(super) fn has_records(directory: &Path) -> Result<bool, FileError> {
    for entry in std::fs::read_dir(directory).map_err(FileError::at("list", directory))?.flatten() {
        let path = entry.path();
        if entry.file_name().to_str().and_then(segment::parse_name).is_some() {
            let (header, length) = header_of(&path)?;
            if header.is_none_or(|(_, _, first_frame)| length > first_frame) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The header of a segment file with its mark and the position of the first frame.
type SoundHeader = (SegmentHeader, Mark, u64);

/// The header of a segment file if it is sound, and the file's length.
fn header_of(path: &Path) -> Result<(Option<SoundHeader>, u64), FileError> {
    let file = File::open(path).map_err(FileError::at("open", path))?;
    let length = file.metadata().map_err(FileError::at("read", path))?.len();
    Ok((SegmentHeader::read(&file, length).map_err(FileError::at("read", path))?, length))
}

fn corrupt(file: &Path, at: u64, reason: impl ToString) -> OpenError {
    OpenError::Corrupt { file: file.to_owned(), at, reason: reason.to_string() }
}

/// The segments that count, oldest first; remains of compaction are removed.
fn find_segments(files: &Files, topic: &Found<'_>, removed: &mut Vec<PathBuf>) -> Result<Vec<Segment>, OpenError> {
    let directory = &topic.directory;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(FileError::at("list", directory))?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        match name.to_str().and_then(segment::parse_name) {
            Some(name) => found.push(read_header(path, name, topic)?),
            None if path.extension().is_some_and(|extension| extension == "tmp") => {
                files.remove(&path)?;
                removed.push(path);
            }
            None => {}
        }
    }
    found.sort_by_key(|f| (f.header.sequence, std::cmp::Reverse(f.generation)));
    let mut kept: Vec<Segment> = Vec::new();
    for candidate in found {
        // Retention takes the oldest segments of a topic, never those of a compacted one.
        let first = if topic.config.compact { 0 } else { candidate.header.sequence };
        let expected = kept.last().map_or(first, |last| last.header.last_sequence + 1);
        if candidate.header.sequence < expected {
            segment::remove(files, &candidate.path)?;
            removed.push(candidate.path);
        } else if candidate.header.sequence > expected {
            return Err(corrupt(&candidate.path, 0, format!("segment {expected} is missing before it")));
        } else {
            kept.push(candidate);
        }
    }
    Ok(kept)
}

fn read_header(path: PathBuf, (sequence, generation): (u64, u64), topic: &Found<'_>) -> Result<Segment, OpenError> {
    let (read, length) = header_of(&path)?;
    let read = read.filter(|(header, _, _)| header.bases.len() == topic.config.partitions as usize);
    let Some((header, mark, first_frame)) = read else {
        return Err(corrupt(&path, 0, "the segment's header is damaged"));
    };
    if (header.topic, header.sequence) != (topic.id, sequence) {
        let reason = format!("it holds segment {} of topic number {}", header.sequence, header.topic);
        return Err(corrupt(&path, 0, reason));
    }
    Ok(Segment { path, generation, mark, header, first_frame, length })
}

/// Checks that the next segment begins where this one ends; compaction may have taken the last records of this one.
fn check_joint(segment: &Segment, ends: &[Offset], next: &Segment) -> Result<(), OpenError> {
    let compacted = segment.generation > 0;
    let fits = |(end, base): (&Offset, &Offset)| end == base || (compacted && end < base);
    let Some(partition) = ends.iter().zip(&next.header.bases).position(|joint| !fits(joint)) else { return Ok(()) };
    let (end, base) = (ends[partition], next.header.bases[partition]);
    let reason = format!("partition {partition} begins at offset {base}, but {} ends at {end}", segment.path.display());
    Err(corrupt(&next.path, 0, reason))
}

/// A sealed segment as readers need it, where its partitions end, and the producers known at its end.
fn open_sealed(files: &Files, found: &Segment) -> Result<(SegmentView, Vec<Offset>, Producers), OpenError> {
    let read = IndexHead::read(&found.indexed()).filter(|index| index.ends.len() == found.header.bases.len());
    if let Some(index) = read
        && let Ok(producers) = Producers::decode(index.producers)
    {
        return Ok((found.view(index.newest_ms, None), index.ends, producers));
    }
    let (index, producers) = rebuild_index(found)?;
    index.write(files, &found.indexed(), &producers.encode())?;
    Ok((found.view(index.newest_ms(), None), index.ends(), producers))
}

/// Scans a sealed segment whose index is unusable. Producers known before it are forgotten: at worst a repeat from then
/// is not recognised.
fn rebuild_index(found: &Segment) -> Result<(Index, Producers), OpenError> {
    let file = File::open(&found.path).map_err(FileError::at("open", &found.path))?;
    let mut walk = Walk::new(file, found.indexed(), found.first_frame);
    let (mut index, mut producers) = (Index::new(&found.header.bases), Producers::default());
    loop {
        let at = walk.at();
        let damaged = |error: segment::ScanError| corrupt(&found.path, at, error);
        let Some(frame) = walk.next_frame().map_err(damaged)? else { return Ok((index, producers)) };
        for (head, place) in frame.places() {
            walk.section(head, place).map_err(damaged)?;
            index.note(&head, at);
            producers.record(&head);
        }
    }
}

/// The last segment, scanned.
struct LastSegment {
    view: SegmentView,
    file: LogFile,
    ends: Vec<Offset>,
    /// Newest timestamp of its first section, if it has one.
    began_ms: Option<i64>,
}

fn scan_last(
    files: &Files,
    mut found: Segment,
    producers: &mut Producers,
    cuts: &mut Vec<Cut>,
) -> Result<LastSegment, OpenError> {
    let file = File::open(&found.path).map_err(FileError::at("open", &found.path))?;
    let (mut at, end) = (found.first_frame, found.length);
    let mark = found.mark;
    let mut index = Index::new(&found.header.bases);
    let mut ends = found.header.bases.clone();
    let mut began_ms = None;
    loop {
        let heads = match frame::read(&file, mark, at, end).map_err(FileError::at("read", &found.path))? {
            Ok(None) => break,
            Ok(Some(frame)) => sound_sections(&frame, &ends).map(|heads| (heads, frame.fixed.frame_bytes())),
            Err(broken) => Err(broken),
        };
        match heads {
            Ok((heads, bytes)) => {
                for head in &heads {
                    began_ms.get_or_insert(head.newest_ms);
                    index.note(head, at);
                    producers.record(head);
                    ends[head.partition as usize] = head.next;
                }
                at += bytes;
            }
            Err(broken) => {
                let path = &found.path;
                cut_or_refuse(&BrokenAt { file: &file, path, mark, at, end, reason: broken }, cuts)?;
                break;
            }
        }
    }
    found.length = at;
    let mut file = LogFile::open(files, &found.path, mark, at)?;
    // What was read may be in memory only: the process before may have died before its sync.
    file.cut_durably()?;
    files.sync_directory_of(&found.path)?;
    Ok(LastSegment { view: found.view(Vec::new(), Some(index)), file, ends, began_ms })
}

/// The frame's section heads if table and records are what was written.
fn sound_sections(frame: &frame::Frame, ends: &[Offset]) -> Result<Vec<SectionHead>, frame::Broken> {
    let heads = SectionHead::table(frame.head.clone()).map_err(|_| frame::Broken::NoFrame)?;
    let mut body = frame.body.clone();
    for head in &heads {
        let known = ends.get(head.partition as usize).is_some_and(|end| head.base >= *end);
        if !known || head.bytes as usize > body.len() {
            return Err(frame::Broken::NoFrame);
        }
        let section = Section { head: *head, body: body.split_to(head.bytes as usize) };
        if !section.is_sound() {
            return Err(frame::Broken::Checksum);
        }
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use super::super::disk::SystemDisk;
    use super::*;
    use crate::{Bounds, Record};

    fn append(writer: &mut TopicWriter, timestamp_ms: i64) {
        let record = Record { timestamp_ms, ..Record::default() };
        let mut sections = vec![Section::encode(0, (0..).zip(&[record]))];
        let mut next = writer.next().to_vec();
        writer.place(&mut sections, &mut next);
        writer.append(sections).expect("writes");
    }

    #[test]
    fn a_segment_is_as_old_after_a_restart_as_before_it() {
        let parent = tempfile::tempdir().expect("a directory");
        let files = Files::new(Arc::new(SystemDisk));
        let retention_ms = Some(4_000);
        let config =
            TopicConfig { topic: "t".into(), partitions: 1, compact: false, retention_ms, retention_bytes: None };
        let directory = parent.path().join("t.0");
        let found = || Found { id: 0, config: &config, directory: directory.clone(), segment_bytes: u64::MAX };
        append(&mut create(&files, found()).expect("creates"), 10_000);
        append(&mut open(&files, found(), &mut Recovery::default()).expect("opens"), 10_900);

        let mut writer = open(&files, found(), &mut Recovery::default()).expect("opens");
        let mut segments_at = |now_ms| {
            writer.retain(Some(now_ms), None).expect("retains");
            let view = writer.log.view();
            (view.segments.len(), view.bounds(0))
        };
        let both = Bounds { earliest: 0, end: 2 };
        assert_eq!(segments_at(11_000), (1, both), "not a quarter of the retention old");
        assert_eq!(segments_at(11_001), (2, both), "sealed, whoever wrote its first record");
        assert_eq!(segments_at(14_900), (2, both));
        assert_eq!(segments_at(14_901), (1, Bounds { earliest: 2, end: 2 }), "and gone with its last");
    }
}
