//! One append-only file and what is known to be durable of it.
//!
//! After a failed write or sync nothing behind the last durable byte is trusted: the file is cut back to it before it is
//! written again, because a sync that is repeated after a failure may succeed without having written anything.

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

/// A file that only grows, except when it is cut back to its durable length.
#[derive(Debug)]
pub(super) struct LogFile {
    file: Arc<File>,
    path: PathBuf,
    written: u64,
    durable: u64,
    suspect: bool,
}

impl LogFile {
    /// Takes over a file whose first `length` bytes are good; to be cut durably before any of them is relied upon.
    pub fn open(path: &Path, length: u64) -> Result<Self, FileError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(FileError::at("open", path))?;
        let file =
            Self { file: Arc::new(file), path: path.to_owned(), written: length, durable: length, suspect: true };
        Ok(file)
    }

    /// Creates a file with `content`: it is there wholly and durably, or not at all.
    ///
    /// # Aborts
    /// The process, if the file can neither be made durable nor be removed: going on beside a file that the next start
    /// may or may not find would lose what is acknowledged meanwhile.
    pub fn create(path: &Path, content: &[u8]) -> Result<Self, FileError> {
        let temporary = path.with_extension("tmp");
        let folder = path.parent().expect("files of the log lie in a directory");
        let directory = File::open(folder).map_err(FileError::at("open", folder))?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
        let file = options.open(&temporary).map_err(FileError::at("create", &temporary))?;
        file.write_all_at(content, 0).map_err(FileError::at("write", &temporary))?;
        file.sync_all().map_err(FileError::at("sync", &temporary))?;
        std::fs::rename(&temporary, path).map_err(FileError::at("rename", &temporary))?;
        if let Err(error) = directory.sync_all() {
            if let Err(left) = std::fs::remove_file(path).and_then(|()| directory.sync_all()) {
                tracing::error!(file = %path.display(), %error, %left, "the log cannot go on beside this file");
                std::process::abort();
            }
            return Err(FileError::at("sync", folder)(error));
        }
        let length = content.len() as u64;
        Ok(Self { file: Arc::new(file), path: path.to_owned(), written: length, durable: length, suspect: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written, durable or not.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes known to be durable.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether a failure left bytes behind the durable ones that must go before the next write.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Cuts the file back to its durable bytes after a failure.
    pub fn cut(&mut self) -> Result<(), FileError> {
        self.file.set_len(self.durable).map_err(FileError::at("truncate", &self.path))?;
        self.written = self.durable;
        self.suspect = false;
        Ok(())
    }

    /// Like [`LogFile::cut`], and durably so: what was behind will not come back after a crash.
    pub fn cut_durably(&mut self) -> Result<(), FileError> {
        self.cut()?;
        let synced = self.file.sync_all().map_err(FileError::at("sync", &self.path));
        self.suspect = synced.is_err();
        synced
    }

    /// Writes `bytes` at the end, not yet durable. On failure the file is suspect until [`LogFile::cut`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let result = self.file.write_all_at(bytes, self.written).map_err(FileError::at("write", &self.path));
        self.suspect |= result.is_err();
        self.written += bytes.len() as u64;
        result
    }

    /// Makes everything written durable. On failure the file is suspect until [`LogFile::cut`].
    pub fn sync(&mut self) -> Result<(), FileError> {
        if self.durable == self.written {
            return Ok(());
        }
        match self.file.sync_data() {
            Ok(()) => self.durable = self.written,
            Err(error) => {
                self.suspect = true;
                return Err(FileError::at("sync", &self.path)(error));
            }
        }
        Ok(())
    }
}

/// Makes creation, renaming or removal of `path` durable.
pub(super) fn sync_directory_of(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().expect("files of the log lie in a directory");
    let sync = File::open(directory).and_then(|d| d.sync_all());
    sync.map_err(FileError::at("sync", directory))
}
