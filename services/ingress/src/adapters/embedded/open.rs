//! The database of the embedded store: made at first need, and opened again after a failure.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_fjall_kit::{Failure, Layout, OpenError};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::ports::StoreError;

/// What is known of the database itself has a keyspace of its own.
const LAYOUT: Layout = Layout {
    what: "a store of the ingress",
    keyspace: "drover-ingress",
    format: "drover-ingress 1",
    open_files_max: 32,
};
/// Key of the format.
const FORMAT_KEY: &[u8] = b"format";
/// Keyspace of the retained messages.
const RETAINED: &str = "retained";
/// Keyspace of the sessions, but for their inboxes.
const SESSIONS: &str = "sessions";
/// Keyspace of the messages in inboxes.
const INBOX: &str = "inbox";
/// Memory for rows read lately, in bytes.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Memory for rows written lately, in bytes, each keyspace.
const WRITE_BUFFER_BYTES: u64 = 4 * 1024 * 1024;

/// The database, open or not.
pub(super) struct Shared {
    directory: PathBuf,
    open: Mutex<Option<Open>>,
}

/// An open database.
#[derive(Clone)]
pub(super) struct Open {
    pub retained: Keyspace,
    pub sessions: Keyspace,
    pub inbox: Keyspace,
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
        let (database, failed) = (LAYOUT.open(directory, CACHE_BYTES)?, LAYOUT.failed(directory));
        let options = || KeyspaceCreateOptions::default().max_memtable_size(WRITE_BUFFER_BYTES);
        let about = database.keyspace(LAYOUT.keyspace, options).map_err(&failed)?;
        let open = Self {
            retained: database.keyspace(RETAINED, options).map_err(&failed)?,
            sessions: database.keyspace(SESSIONS, options).map_err(&failed)?,
            inbox: database.keyspace(INBOX, options).map_err(&failed)?,
            database,
        };
        let found = about.get(FORMAT_KEY).map_err(&failed)?;
        let rows = [&open.retained, &open.sessions, &open.inbox];
        let empty = rows.map(|rows| rows.is_empty().map_err(&failed)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let is_empty = empty.into_iter().all(|is_empty| is_empty);
        if LAYOUT.is_new(directory, found.as_deref(), is_empty)? {
            let mut batch = open.batch();
            batch.insert(&about, FORMAT_KEY, LAYOUT.format);
            batch.commit().map_err(&failed)?;
        }
        Ok(open)
    }

    /// A batch that is on disk once it is committed.
    pub fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncAll))
    }
}

/// What a failure of fjall means to the caller.
pub(super) fn store_error(error: fjall::Error) -> StoreError {
    match Failure::from(error) {
        Failure::Full { reason } | Failure::Unavailable { reason } => StoreError::Unavailable { reason },
        Failure::Corrupt { reason } => StoreError::Corrupt { reason },
    }
}
