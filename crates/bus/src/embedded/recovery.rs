//! Opening a directory: lock, format, journal, topics; what a crash left behind is cut, redone and reported.
//!
//! Nothing that may have been acknowledged is dropped silently: damage with sound records behind it refuses to open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame;
use super::journal::{Journal, cut_or_refuse};
use super::kept::{Entry, Kept, TopicId};
use super::log_file::{FileError, LogFile, sync_directory_of};
use super::producers::Producers;
use super::section::{Section, SectionHead};
use super::segment::{self, Index, IndexHead, SegmentHeader, Walk};
use super::topic::{SegmentView, TopicLog};
use super::topic_writer::{TopicWriter, active_view};
use crate::{Offset, TopicConfig};

/// Format of the whole directory; raised whenever an older program could not read it.
pub const FORMAT: u32 = 1;
/// Attempts to take the lock, and the pause between two: half a second together.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
/// Characters of a topic's name in the name of its directory; its number makes that unique.
const DIRECTORY_NAME_MAX: usize = 200;

/// The end of a file that was cut because it was never completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: PathBuf,
    /// Where the file ends now.
    pub at: u64,
    /// How much was cut.
    pub bytes: u64,
    pub reason: String,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub cut: Vec<Cut>,
    /// Records of committed transactions written again from the journal.
    pub redone_records: u64,
    /// Remains of deleted topics, of compaction and of files never finished; removed.
    pub removed: Vec<PathBuf>,
}

/// Why a directory cannot be opened; nothing was changed unless stated.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} is in use by another process{}", directory.display(), holder.map_or(String::new(), |pid| format!(", pid {pid}")))]
    Locked { directory: PathBuf, holder: Option<u32> },
    #[error("{} has data format {found}, this program reads format {supported}", directory.display())]
    Format { directory: PathBuf, found: String, supported: u32 },
    #[error("{} is not empty and holds no log", directory.display())]
    Foreign { directory: PathBuf },
    #[error("{} is damaged at byte {at}: {reason}", file.display())]
    Corrupt { file: PathBuf, at: u64, reason: String },
    #[error(transparent)]
    File(#[from] FileError),
}

/// The lock on a directory, let go when dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

/// What was found in a directory.
pub(super) struct Opened {
    pub lock: DirectoryLock,
    pub journal: Journal,
    pub kept: Kept,
    pub topics: BTreeMap<TopicId, TopicWriter>,
    pub recovery: Recovery,
}

/// Opens or creates the log in `directory`.
pub(super) fn open(directory: &Path, segment_bytes: u64) -> Result<Opened, OpenError> {
    std::fs::create_dir_all(topics_directory(directory)).map_err(FileError::at("create", directory))?;
    let lock = lock(directory)?;
    make_format(directory)?;
    let mut recovery = Recovery::default();
    let (journal, entries) = match Journal::open(directory, &mut recovery.cut)? {
        Some(found) => found,
        None => (Journal::create(directory, 0, &Kept::default())?, Vec::new()),
    };
    let mut kept = Kept::default();
    entries.iter().for_each(|entry| kept.apply(entry));
    remove_orphans(directory, &kept, &mut recovery.removed)?;
    let mut topics = BTreeMap::new();
    for (id, config) in &kept.topics {
        topics.insert(*id, open_topic(directory, *id, config, segment_bytes, &mut recovery)?);
    }
    recovery.redone_records = redo(entries, &mut topics)?;
    Ok(Opened { lock, journal, kept, topics, recovery })
}

fn topics_directory(directory: &Path) -> PathBuf {
    directory.join("topics")
}

fn topic_directory(directory: &Path, id: TopicId, topic: &str) -> PathBuf {
    let name = &topic[..topic.len().min(DIRECTORY_NAME_MAX)];
    topics_directory(directory).join(format!("{name}.{id}"))
}

fn lock(directory: &Path) -> Result<DirectoryLock, OpenError> {
    let path = lock_path(directory);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.as_mut().map_err(|error| FileError::at("open", &path)(std::io::Error::from(error.kind())))?;
    match lock_patiently(file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(directory)),
        Err(TryLockError::Error(error)) => return Err(FileError::at("lock", &path)(error).into()),
    }
    let io = |error| FileError::at("write", &path)(error);
    file.set_len(0).map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    let file = file.try_clone().map_err(io)?;
    Ok(DirectoryLock { _file: file })
}

