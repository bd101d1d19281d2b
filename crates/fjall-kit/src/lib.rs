//! What the embedded stores of all services stand on: a directory is opened, told from somebody else's, and what can go
//! wrong with it is said in one way.
//!
//! It knows no row. A service brings its [`Layout`], opens its keyspaces in the database, and asks with
//! [`Layout::is_new`] whether what it finds is its own. [`Reopened`] holds what it has opened.

mod reopened;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fjall::Database;

pub use reopened::Reopened;

/// Bytes of journal before old ones are flushed and removed: the least fjall allows.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files of a database: who has it open, its first journal, and what is written last when it is made.
const LOCK: &str = "lock";
const FIRST_JOURNAL: &str = "0.jnl";
const MARKER: &str = "version";
/// The directory of its keyspaces, empty before the marker is there.
const KEYSPACES: &str = "keyspaces";
/// What can be done about every directory that does not open.
const ELSEWHERE: &str = "choose another directory with --data DIR";

/// How a store is told from others.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// What it is, in errors: `a registry store`.
    pub what: &'static str,
    /// Keyspace that every database of this kind has, and no other.
    pub keyspace: &'static str,
    /// What is read and written; grows when old code could not read the rows any more.
    pub format: &'static str,
    /// Table files held open.
    pub open_files_max: usize,
}

/// A store did not open; nothing was changed. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} cannot be used: {source}; make room or give permission, or {ELSEWHERE}", directory.display())]
    Io { directory: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process; stop that process, or {ELSEWHERE}", directory.display())]
    Locked { directory: PathBuf },
    #[error("{} holds {found}, which is not {what}; {ELSEWHERE}", directory.display())]
    Foreign { directory: PathBuf, found: String, what: &'static str },
    #[error(
        "{} holds format {found:?}, this version reads {known:?}; use the version of drover that wrote it, or {ELSEWHERE}",
        directory.display()
    )]
    Format { directory: PathBuf, found: String, known: &'static str },
    #[error("{} is damaged: {reason}; restore it from a backup, or move it away and {ELSEWHERE}", directory.display())]
    Damaged { directory: PathBuf, reason: String },
}

/// A request to an open database failed. After `Full` and `Unavailable` a write may or may not be found when it is opened
/// again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no space left: {reason}")]
    Full { reason: String },
    #[error("unavailable: {reason}")]
    Unavailable { reason: String },
    #[error("damaged: {reason}")]
    Corrupt { reason: String },
}

impl Layout {
    /// Opens the database in `directory`, or makes it. Files that are none of fjall's, and the database of another
    /// program, are refused and left as they are.
    pub fn open(&self, directory: &Path, cache_bytes: u64) -> Result<Database, OpenError> {
        std::fs::create_dir_all(directory).map_err(io(directory))?;
        self.refuse_foreign_files(directory)?;
        clear_unfinished(directory)?;
        let database = Database::builder(directory)
            .cache_size(cache_bytes)
            .max_cached_files(Some(self.open_files_max))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(self.failed(directory))?;
        if database.keyspace_count() > 0 && !database.keyspace_exists(self.keyspace) {
            return Err(self.foreign(directory, "another program's database"));
        }
        Ok(database)
    }

    /// Whether the database in `directory` has just been made and wants its format written: by the format it holds, if
    /// any, and whether it holds rows.
    pub fn is_new(&self, directory: &Path, found: Option<&[u8]>, is_empty: bool) -> Result<bool, OpenError> {
        match found {
            Some(found) if found == self.format.as_bytes() => Ok(false),
            Some(found) => Err(self.other_format(directory, String::from_utf8_lossy(found).into_owned())),
            None if is_empty => Ok(true),
            None => Err(self.foreign(directory, "rows without a format")),
        }
    }

    /// What a failure while `directory` is opened means.
    pub fn failed(&self, directory: &Path) -> impl Fn(fjall::Error) -> OpenError + use<> {
        let (layout, directory) = (*self, directory.to_owned());
        move |error| match error {
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => io(&directory)(source),
            fjall::Error::Locked => OpenError::Locked { directory: directory.clone() },
            fjall::Error::InvalidVersion(found) => layout.other_format(&directory, format!("{found:?}")),
            other => OpenError::Damaged { directory: directory.clone(), reason: other.to_string() },
        }
    }

    fn refuse_foreign_files(&self, directory: &Path) -> Result<(), OpenError> {
        for entry in std::fs::read_dir(directory).map_err(io(directory))? {
            let name = entry.map_err(io(directory))?.file_name().to_string_lossy().into_owned();
            if !matches!(name.as_str(), MARKER | LOCK | KEYSPACES) && !name.ends_with(".jnl") {
                return Err(self.foreign(directory, &name));
            }
        }
        Ok(())
    }

    fn foreign(&self, directory: &Path, found: &str) -> OpenError {
        OpenError::Foreign { directory: directory.to_owned(), found: found.to_owned(), what: self.what }
    }

    fn other_format(&self, directory: &Path, found: String) -> OpenError {
        OpenError::Format { directory: directory.to_owned(), found, known: self.format }
    }
}

