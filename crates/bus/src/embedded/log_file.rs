//! One append-only file and what is known to be durable of it.
//!
//! After a failed write or sync nothing behind the last durable byte is trusted: the file is cut back to it before it is
//! written again, because a sync that is repeated after a failure may succeed without having written anything.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::disk::{FileError, Files};
use super::frame::Mark;

/// A file that only grows, except when it is cut back to its durable length.
#[derive(Debug)]
pub(super) struct LogFile {
    files: Files,
    file: File,
    path: PathBuf,
    mark: Mark,
    written: u64,
    durable: u64,
    suspect: bool,
}

/// A file that was not created.
#[derive(Debug)]
pub(super) struct NotCreated {
    pub error: FileError,
    /// It may be found at the next start nevertheless.
    pub doubt: Option<Doubt>,
}

impl From<FileError> for NotCreated {
    fn from(error: FileError) -> Self {
        Self { error, doubt: None }
    }
}

/// A file that must not be and may be found at the next start nevertheless: until that is settled nothing may be
/// acknowledged that a start with this file would lose.
#[derive(Debug)]
pub(super) struct Doubt {
    files: Files,
    path: PathBuf,
}

impl Doubt {
    /// Makes certain that the file is gone.
    pub fn settle(&self) -> Result<(), FileError> {
        self.files.remove_if_there(&self.path)?;
        self.files.sync_directory_of(&self.path)
    }
}

/// Creates a file with `content`: it is there wholly and durably, or not at all, or in doubt.
pub(super) fn create(files: &Files, path: &Path, content: &[u8]) -> Result<File, NotCreated> {
    let temporary = path.with_extension("tmp");
    let file = files.create(&temporary)?;
    files.write(&file, &temporary, content, 0)?;
    files.sync(&file, &temporary)?;
    install(files, &temporary, path)?;
    Ok(file)
}

/// Gives a synced file its name, durably; on failure it is withdrawn, or in doubt.
pub(super) fn install(files: &Files, temporary: &Path, path: &Path) -> Result<(), NotCreated> {
    let installed = files.rename(temporary, path).and_then(|()| files.sync_directory_of(path));
    installed.map_err(|error| {
        let doubt = Doubt { files: files.clone(), path: path.to_owned() };
        let settled = doubt.settle();
        NotCreated { error, doubt: settled.is_err().then_some(doubt) }
    })
}

impl LogFile {
    /// Takes over a file whose first `length` bytes are good; to be cut durably before any of them is relied upon.
    pub fn open(files: &Files, path: &Path, mark: Mark, length: u64) -> Result<Self, FileError> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(FileError::at("open", path))?;
        let (files, path) = (files.clone(), path.to_owned());
        Ok(Self { files, file, path, mark, written: length, durable: length, suspect: true })
    }

    /// Creates a file with `content`, whose frames bear `mark`: it is there wholly and durably, or not at all, or in doubt.
    pub fn create(files: &Files, path: &Path, mark: Mark, content: &[u8]) -> Result<Self, NotCreated> {
        let file = create(files, path, content)?;
        let (files, path, length) = (files.clone(), path.to_owned(), content.len() as u64);
        Ok(Self { files, file, path, mark, written: length, durable: length, suspect: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its frames begin with.
    pub fn mark(&self) -> Mark {
        self.mark
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

    /// Calls for a [`LogFile::cut`] before the next write.
    pub fn distrust(&mut self) {
        self.suspect = true;
    }

    /// Cuts the file back to its durable bytes after a failure.
    pub fn cut(&mut self) -> Result<(), FileError> {
        self.files.truncate(&self.file, &self.path, self.durable)?;
        self.written = self.durable;
        self.suspect = false;
        Ok(())
    }

    /// Like [`LogFile::cut`], and durably so: what was behind will not come back after a crash.
    pub fn cut_durably(&mut self) -> Result<(), FileError> {
        self.cut()?;
        let synced = self.files.sync(&self.file, &self.path);
        self.suspect = synced.is_err();
        synced
    }

    /// Writes `bytes` at the end, not yet durable. On failure the file is suspect until [`LogFile::cut`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let result = self.files.write(&self.file, &self.path, bytes, self.written);
        self.suspect |= result.is_err();
        self.written += bytes.len() as u64;
        result
    }

    /// Makes everything written durable. On failure the file is suspect until [`LogFile::cut`].
    pub fn sync(&mut self) -> Result<(), FileError> {
        if self.durable == self.written {
            return Ok(());
        }
        let synced = self.files.sync(&self.file, &self.path);
        match &synced {
            Ok(()) => self.durable = self.written,
            Err(_) => self.suspect = true,
        }
        synced
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::disk::Disk;
    use super::*;

    /// Syncs no directory while it is ill.
    #[derive(Default)]
    struct Ill(AtomicBool);

    impl Disk for Ill {
        fn sync_directory(&self, _: &Path) -> io::Result<()> {
            if self.0.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_file_that_can_be_neither_completed_nor_withdrawn_is_in_doubt_until_the_disk_recovers() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file.log");
        let disk = Arc::new(Ill(AtomicBool::new(true)));
        let files = Files::new(disk.clone());
        let failed = create(&files, &path, b"content").expect_err("the directory is not synced");
        assert!(failed.error.to_string().starts_with("cannot sync"), "{}", failed.error);
        let doubt = failed.doubt.expect("it may be found at the next start");
        doubt.settle().expect_err("the disk is still ill");
        disk.0.store(false, Ordering::Relaxed);
        doubt.settle().expect("its removal is durable now");
        assert!(!path.exists());
        create(&files, &path, b"content").expect("creates");
        assert_eq!(std::fs::read(&path).expect("reads"), b"content");
    }

    #[test]
    fn a_failed_write_is_cut_off_before_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::new(Arc::new(Ill::default()));
        let mark = Mark::draw();
        let mut file = LogFile::create(&files, &directory.path().join("file.log"), mark, b"head").expect("creates");
        file.append(b"lost").expect("writes");
        file.distrust();
        file.cut().expect("cuts");
        file.append(b"new").expect("writes");
        file.sync().expect("syncs");
        assert_eq!(std::fs::read(file.path()).expect("reads"), b"headnew");
        assert_eq!((file.written(), file.durable(), file.is_suspect()), (7, 7, false));
    }
}