/// The refusal that names who holds the lock, as far as the lock file tells.
pub(super) fn in_use(directory: &Path) -> OpenError {
    let holder = std::fs::read_to_string(lock_path(directory)).ok().and_then(|pid| pid.trim().parse().ok());
    OpenError::Locked { directory: directory.to_owned(), holder }
}

pub(super) fn lock_path(directory: &Path) -> PathBuf {
    directory.join("LOCK")
}

/// Takes the lock as soon as it is free: a process that is ending, or a child that a process forks at this moment, holds
/// it a little longer.
#[allow(clippy::disallowed_methods, reason = "opening a log blocks anyway and needs no runtime")]
fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    for _ in 1..LOCK_ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            decided => return decided,
        }
    }
    file.try_lock()
}

fn make_format(directory: &Path) -> Result<(), OpenError> {
    if !has_format(directory)? {
        LogFile::create(&directory.join("FORMAT"), format!("{FORMAT}\n").as_bytes())?;
    }
    Ok(())
}

/// Whether the directory holds a log of this format; `Ok(false)`: nothing yet.
pub(super) fn has_format(directory: &Path) -> Result<bool, OpenError> {
    let path = directory.join("FORMAT");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim() == FORMAT.to_string() => Ok(true),
        Ok(text) => {
            let found = text.trim().chars().take(20).collect();
            Err(OpenError::Format { directory: directory.to_owned(), found, supported: FORMAT })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let listed = std::fs::read_dir(directory).map_err(FileError::at("list", directory))?;
            let foreign = |name: &std::ffi::OsStr| name != "LOCK" && name != "topics" && name != "FORMAT.tmp";
            if listed.flatten().any(|entry| foreign(&entry.file_name())) {
                return Err(OpenError::Foreign { directory: directory.to_owned() });
            }
            Ok(false)
        }
        Err(error) => Err(FileError::at("read", &path)(error).into()),
    }
}

/// Removes directories of topics that were deleted, or never quite created.
fn remove_orphans(directory: &Path, kept: &Kept, removed: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let topics = topics_directory(directory);
    let known: BTreeSet<PathBuf> =
        kept.topics.iter().map(|(id, config)| topic_directory(directory, *id, &config.topic)).collect();
    for entry in std::fs::read_dir(&topics).map_err(FileError::at("list", &topics))?.flatten() {
        let path = entry.path();
        if !known.contains(&path) {
            std::fs::remove_dir_all(&path).map_err(FileError::at("remove", &path))?;
            removed.push(path);
        }
    }
    Ok(())
}

/// Writes again the records of committed transactions that did not reach their topics.
fn redo(entries: Vec<Entry>, topics: &mut BTreeMap<TopicId, TopicWriter>) -> Result<u64, FileError> {
    let mut redone = 0;
    for entry in entries {
        let Entry::Committed { sections, offsets: _ } = entry else { continue };
        for (id, mut sections) in sections {
            let Some(writer) = topics.get_mut(&id) else { continue };
            sections.retain(|section| section.head.base >= writer.next()[section.head.partition as usize]);
            redone += sections.iter().map(|section| u64::from(section.head.records)).sum::<u64>();
            if !sections.is_empty() {
                writer.append_lazily(sections)?;
            }
        }
    }
    topics.values_mut().try_for_each(TopicWriter::sync)?;
    Ok(redone)
}

/// Creates the files of a new topic; they count once the journal names it.
pub(super) fn create_topic(
    directory: &Path,
    id: TopicId,
    config: &TopicConfig,
    segment_bytes: u64,
) -> Result<TopicWriter, FileError> {
    let path = topic_directory(directory, id, &config.topic);
    std::fs::create_dir_all(&path).map_err(FileError::at("create", &path))?;
    sync_directory_of(&path)?;
    let ends = vec![0; config.partitions as usize];
    let header = SegmentHeader { sequence: 0, last_sequence: 0, bases: ends.clone() };
    let file = segment::create(&path, &header, 0)?;
    let log = TopicLog::new(id, config.clone(), path, vec![active_view(&file, header, 0)], ends);
    Ok(TopicWriter::new(Arc::new(log), file, Producers::default(), segment_bytes))
}