/// Takes away the files of a database that a process has not finished making, as when it was killed: fjall would not open
/// it, and nothing was ever written to it.
fn clear_unfinished(directory: &Path) -> Result<(), OpenError> {
    let path = |name: &str| directory.join(name);
    let has_keyspaces = fs::read_dir(path(KEYSPACES)).is_ok_and(|mut entries| entries.next().is_some());
    let is_finished = fs::metadata(path(MARKER)).is_ok_and(|marker| marker.len() > 0);
    let is_begun = [MARKER, FIRST_JOURNAL].iter().any(|name| path(name).exists());
    if has_keyspaces || is_finished || !is_begun {
        return Ok(());
    }
    let lock = File::options().create(true).truncate(false).write(true).open(path(LOCK)).map_err(io(directory))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenError::Locked { directory: directory.to_owned() },
        TryLockError::Error(source) => io(directory)(source),
    })?;
    for name in [MARKER, FIRST_JOURNAL] {
        match fs::remove_file(path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(directory)(error)),
            _ => {}
        }
    }
    Ok(())
}

fn io(directory: &Path) -> impl Fn(std::io::Error) -> OpenError + use<> {
    let directory = directory.to_owned();
    move |source| OpenError::Io { directory: directory.clone(), source }
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => match e.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Failure::Full { reason: e.to_string() }
                }
                other => Failure::Unavailable { reason: format!("{other}: {e}") },
            },
            fjall::Error::Poisoned | fjall::Error::Locked | fjall::Error::KeyspaceDeleted => {
                Failure::Unavailable { reason: error.to_string() }
            }
            other => Failure::Corrupt { reason: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use fjall::KeyspaceCreateOptions;

    use super::*;

    pub(crate) const LAYOUT: Layout =
        Layout { what: "a store of lamps", keyspace: "lamps", format: "lamps 1", open_files_max: 16 };

    fn refused(directory: &Path) -> String {
        let error = LAYOUT.open(directory, 1 << 16).map(drop).expect_err("refused").to_string();
        error.replace(&directory.display().to_string(), "DIR")
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("letter.txt"), "dear").expect("written");
        let told = |found: &str| format!("DIR holds {found}, which is not a store of lamps; {ELSEWHERE}");
        assert_eq!(refused(directory.path()), told("letter.txt"));
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 1);

        let other = tempfile::tempdir().expect("a directory");
        let database = Database::builder(other.path()).open().expect("opens");
        drop(database.keyspace("theirs", KeyspaceCreateOptions::default).expect("made"));
        drop(database);
        assert_eq!(refused(other.path()), told("another program's database"));
    }

    #[test]
    fn a_store_that_was_not_finished_is_made_anew_and_no_other() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at(KEYSPACES)).expect("made");
        for marker in [false, true] {
            fs::write(at(FIRST_JOURNAL), [0; 100]).expect("written");
            if marker {
                fs::write(at(MARKER), "").expect("written");
            }
            let maker = File::create(at(LOCK)).expect("made");
            maker.try_lock().expect("nobody has it");
            assert!(refused(directory.path()).starts_with("DIR is in use"), "somebody is making it");
            drop(maker);
            drop(LAYOUT.open(directory.path(), 1 << 16).expect("made anew"));
            drop(LAYOUT.open(directory.path(), 1 << 16).expect("opened again"));
            fs::remove_dir_all(at(KEYSPACES)).expect("removed");
            fs::remove_file(at(MARKER)).expect("removed");
            fs::create_dir(at(KEYSPACES)).expect("made");
        }
        fs::create_dir(at(KEYSPACES).join("1")).expect("made");
        assert!(refused(directory.path()).starts_with("DIR cannot be used"), "it may have held something");
        assert!(at(FIRST_JOURNAL).exists());
    }

    #[test]
    fn a_store_is_opened_by_one_process_and_known_by_its_format() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path();
        let database = LAYOUT.open(at, 1 << 16).expect("made");
        let rows = database.keyspace(LAYOUT.keyspace, KeyspaceCreateOptions::default).expect("made");
        assert_eq!(refused(at), format!("DIR is in use by another process; stop that process, or {ELSEWHERE}"));
        drop((rows, database));
        drop(LAYOUT.open(at, 1 << 16).expect("opened again"));

        assert!(LAYOUT.is_new(at, None, true).expect("it is empty"));
        assert!(!LAYOUT.is_new(at, Some(b"lamps 1"), false).expect("it is ours"));
        let told = |found, is_empty| {
            let error = LAYOUT.is_new(at, found, is_empty).expect_err("refused").to_string();
            error.replace(&at.display().to_string(), "DIR")
        };
        let foreign = format!("DIR holds rows without a format, which is not a store of lamps; {ELSEWHERE}");
        assert_eq!(told(None, false), foreign);
        let other = told(Some(b"lamps 2"), false);
        assert!(
            other.starts_with(r#"DIR holds format "lamps 2", this version reads "lamps 1"; use the version"#),
            "{other}"
        );
        assert!(other.ends_with(ELSEWHERE), "{other}");
    }
}
