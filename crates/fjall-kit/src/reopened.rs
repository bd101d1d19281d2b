//! A database that is opened again when it is needed after a failure: one that could not write takes no more writes,
//! and opening it cuts what was half-written.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use fjall::OwnedWriteBatch;

use crate::{Failure, OpenError};

/// How databases in a folder are opened.
type Open<T> = dyn Fn(&Path) -> Result<T, OpenError> + Send + Sync;

/// The database of a store, open or not; `T` is it with its keyspaces.
pub struct Reopened<T> {
    what: &'static str,
    directory: PathBuf,
    open: Box<Open<T>>,
    /// `None` after a failed write, until the next call opens it again.
    current: RwLock<Option<Arc<T>>>,
}

impl<T> Reopened<T> {
    /// The database in `directory`, opened by `open`, now and after a failure; `what` it is in the log.
    pub fn new(
        what: &'static str,
        directory: &Path,
        open: impl Fn(&Path) -> Result<T, OpenError> + Send + Sync + 'static,
    ) -> Result<Self, OpenError> {
        let current = RwLock::new(Some(Arc::new(open(directory)?)));
        Ok(Self { what, directory: directory.to_owned(), open: Box::new(open), current })
    }

    /// The open database; opens it again after a failure, which is `Unavailable` if it does not open.
    pub fn opened(&self) -> Result<Arc<T>, Failure> {
        if let Some(open) = self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(Arc::clone(open));
        }
        let mut slot = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.as_ref() {
            return Ok(Arc::clone(open));
        }
        let open = (self.open)(&self.directory).map_err(|e| Failure::Unavailable { reason: e.to_string() })?;
        tracing::info!(directory = %self.directory.display(), "{} was opened again", self.what);
        Ok(Arc::clone(slot.insert(Arc::new(open))))
    }

    /// Commits a batch of `open`; a database that failed is given up.
    pub fn commit(&self, open: &Arc<T>, batch: OwnedWriteBatch) -> Result<(), Failure> {
        batch.commit().map_err(|error| {
            tracing::error!(%error, directory = %self.directory.display(), "{} failed to write", self.what);
            self.give_up(open);
            error.into()
        })
    }

    /// Lets a database go that failed.
    pub fn give_up(&self, open: &Arc<T>) {
        let mut slot = self.current.write().unwrap_or_else(PoisonError::into_inner);
        slot.take_if(|current| Arc::ptr_eq(current, open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::LAYOUT;

    #[test]
    fn a_database_that_was_given_up_is_opened_again_by_the_next_call() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Reopened::new(LAYOUT.what, directory.path(), |at| LAYOUT.open(at, 1 << 16)).expect("opens");
        let first = database.opened().expect("it is open");
        assert!(Arc::ptr_eq(&first, &database.opened().expect("it is open")));
        database.give_up(&first);
        assert!(matches!(database.opened(), Err(Failure::Unavailable { .. })), "somebody still has it");
        drop(first);
        let again = database.opened().expect("opened again");
        assert!(Arc::ptr_eq(&again, &database.opened().expect("it is open")));
    }
}