/// A segment file with its header.
struct Found {
    path: PathBuf,
    generation: u64,
    header: SegmentHeader,
    first_frame: u64,
    length: u64,
}

fn open_topic(
    directory: &Path,
    id: TopicId,
    config: &TopicConfig,
    segment_bytes: u64,
    recovery: &mut Recovery,
) -> Result<TopicWriter, OpenError> {
    let path = topic_directory(directory, id, &config.topic);
    let Segments { sealed, last, remains } = find_segments(&path, config.partitions)?;
    for path in remains {
        std::fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
        recovery.removed.push(path);
    }
    let mut segments = Vec::new();
    let mut producers = Producers::default();
    for sealed in sealed {
        let (view, known) = open_sealed(sealed)?;
        segments.push(view);
        producers = known;
    }
    let scan = open_last(last, &mut producers, &mut recovery.cut)?;
    segments.push(scan.view);
    let log = TopicLog::new(id, config.clone(), path, segments, scan.ends);
    Ok(TopicWriter::new(Arc::new(log), scan.file, producers, segment_bytes))
}

/// The segment files of a topic.
struct Segments {
    /// Oldest first.
    sealed: Vec<Found>,
    last: Found,
    /// What compaction and unfinished files have left; nobody needs it.
    remains: Vec<PathBuf>,
}

/// The segments that count. Changes nothing.
fn find_segments(directory: &Path, partitions: u32) -> Result<Segments, OpenError> {
    let (mut found, mut remains) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(FileError::at("list", directory))?.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        match name.to_str().and_then(segment::parse_name) {
            Some((_, generation)) => found.push(read_header(path, generation, partitions)?),
            None if path.extension().is_some_and(|extension| extension == "tmp") => remains.push(path),
            None => {}
        }
    }
    found.sort_by_key(|f| (f.header.sequence, std::cmp::Reverse(f.generation)));
    let mut sealed: Vec<Found> = Vec::new();
    for candidate in found {
        let expected = sealed.last().map_or(candidate.header.sequence, |last| last.header.last_sequence + 1);
        if candidate.header.sequence < expected {
            remains.push(candidate.path);
        } else if candidate.header.sequence > expected {
            let reason = format!("segment {expected} is missing before it");
            return Err(OpenError::Corrupt { file: candidate.path, at: 0, reason });
        } else {
            sealed.push(candidate);
        }
    }
    let none = || OpenError::Corrupt { file: directory.to_owned(), at: 0, reason: "a topic without segments".into() };
    let last = sealed.pop().ok_or_else(none)?;
    Ok(Segments { sealed, last, remains })
}

/// Looks at a topic as opening it would, and changes nothing; the torn end that opening would cut is added to `cuts`.
pub(super) fn look_at_topic(
    directory: &Path,
    id: TopicId,
    config: &TopicConfig,
    cuts: &mut Vec<Cut>,
) -> Result<(), OpenError> {
    let Segments { sealed, last, remains: _ } =
        find_segments(&topic_directory(directory, id, &config.topic), config.partitions)?;
    for sealed in sealed.iter().filter(|sealed| read_index(sealed).is_none()) {
        rebuild_index(sealed)?;
    }
    scan_last(&last, &mut Producers::default(), cuts)?;
    Ok(())
}

fn read_header(path: PathBuf, generation: u64, partitions: u32) -> Result<Found, OpenError> {
    let file = File::open(&path).map_err(FileError::at("open", &path))?;
    let length = file.metadata().map_err(FileError::at("read", &path))?.len();
    match SegmentHeader::read(&file, length).map_err(FileError::at("read", &path))? {
        Some((header, first_frame)) if header.bases.len() == partitions as usize => {
            Ok(Found { path, generation, header, first_frame, length })
        }
        Some(_) | None => {
            Err(OpenError::Corrupt { file: path, at: 0, reason: "the segment's header is damaged".into() })
        }
    }
}

