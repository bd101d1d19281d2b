//! The database of the embedded store: made at first need, told from somebody else's, opened again after a failure.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::ports::StoreError;

/// Table of the retained messages.
const RETAINED: &str = "retained";
/// Table of what is known of the database itself; one without it is somebody else's.
const ABOUT: &str = "drover-ingress";
/// Key of the format in [`ABOUT`].
const FORMAT_KEY: &[u8] = b"format";
/// What this code reads and writes; grows when old code could not read the rows any more.
const FORMAT: &[u8] = b"drover-ingress 1";
/// Memory for rows read lately, in bytes.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Memory for rows written lately, in bytes, each table.
const WRITE_BUFFER_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of journal before old ones are flushed and removed: the least fjall allows.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Table files held open.
const OPEN_FILES_MAX: usize = 32;

/// The store did not open; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} cannot be used: {source}", directory.display())]
    Io { directory: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process", directory.display())]
    Locked { directory: PathBuf },
    #[error("{} holds {found:?}, this version reads {:?}", directory.display(), String::from_utf8_lossy(FORMAT))]
    Format { directory: PathBuf, found: String },
    #[error("{} is damaged: {reason}", directory.display())]
    Damaged { directory: PathBuf, reason: String },
}

/// The database, open or not.
pub(super) struct Shared {
    directory: PathBuf,
    open: Mutex<Option<Open>>,
}

/// An open database.
#[derive(Clone)]
pub(super) struct Open {
    pub retained: Keyspace,
    database: Database,
}

impl Shared {
    /// Opens what is in `directory`; if it is not there, it is made when it is needed.
    pub fn new(directory: &Path) -> Result<Self, OpenError> {
        let open = if directory.exists() { Some(Open::at(directory)?) } else { None };
        Ok(Self { directory: directory.to_owned(), open: Mutex::new(open) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database to read from; `None`: nothing was ever written.
    pub fn existing(&self) -> Result<Option<Open>, StoreError> {
        if self.lock().is_none() && !self.directory.exists() {
            return Ok(None);
        }
        self.opened().map(Some)
    }

    /// The database to write to.
    pub fn opened(&self) -> Result<Open, StoreError> {
        let mut slot = self.lock();
        if let Some(open) = slot.as_ref() {
            return Ok(open.clone());
        }
        let open = Open::at(&self.directory).map_err(|e| StoreError::Unavailable { reason: e.to_string() })?;
        tracing::info!(directory = %self.directory.display(), "store of the ingress opened");
        Ok(slot.insert(open).clone())
    }

    /// Writes `batch` to disk. A database that failed takes no more writes and is given up.
    pub fn commit(&self, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        batch.commit().map_err(|error| {
            tracing::error!(%error, directory = %self.directory.display(), "store of the ingress failed to write");
            *self.lock() = None;
            store_error(error)
        })
    }
}

impl Open {
    fn at(directory: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Io { directory: directory.to_owned(), source })?;
        let failed = |error| open_error(directory, error);
        let format = |found: &str| OpenError::Format { directory: directory.to_owned(), found: found.to_owned() };
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(OPEN_FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        if database.keyspace_count() > 0 && !database.keyspace_exists(ABOUT) {
            return Err(format("another program's database"));
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES);
        let about = database.keyspace(ABOUT, options).map_err(failed)?;
        let open = Self { retained: database.keyspace(RETAINED, options).map_err(failed)?, database };
        match about.get(FORMAT_KEY).map_err(failed)? {
            Some(found) if *found == *FORMAT => {}
            Some(found) => return Err(format(&String::from_utf8_lossy(&found))),
            None if open.retained.is_empty().map_err(failed)? => {
                let mut batch = open.batch();
                batch.insert(&about, FORMAT_KEY, FORMAT);
                batch.commit().map_err(failed)?;
            }
            None => return Err(format("rows without a format")),
        }
        Ok(open)
    }

    /// A batch that is on disk once it is committed.
    pub fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncAll))
    }
}

fn open_error(directory: &Path, error: fjall::Error) -> OpenError {
    let directory = directory.to_owned();
    match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
            OpenError::Io { directory, source }
        }
        fjall::Error::Locked => OpenError::Locked { directory },
        fjall::Error::InvalidVersion(found) => OpenError::Format { directory, found: format!("{found:?}") },
        other => OpenError::Damaged { directory, reason: other.to_string() },
    }
}

/// What a failure of fjall means to the caller.
pub(super) fn store_error(error: fjall::Error) -> StoreError {
    StoreError::Unavailable { reason: error.to_string() }
}
