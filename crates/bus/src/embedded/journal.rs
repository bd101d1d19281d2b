//! The journal: a snapshot of what is [`Kept`] and the entries behind it, each one durable frame.
//!
//! One file, named by number. A checkpoint writes the next file with a fresh snapshot and removes the old one, so the
//! journal stays short; whoever trims it must have synced the topics first.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::frame::{self, Broken};
use super::kept::{Entry, Kept};
use super::log_file::{FileError, LogFile, sync_directory_of};
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
    file: LogFile,
    number: u64,
    snapshot_bytes: u64,
}

impl Journal {
    /// Starts journal `number` in `directory` with a snapshot.
    pub fn create(directory: &Path, number: u64, kept: &Kept) -> Result<Self, FileError> {
        let mut bytes = framed(&Entry::Snapshot(kept.clone()));
        let head_bytes = bytes.len() - frame::FIXED_BYTES;
        frame::seal(&mut bytes, head_bytes, 0);
        let file = LogFile::create(&path(directory, number), &bytes)?;
        Ok(Self { snapshot_bytes: file.durable(), file, number })
    }

    /// Opens the newest journal and hands out its entries in order; older ones are removed. `Ok(None)`: there is none.
    pub fn open(directory: &Path, cuts: &mut Vec<Cut>) -> Result<Option<(Self, Vec<Entry>)>, OpenError> {
        let mut numbers = numbers(directory)?;
        let Some(number) = numbers.pop() else { return Ok(None) };
        let path = path(directory, number);
        let (entries, length) = read(&path, cuts)?;
        let mut file = LogFile::open(&path, length)?;
        // What was read may be in memory only: the process before may have died before its sync.
        file.cut_durably()?;
        sync_directory_of(&path)?;
        for old in numbers {
            remove(directory, old)?;
        }
        Ok(Some((Self { file, number, snapshot_bytes: 0 }, entries)))
    }

    /// The entries of the newest journal, read only. `Ok(None)`: there is none.
    pub fn look(directory: &Path, cuts: &mut Vec<Cut>) -> Result<Option<Vec<Entry>>, OpenError> {
        let Some(number) = numbers(directory)?.pop() else { return Ok(None) };
        read(&path(directory, number), cuts).map(|(entries, _)| Some(entries))
    }

    /// Makes entries durable, all of them or none.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        self.settle().map_err(JournalError::Undone)?;
        let mut bytes = Vec::new();
        for entry in entries {
            let mut framed = framed(entry);
            let head_bytes = framed.len() - frame::FIXED_BYTES;
            frame::seal(&mut framed, head_bytes, self.file.durable());
            bytes.extend_from_slice(&framed);
        }
        let written = self.file.append(&bytes).and_then(|()| self.file.sync());
        written.map_err(|error| match self.file.cut_durably() {
            Ok(()) => JournalError::Undone(error),
            Err(_) => JournalError::Unknown(error),
        })
    }

    /// Makes sure that an append that failed will not come back after a crash.
    pub fn settle(&mut self) -> Result<(), FileError> {
        if self.file.is_suspect() { self.file.cut_durably() } else { Ok(()) }
    }

    /// Bytes of entries since the snapshot.
    pub fn entry_bytes(&self) -> u64 {
        self.file.durable() - self.snapshot_bytes
    }

    /// Replaces the journal by one that starts with `kept`. On failure the old one stays in use.
    pub fn checkpoint(&mut self, kept: &Kept) -> Result<(), FileError> {
        let directory = self.file.path().parent().expect("the journal lies in its directory").to_owned();
        let old = self.number;
        *self = Self::create(&directory, old + 1, kept)?;
        remove(&directory, old)
    }
}

fn framed(entry: &Entry) -> Vec<u8> {
    frame::join(&entry.encode(), 0)
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.journal"))
}

fn remove(directory: &Path, number: u64) -> Result<(), FileError> {
    let path = path(directory, number);
    std::fs::remove_file(&path).map_err(FileError::at("remove", &path))?;
    sync_directory_of(&path)
}

fn numbers(directory: &Path) -> Result<Vec<u64>, FileError> {
    let entries = std::fs::read_dir(directory).map_err(FileError::at("list", directory))?;
    let number = |name: &str| name.strip_suffix(".journal")?.parse().ok();
    let mut numbers: Vec<u64> = entries.flatten().filter_map(|e| number(e.file_name().to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The entries of a journal and where they end.
fn read(path: &Path, cuts: &mut Vec<Cut>) -> Result<(Vec<Entry>, u64), OpenError> {
    let io = |error| FileError::at("read", path)(error);
    let file = File::open(path).map_err(FileError::at("open", path))?;
    let end = file.metadata().map_err(io)?.len();
    let (mut at, mut entries) = (0, Vec::new());
    loop {
        let reason = match frame::read(&file, at, end).map_err(io)? {
            Ok(None) => return Ok((entries, at)),
            Ok(Some(frame)) => match Entry::decode(frame.head) {
                Ok(entry) => {
                    at += frame.fixed.frame_bytes();
                    entries.push(entry);
                    continue;
                }
                Err(_) => return Err(OpenError::Corrupt { file: path.to_owned(), at, reason: "unknown entry".into() }),
            },
            Err(broken) => broken,
        };
        cut_or_refuse(&file, path, at, end, reason, cuts)?;
        if entries.is_empty() {
            return Err(OpenError::Corrupt { file: path.to_owned(), at, reason: "the snapshot is damaged".into() });
        }
        return Ok((entries, at));
    }
}

/// Notes a broken place as a tail to cut, or refuses if durable frames lie behind it.
pub(super) fn cut_or_refuse(
    file: &File,
    path: &Path,
    at: u64,
    end: u64,
    reason: Broken,
    cuts: &mut Vec<Cut>,
) -> Result<(), OpenError> {
    if frame::was_durable(file, at, end).map_err(FileError::at("read", path))? {
        let reason = format!("{reason}, with sound records behind it");
        return Err(OpenError::Corrupt { file: path.to_owned(), at, reason });
    }
    cuts.push(Cut { file: path.to_owned(), at, bytes: end - at, reason: reason.to_string() });
    Ok(())
}