fn open_sealed(found: Found) -> Result<(SegmentView, Producers), OpenError> {
    if let Some((newest_ms, producers)) = read_index(&found) {
        return Ok((view(&found, newest_ms, None), producers));
    }
    let (index, producers) = rebuild_index(&found)?;
    index.write(&found.path, found.length, &producers.encode())?;
    let newest_ms = index.partitions.iter().map(|p| p.newest_ms).collect();
    Ok((view(&found, newest_ms, None), producers))
}

/// The newest timestamps and the producers that the index file tells of, if it is usable.
fn read_index(found: &Found) -> Option<(Vec<i64>, Producers)> {
    let index = IndexHead::read(&found.path, found.length)?;
    let producers = Producers::decode(index.producers).ok()?;
    (index.newest_ms.len() == found.header.bases.len()).then_some((index.newest_ms, producers))
}

/// Scans a sealed segment whose index is unusable. Producers known before it are forgotten: at worst a repeat from then
/// is not recognised.
fn rebuild_index(found: &Found) -> Result<(Index, Producers), OpenError> {
    let file = File::open(&found.path).map_err(FileError::at("open", &found.path))?;
    let mut walk = Walk::new(file, &found.path, found.first_frame, found.length);
    let (mut index, mut producers) = (Index::new(found.header.bases.len()), Producers::default());
    loop {
        let at = walk.at();
        let corrupt =
            |error: segment::ScanError| OpenError::Corrupt { file: found.path.clone(), at, reason: error.to_string() };
        let Some(frame) = walk.next_frame().map_err(corrupt)? else { return Ok((index, producers)) };
        for (head, place) in frame.places() {
            walk.section(head, place).map_err(corrupt)?;
            index.note(&head, at);
            producers.record(&head);
        }
    }
}

fn view(found: &Found, newest_ms: Vec<i64>, index: Option<Index>) -> SegmentView {
    SegmentView {
        path: found.path.clone(),
        sequence: found.header.sequence,
        last_sequence: found.header.last_sequence,
        generation: found.generation,
        bases: found.header.bases.clone(),
        newest_ms,
        length: found.length,
        index,
    }
}

/// The last segment, scanned.
struct LastSegment {
    view: SegmentView,
    file: LogFile,
    ends: Vec<Offset>,
}

fn open_last(mut found: Found, producers: &mut Producers, cuts: &mut Vec<Cut>) -> Result<LastSegment, OpenError> {
    let Scanned { length, index, ends } = scan_last(&found, producers, cuts)?;
    found.length = length;
    let mut file = LogFile::open(&found.path, length)?;
    // What was read may be in memory only: the process before may have died before its sync.
    file.cut_durably()?;
    sync_directory_of(&found.path)?;
    Ok(LastSegment { view: view(&found, Vec::new(), Some(index)), file, ends })
}

/// What is sound of the last segment.
struct Scanned {
    length: u64,
    index: Index,
    ends: Vec<Offset>,
}

fn scan_last(found: &Found, producers: &mut Producers, cuts: &mut Vec<Cut>) -> Result<Scanned, OpenError> {
    let file = File::open(&found.path).map_err(FileError::at("open", &found.path))?;
    let (mut at, end) = (found.first_frame, found.length);
    let mut index = Index::new(found.header.bases.len());
    let mut ends = found.header.bases.clone();
    loop {
        let heads = match frame::read(&file, at, end).map_err(FileError::at("read", &found.path))? {
            Ok(None) => break,
            Ok(Some(frame)) => sound_sections(&frame, &ends).map(|heads| (heads, frame.fixed.frame_bytes())),
            Err(broken) => Err(broken),
        };
        match heads {
            Ok((heads, bytes)) => {
                for head in &heads {
                    index.note(head, at);
                    producers.record(head);
                    ends[head.partition as usize] = head.next;
                }
                at += bytes;
            }
            Err(broken) => {
                cut_or_refuse(&file, &found.path, at, end, broken, cuts)?;
                break;
            }
        }
    }
    Ok(Scanned { length: at, index, ends })
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
