//! Opening a directory: lock, format, journal, topics; what a crash left behind is cut, redone and reported.
//!
//! Nothing that may have been acknowledged is dropped silently: damage with sound records behind it refuses to open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::disk::{FileError, Files};
use super::journal::Journal;
use super::kept::{Entry, Kept, TopicId};
use super::log_file;
use super::topic_files;
use super::topic_writer::TopicWriter;
use crate::{Offset, TopicPartition};

/// Format of the whole directory; raised whenever an older program could not read it.
pub const FORMAT: u32 = 2;
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

/// A committed offset that lay behind the end of its partition, because a cut took the records before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    pub group: String,
    pub at: TopicPartition,
    pub from: Offset,
    /// The partition's end: where the group goes on.
    pub to: Offset,
}

/// What opening found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub cut: Vec<Cut>,
    /// Committed offsets moved back to the ends of their partitions, durably.
    pub rewound: Vec<Rewound>,
    /// Records of committed transactions written again from the journal.
    pub redone_records: u64,
    /// Remains of deleted topics, of compaction and of files never finished; removed.
    pub removed: Vec<PathBuf>,
    /// What lies among the topics and is none of theirs; left alone.
    pub strange: Vec<PathBuf>,
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
pub(super) fn open(files: &Files, directory: &Path, segment_bytes: u64) -> Result<Opened, OpenError> {
    std::fs::create_dir_all(topics_directory(directory)).map_err(FileError::at("create", directory))?;
    let lock = lock(directory)?;
    if !has_format(directory)? {
        let created = log_file::create(files, &directory.join("FORMAT"), format!("{FORMAT}\n").as_bytes());
        created.map_err(|failed| failed.error)?;
    }
    let Restored { journal, kept, topics, recovery } = restore(files, directory, segment_bytes)?;
    Ok(Opened { lock, journal, kept, topics, recovery })
}

/// A log as its files tell it.
pub(super) struct Restored {
    pub journal: Journal,
    pub kept: Kept,
    pub topics: BTreeMap<TopicId, TopicWriter>,
    pub recovery: Recovery,
}

/// Reads the log in `directory`, which has the right format, and changes on the disk of `files` what has to be.
pub(super) fn restore(files: &Files, directory: &Path, segment_bytes: u64) -> Result<Restored, OpenError> {
    let mut recovery = Recovery::default();
    let (found, entries) = match Journal::open(files, directory, &mut recovery.cut)? {
        Some((journal, entries)) => (Some(journal), entries),
        None => (None, Vec::new()),
    };
    let mut kept = Kept::default();
    entries.iter().for_each(|entry| kept.apply(entry));
    remove_orphans(files, directory, &kept, &mut recovery)?;
    let mut journal = match found {
        Some(journal) => journal,
        None => Journal::create(files, directory, 0, &kept).map_err(|failed| failed.error)?,
    };
    let mut topics = BTreeMap::new();
    for (id, config) in &kept.topics {
        let path = topic_directory(directory, *id, &config.topic);
        let found = topic_files::Found { id: *id, config, directory: path, segment_bytes };
        topics.insert(*id, topic_files::open(files, found, &mut recovery)?);
    }
    recovery.redone_records = redo(entries, &mut topics)?;
    recovery.rewound = rewind(&mut journal, &mut kept, &topics)?;
    Ok(Restored { journal, kept, topics, recovery })
}

/// Moves committed offsets that lie behind the end of their partition back to it: what is written there next would
/// otherwise be passed over.
fn rewind(
    journal: &mut Journal,
    kept: &mut Kept,
    topics: &BTreeMap<TopicId, TopicWriter>,
) -> Result<Vec<Rewound>, FileError> {
    let mut rewound = Vec::new();
    let mut offsets = Vec::new();
    for group in kept.groups() {
        let mut moved = Vec::new();
        for mut offset in kept.offsets(&group) {
            let writer = topics.values().find(|writer| writer.log.config.topic == offset.at.topic);
            let Some(end) = writer.and_then(|w| w.next().get(offset.at.partition as usize)).copied() else { continue };
            if offset.next > end {
                let (group, at, from) = (group.clone(), offset.at.clone(), offset.next);
                rewound.push(Rewound { group, at, from, to: end });
                offset.next = end;
                moved.push(offset);
            }
        }
        if !moved.is_empty() {
            offsets.push((group, moved));
        }
    }
    if offsets.is_empty() {
        return Ok(rewound);
    }
    let entry = Entry::Committed { sections: Vec::new(), offsets };
    journal.append(std::slice::from_ref(&entry)).map_err(|error| error.file_error().clone())?;
    kept.apply(&entry);
    Ok(rewound)
}

fn topics_directory(directory: &Path) -> PathBuf {
    directory.join("topics")
}

pub(super) fn topic_directory(directory: &Path, id: TopicId, topic: &str) -> PathBuf {
    let name = &topic[..topic.len().min(DIRECTORY_NAME_MAX)];
    topics_directory(directory).join(format!("{name}.{id}"))
}

/// The file whose lock says that a process works in the directory; its content is that process's number.
pub(super) fn lock_path(directory: &Path) -> PathBuf {
    directory.join("LOCK")
}

/// The error of a directory that another process works in.
pub(super) fn in_use(directory: &Path) -> OpenError {
    let holder = std::fs::read_to_string(lock_path(directory)).ok().and_then(|pid| pid.trim().parse().ok());
    OpenError::Locked { directory: directory.to_owned(), holder }
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

/// Removes directories of topics that were deleted, or never quite created; but not one whose creation the journal has
/// lost. Nothing else is touched: somebody has put it there.
fn remove_orphans(files: &Files, directory: &Path, kept: &Kept, recovery: &mut Recovery) -> Result<(), OpenError> {
    let topics = topics_directory(directory);
    let known: BTreeSet<PathBuf> =
        kept.topics.iter().map(|(id, config)| topic_directory(directory, *id, &config.topic)).collect();
    for entry in std::fs::read_dir(&topics).map_err(FileError::at("list", &topics))?.flatten() {
        let path = entry.path();
        if !known.contains(&path) {
            let id = path.extension().and_then(|id| id.to_str()?.parse::<TopicId>().ok());
            let Some(id) = id.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) else {
                recovery.strange.push(path);
                continue;
            };
            if id >= kept.next_topic && topic_files::has_records(&path)? {
                let reason = "it holds records of a topic that the journal does not know".to_owned();
                return Err(OpenError::Corrupt { file: path, at: 0, reason });
            }
            files.remove_directory(&path)?;
            recovery.removed.push(path);
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
