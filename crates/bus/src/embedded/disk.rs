//! The seam to the file system: every change the log makes to its files goes through a [`Disk`], so that tests can let
//! any of them fail. Reading goes to the files directly.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file operation that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}: {}", path.display(), plain(source))]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: Arc<io::Error>,
}

impl FileError {
    /// Wraps an error of the system with what was being done to which file.
    pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// The system's words without the error number, lower case as all our messages.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The changes the log makes to its files. The default of each is what the system does.
///
/// Nothing of a failed call may be relied upon: a write may have written a part, a sync may have lost what it was to
/// make durable.
pub trait Disk: Send + Sync + 'static {
    /// Creates an empty file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    /// Writes all of `bytes` at byte `at` of `file`, which lies at `path`; not yet durable.
    fn write(&self, file: &File, _path: &Path, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    /// Cuts a file to `length` bytes; not yet durable.
    fn truncate(&self, file: &File, _path: &Path, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    /// Makes content and length of a file durable.
    fn sync(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_data()
    }

    /// Renames a file, over another if there is one; not yet durable.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Removes a file; not yet durable.
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    /// Removes a directory with all that is in it; not yet durable.
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    /// Makes creation, renaming and removal of files in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// The disk as the system offers it.
#[derive(Clone, Copy, Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {}

/// A disk whose errors say what was being done. Cheap to clone.
#[derive(Clone)]
pub(super) struct Files(Arc<dyn Disk>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    pub fn create(&self, path: &Path) -> Result<File, FileError> {
        self.0.create(path).map_err(FileError::at("create", path))
    }

    pub fn write(&self, file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<(), FileError> {
        self.0.write(file, path, bytes, at).map_err(FileError::at("write", path))
    }

    pub fn truncate(&self, file: &File, path: &Path, length: u64) -> Result<(), FileError> {
        self.0.truncate(file, path, length).map_err(FileError::at("truncate", path))
    }

    pub fn sync(&self, file: &File, path: &Path) -> Result<(), FileError> {
        self.0.sync(file, path).map_err(FileError::at("sync", path))
    }

    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.0.rename(from, to).map_err(FileError::at("rename", from))
    }

    pub fn remove(&self, path: &Path) -> Result<(), FileError> {
        self.0.remove(path).map_err(FileError::at("remove", path))
    }

    pub fn remove_directory(&self, path: &Path) -> Result<(), FileError> {
        self.0.remove_directory(path).map_err(FileError::at("remove", path))
    }

    /// Removes a file that may be gone already.
    pub fn remove_if_there(&self, path: &Path) -> Result<(), FileError> {
        match self.remove(path) {
            Err(error) if error.source.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Makes creation, renaming or removal of `path` durable.
    pub fn sync_directory_of(&self, path: &Path) -> Result<(), FileError> {
        let directory = path.parent().expect("files of the log lie in a directory");
        self.0.sync_directory(directory).map_err(FileError::at("sync", directory))
    }
}
