//! A look at a directory as opening it would see it, by somebody who must not change it: `drover doctor`.
//!
//! It is the opening of [`recovery`] on a disk where nothing happens. The lock is tried and let go at once, so that a
//! process that starts meanwhile is not kept out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::EmbeddedOptions;
use super::disk::{Disk, FileError, Files};
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
    let segment_bytes = EmbeddedOptions::default().segment_bytes;
    let restored = recovery::restore(&Files::new(Arc::new(StillDisk)), directory, segment_bytes)?;
    Ok(Some(Sight { topics: restored.topics.len(), torn: restored.recovery.cut }))
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

/// A disk where nothing happens; files that are made are nowhere.
struct StillDisk;

impl Disk for StillDisk {
    fn create(&self, _: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open("/dev/null")
    }

    fn write(&self, _: &File, _: &Path, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: &File, _: &Path, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: &File, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
