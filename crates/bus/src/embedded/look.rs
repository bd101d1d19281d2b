//! A look at a directory as opening it would see it, by somebody who must not change it: `drover doctor`.
//!
//! Every check is that of [`recovery`](super::recovery); the lock is tried and let go at once, so that a process that
//! starts meanwhile is not kept out.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::journal::Journal;
use super::kept::Kept;
use super::log_file::FileError;
use super::recovery::{self, Cut, OpenError};

/// What opening the directory would find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub topics: usize,
    /// Ends of files that were never completed; opening cuts them, and nothing that was acknowledged is lost.
    pub torn: Vec<Cut>,
}

/// Looks at the log in `directory` and changes nothing. `Ok(None)`: there is none yet. The error is the one with which
/// [`EmbeddedBus::open`](super::EmbeddedBus::open) would refuse the directory now.
pub fn look(directory: &Path) -> Result<Option<Sight>, OpenError> {
    if !directory.exists() {
        return Ok(None);
    }
    try_lock(directory)?;
    if !recovery::has_format(directory)? {
        return Ok(None);
    }
    let mut sight = Sight::default();
    let entries = Journal::look(directory, &mut sight.torn)?.unwrap_or_default();
    let mut kept = Kept::default();
    entries.iter().for_each(|entry| kept.apply(entry));
    for (id, config) in &kept.topics {
        recovery::look_at_topic(directory, *id, config, &mut sight.torn)?;
    }
    sight.topics = kept.topics.len();
    Ok(Some(sight))
}

fn try_lock(directory: &Path) -> Result<(), OpenError> {
    let path = recovery::lock_path(directory);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FileError::at("open", &path)(error).into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(recovery::in_use(directory)),
        Err(TryLockError::Error(error)) => Err(FileError::at("lock", &path)(error).into()),
    }
}
