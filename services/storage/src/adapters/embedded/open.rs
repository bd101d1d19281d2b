//! The database of the embedded store: opened, told from somebody else's, and opened again after a failure.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use drover_fjall_kit::{Failure, Layout, OpenError};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode};

use crate::config::EmbeddedLimits;
use crate::ports::StoreError;

/// Table of the points: key = series and place.
const POINTS: &str = "points";
/// Table of the newest point of each field: key = device and field.
const NEWEST: &str = "newest";
/// Table of the messages: key = device and place.
const MESSAGES: &str = "messages";
/// Key of the format in the table of what is known of the database itself.
const FORMAT_KEY: &[u8] = b"format";
/// Its keyspace holds what is known of the database itself.
const LAYOUT: Layout = Layout {
    what: "a store of time series",
    keyspace: "drover-storage",
    format: "drover-storage 1",
    open_files_max: 128,
};

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
        let (database, failed) = (LAYOUT.open(directory, limits.cache.bytes())?, LAYOUT.failed(directory));
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(limits.write_buffer.bytes());
        // Payloads in files of their own, so that compaction does not copy them again and again.
        let separated = || plain().with_kv_separation(Some(KvSeparationOptions::default()));
        let about = database.keyspace(LAYOUT.keyspace, plain).map_err(&failed)?;
        let open = Self {
            points: database.keyspace(POINTS, plain).map_err(&failed)?,
            newest: database.keyspace(NEWEST, plain).map_err(&failed)?,
            messages: database.keyspace(MESSAGES, separated).map_err(&failed)?,
            about,
            database,
        };
        let is_empty = open.points.is_empty().map_err(&failed)? && open.messages.is_empty().map_err(&failed)?;
        if LAYOUT.is_new(directory, open.about.get(FORMAT_KEY).map_err(&failed)?.as_deref(), is_empty)? {
            open.set_format(LAYOUT.format.as_bytes()).map_err(&failed)?;
        }
        Ok(open)
    }

    pub fn set_format(&self, format: &[u8]) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&self.about, FORMAT_KEY, format);
        batch.commit()
    }
}

pub fn store_error(error: fjall::Error) -> StoreError {
    match Failure::from(error) {
        Failure::Full { reason } => StoreError::Full { reason },
        Failure::Unavailable { reason } => StoreError::Unavailable { reason },
        Failure::Corrupt { reason } => StoreError::Corrupt { reason },
    }
}
