//! The database of the embedded store: opened, told from somebody else's, and opened again after a failure.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode};

use crate::config::EmbeddedLimits;
use crate::ports::StoreError;

/// Table of the points: key = series and place.
const POINTS: &str = "points";
/// Table of the newest point of each field: key = device and field.
const NEWEST: &str = "newest";
/// Table of the messages: key = device and place.
const MESSAGES: &str = "messages";
/// Table of what is known of the database itself; one without it is somebody else's.
const ABOUT: &str = "drover-storage";
/// Key of the format in [`ABOUT`].
const FORMAT_KEY: &[u8] = b"format";
/// What this code reads and writes; grows when old code could not read the rows any more.
pub const FORMAT: &[u8] = b"drover-storage 1";
/// Bytes of journal before old ones are flushed and removed: the least fjall allows.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Table files held open.
const OPEN_FILES_MAX: usize = 128;

/// The store did not open; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{} cannot be used: {source}", directory.display())]
    Io { directory: PathBuf, source: std::io::Error },
    #[error("{} is in use by another process", directory.display())]
    Locked { directory: PathBuf },
    #[error("{} holds {found}, which is not a store of time series", directory.display())]
    Foreign { directory: PathBuf, found: String },
    #[error("{} holds format {found:?}, this version reads {:?}", directory.display(), String::from_utf8_lossy(FORMAT))]
    Format { directory: PathBuf, found: String },
    #[error("{} is damaged: {reason}", directory.display())]
    Damaged { directory: PathBuf, reason: String },
}

/// What all calls share.
pub struct Shared {
    directory: PathBuf,
    limits: EmbeddedLimits,
    /// `None` after a failed write, until the next call opens it again.
    open: RwLock<Option<Arc<Open>>>,
}

/// An open database.
pub struct Open {
    pub points: Keyspace,
    pub newest: Keyspace,
    pub messages: Keyspace,
    about: Keyspace,
    pub database: Database,
}

impl Shared {
    pub fn new(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let open = RwLock::new(Some(Arc::new(Open::at(directory, limits)?)));
        Ok(Self { directory: directory.to_owned(), limits, open })
    }

    /// The open database; opens it again after a failure.
    pub fn opened(&self) -> Result<Arc<Open>, StoreError> {
        if let Some(open) = self.open.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(Arc::clone(open));
        }
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.as_ref() {
            return Ok(Arc::clone(open));
        }
        let open =
            Open::at(&self.directory, self.limits).map_err(|e| StoreError::Unavailable { reason: e.to_string() })?;
        tracing::info!(directory = %self.directory.display(), "store of time series opened again");
        Ok(Arc::clone(slot.insert(Arc::new(open))))
    }

    /// Commits; a database that failed takes no more writes and is given up.
    pub fn commit(&self, open: &Arc<Open>, batch: OwnedWriteBatch) -> Result<(), StoreError> {
        batch.commit().map_err(|error| {
            tracing::error!(%error, directory = %self.directory.display(), "store of time series failed to write");
            self.give_up(open);
            store_error(error)
        })
    }

    /// Lets a database go that failed.
    pub fn give_up(&self, open: &Arc<Open>) {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        slot.take_if(|current| Arc::ptr_eq(current, open));
    }
}

impl Open {
    pub fn at(directory: &Path, limits: EmbeddedLimits) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        refuse_foreign_files(directory)?;
        let failed = |error| open_error(directory, error);
        let database = Database::builder(directory)
            .cache_size(limits.cache.bytes())
            .max_cached_files(Some(OPEN_FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let foreign = |found: &str| OpenError::Foreign { directory: directory.to_owned(), found: found.to_owned() };
        if database.keyspace_count() > 0 && !database.keyspace_exists(ABOUT) {
            return Err(foreign("another program's database"));
        }
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(limits.write_buffer.bytes());
        // Payloads in files of their own, so that compaction does not copy them again and again.
        let separated = || plain().with_kv_separation(Some(KvSeparationOptions::default()));
        let about = database.keyspace(ABOUT, plain).map_err(failed)?;
        let open = Self {
            points: database.keyspace(POINTS, plain).map_err(failed)?,
            newest: database.keyspace(NEWEST, plain).map_err(failed)?,
            messages: database.keyspace(MESSAGES, separated).map_err(failed)?,
            about,
            database,
        };
        match open.about.get(FORMAT_KEY).map_err(failed)? {
            Some(found) if *found == *FORMAT => Ok(open),
            Some(found) => Err(OpenError::Format {
                directory: directory.to_owned(),
                found: String::from_utf8_lossy(&found).into_owned(),
            }),
            None if open.points.is_empty().map_err(failed)? && open.messages.is_empty().map_err(failed)? => {
                open.set_format(FORMAT).map_err(failed)?;
                Ok(open)
            }
            None => Err(foreign("rows without a format")),
        }
    }

    pub fn set_format(&self, format: &[u8]) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.about, FORMAT_KEY, format);
        batch.commit()
    }
}

/// A directory that has files but none of fjall's is not ours to write into.
fn refuse_foreign_files(directory: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { directory: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "version" | "lock" | "keyspaces") && !name.ends_with(".jnl") {
            return Err(OpenError::Foreign { directory: directory.to_owned(), found: name });
        }
    }
    Ok(())
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

pub fn store_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) => match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                StoreError::Full { reason: e.to_string() }
            }
            other => StoreError::Unavailable { reason: format!("{other}: {e}") },
        },
        fjall::Error::Poisoned | fjall::Error::Locked | fjall::Error::KeyspaceDeleted => {
            StoreError::Unavailable { reason: error.to_string() }
        }
        other => StoreError::Corrupt { reason: other.to_string() },
    }
}
