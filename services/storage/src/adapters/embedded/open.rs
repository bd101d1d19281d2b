//! The database of the embedded store: opened, told from somebody else's, and opened again after a failure.

use std::path::Path;

use drover_fjall_kit::{Failure, Layout, OpenError, Reopened};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

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

/// An open database.
pub struct Open {
    pub points: Keyspace,
    pub newest: Keyspace,
    pub messages: Keyspace,
    about: Keyspace,
    pub database: Database,
}

/// The database in `directory`, which is made if there is none.
pub fn database(directory: &Path, limits: EmbeddedLimits) -> Result<Reopened<Open>, OpenError> {
    Reopened::new(LAYOUT.what, directory, move |directory| Open::at(directory, limits))
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
    Failure::from(error).into()
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full { reason } => StoreError::Full { reason },
            Failure::Unavailable { reason } => StoreError::Unavailable { reason },
            Failure::Corrupt { reason } => StoreError::Corrupt { reason },
        }
    }
}
