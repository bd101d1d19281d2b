//! The journal: a snapshot of what is [`Kept`] and the entries behind it, each one durable frame.
//!
//! One file, named by number. A checkpoint writes the next file with a fresh snapshot and removes the old one, so the
//! journal stays short; whoever trims it must have synced the topics first.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::disk::{FileError, Files};
use super::frame::{self, Broken, Mark};
use super::kept::{Entry, Kept};
use super::log_file::{Doubt, LogFile, NotCreated};
use super::recovery::{Cut, OpenError};

/// What became of entries that could not be made durable.
#[derive(Debug)]
pub(super) enum JournalError {
    /// They are gone for good.
    Undone(FileError),
    /// They may be found at the next start.
    Unknown(FileError),
}

impl JournalError {
    pub fn file_error(&self) -> &FileError {
        match self {
            Self::Undone(error) | Self::Unknown(error) => error,
        }
    }
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    files: Files,
    file: LogFile,
    number: u64,
    snapshot_bytes: u64,
    /// A successor that could be neither completed nor withdrawn. The next start may go by it, so nothing is added to
    /// this journal before that is settled.
    doubt: Option<Doubt>,
}

impl Journal {
    /// Starts journal `number` in `directory` with a snapshot.
    pub fn create(files: &Files, directory: &Path, number: u64, kept: &Kept) -> Result<Self, NotCreated> {
        let mark = Mark::draw();
        let bytes = framed(&Entry::Snapshot(kept.clone()), mark, 0);
        let file = LogFile::create(files, &path(directory, number), mark, &bytes)?;
        Ok(Self { files: files.clone(), snapshot_bytes: file.durable(), file, number, doubt: None })
    }

    /// Opens the newest journal and hands out its entries in order; older ones are removed. `Ok(None)`: there is none.
    pub fn open(files: &Files, directory: &Path, cuts: &mut Vec<Cut>) -> Result<Option<(Self, Vec<Entry>)>, OpenError> {
        let mut numbers = numbers(directory)?;
        let Some(number) = numbers.pop() else { return Ok(None) };
        let path = path(directory, number);
        let (entries, mark, length) = read(&path, cuts)?;
        let mut file = LogFile::open(files, &path, mark, length)?;
        // What was read may be in memory only: the process before may have died before its sync.
        file.cut_durably()?;
        files.sync_directory_of(&path)?;
        for old in numbers {
            remove(files, directory, old)?;
        }
        let journal = Self { files: files.clone(), file, number, snapshot_bytes: 0, doubt: None };
        Ok(Some((journal, entries)))
    }

    /// Makes entries durable, all of them or none.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.settle().map_err(JournalError::Undone)?;
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend_from_slice(&framed(entry, self.file.mark(), self.file.durable()));
        }
        let written = self.file.append(&bytes).and_then(|()| self.file.sync());
        written.map_err(|error| match self.file.cut_durably() {
            Ok(()) => JournalError::Undone(error),
            Err(_) => JournalError::Unknown(error),
        })
    }

    /// Makes sure that an append or a checkpoint that failed will not come back after a crash.
    pub fn settle(&mut self) -> Result<(), FileError> {
        if let Some(doubt) = &self.doubt {
            doubt.settle()?;
            self.doubt = None;
        }
        if self.file.is_suspect() { self.file.cut_durably() } else { Ok(()) }
    }

    /// Bytes of entries since the snapshot.
    pub fn entry_bytes(&self) -> u64 {
        self.file.durable() - self.snapshot_bytes
    }

    /// Replaces the journal by one that starts with `kept`. On failure the old one stays in use, once it is certain that
    /// the new one is gone.
    pub fn checkpoint(&mut self, kept: &Kept) -> Result<(), FileError> {
        let directory = self.file.path().parent().expect("the journal lies in its directory").to_owned();
        let old = self.number;
        match Self::create(&self.files, &directory, old + 1, kept) {
            Ok(fresh) => *self = fresh,
            Err(NotCreated { error, doubt }) => {
                self.doubt = doubt;
                return Err(error);
            }
        }
        remove(&self.files, &directory, old)
    }
}

/// A whole frame of one entry.
fn framed(entry: &Entry, mark: Mark, synced: u64) -> Vec<u8> {
    let mut bytes = frame::join(&entry.encode(), 0);
    let head_bytes = bytes.len() - frame::FIXED_BYTES;
    frame::seal(&mut bytes, head_bytes, mark, synced);
    bytes
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.journal"))
}

fn remove(files: &Files, directory: &Path, number: u64) -> Result<(), FileError> {
    let path = path(directory, number);
    files.remove(&path)?;
    files.sync_directory_of(&path)
}

fn numbers(directory: &Path) -> Result<Vec<u64>, FileError> {
    let entries = std::fs::read_dir(directory).map_err(FileError::at("list", directory))?;
    let number = |name: &str| name.strip_suffix(".journal")?.parse().ok();
    let mut numbers: Vec<u64> = entries.flatten().filter_map(|e| number(e.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The entries of a journal, its mark and where they end.
fn read(path: &Path, cuts: &mut Vec<Cut>) -> Result<(Vec<Entry>, Mark, u64), OpenError> {
    let io = |error| FileError::at("read", path)(error);
    let file = File::open(path).map_err(FileError::at("open", path))?;
    let end = file.metadata().map_err(io)?.len();
    let corrupt = |at, reason: &str| OpenError::Corrupt { file: path.to_owned(), at, reason: reason.into() };
    let mark = Mark::of(&file).map_err(io)?.ok_or_else(|| corrupt(0, "the snapshot is missing"))?;
    let (mut at, mut entries) = (0, Vec::new());
    loop {
        let reason = match frame::read(&file, mark, at, end).map_err(io)? {
            Ok(None) => return Ok((entries, mark, at)),
            Ok(Some(frame)) => match Entry::decode(frame.head) {
                Ok(entry) => {
                    at += frame.fixed.frame_bytes();
                    entries.push(entry);
                    continue;
                }
                Err(_) => return Err(corrupt(at, "unknown entry")),
            },
            Err(broken) => broken,
        };
        if entries.is_empty() {
            return Err(corrupt(at, "the snapshot is damaged"));
        }
        cut_or_refuse(&BrokenAt { file: &file, path, mark, at, end, reason }, cuts)?;
        return Ok((entries, mark, at));
    }
}

/// A place at which the frames of a file end before the file does.
pub(super) struct BrokenAt<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub mark: Mark,
    pub at: u64,
    pub end: u64,
    pub reason: Broken,
}

/// Reports a broken place as a tail to cut, or refuses if durable frames lie behind it.
pub(super) fn cut_or_refuse(broken: &BrokenAt<'_>, cuts: &mut Vec<Cut>) -> Result<(), OpenError> {
    let BrokenAt { file, path, mark, at, end, reason } = *broken;
    if frame::was_durable(file, mark, at, end).map_err(FileError::at("read", path))? {
        let reason = format!("{reason}, with sound records behind it");
        return Err(OpenError::Corrupt { file: path.to_owned(), at, reason });
    }
    cuts.push(Cut { file: path.to_owned(), at, bytes: end - at, reason: reason.to_string() });
    Ok(())
}
