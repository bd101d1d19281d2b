//! The embedded store of one node: one fjall database in a directory of its own.
//!
//! Adapter layer. It is made when something is kept for the first time: who retains nothing, and has no session that
//! outlives its connection, pays nothing. After a failed write the database is dropped and opened again by the next call,
//! which cuts what was half-written.

mod keys;
mod open;
mod retained;
mod sessions;

use std::path::Path;
use std::sync::Arc;

use drover_fjall_kit::OpenError;

use crate::ports::RetainedBounds;
use open::Shared;
pub use retained::Retained;
pub use sessions::Sessions;

/// Opens the store in `directory`; one that is not there is made when it is needed.
pub fn open(directory: &Path, bounds: RetainedBounds) -> Result<(Retained, Sessions), OpenError> {
    let shared = Arc::new(Shared::new(directory)?);
    Ok((Retained::new(shared.clone(), bounds), Sessions::new(shared)))
}
