//! Who migrates: a row that one process holds, and that goes away by itself when that process does.

use std::time::Duration;

use scylla::client::session::Session;
use tokio::time::Instant;

use crate::migrate::SCHEMA_TIMEOUT;
use crate::store::applied;
use crate::{Failure, OpenError};

/// Seconds after which a holder that has not renewed has none: longer than one statement may take, with nodes agreeing
/// before and after it.
const TTL_SECONDS: u64 = 3 * SCHEMA_TIMEOUT.as_secs() + 10;
/// Pause before the lease is asked for again.
const RETRY: Duration = Duration::from_millis(300);
/// How long others may keep it before the caller hears of it, and may ask again.
const PATIENCE: Duration = Duration::from_secs(120);

/// The right to migrate one schema of one keyspace.
pub struct Lease<'a> {
    session: &'a Session,
    keyspace: &'a str,
    schema: &'static str,
    holder: String,
}

impl<'a> Lease<'a> {
    /// Waits until it is free, and takes it.
    pub async fn take(session: &'a Session, keyspace: &'a str, schema: &'static str) -> Result<Self, OpenError> {
        let lease = Self { session, keyspace, schema, holder: session.session_id().to_string() };
        let began = Instant::now();
        // Ours already: an answer to an earlier request was lost.
        while !(lease.is_taken_if_held_by(None).await? || lease.is_taken_if_held_by(Some(&lease.holder)).await?) {
            if began.elapsed() > PATIENCE {
                let seconds = began.elapsed().as_secs();
                return Err(OpenError::Busy { keyspace: keyspace.to_owned(), schema, seconds });
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(lease)
    }

    /// Keeps it for another while. An error: somebody else has it, and goes on with the work.
    pub async fn renew(&self) -> Result<(), OpenError> {
        if self.is_taken_if_held_by(Some(&self.holder)).await? {
            return Ok(());
        }
        Err(OpenError::Busy { keyspace: self.keyspace.to_owned(), schema: self.schema, seconds: 0 })
    }

    /// Gives it back; failing that, it ends by itself.
    pub async fn release(self) {
        let cql = "DELETE FROM drover_migration_leases WHERE schema_name = ? IF holder = ?";
        if let Err(error) = self.session.query_unpaged(cql, (self.schema, &self.holder)).await {
            tracing::debug!(%error, schema = self.schema, "the migration lease was not given back, it ends by itself");
        }
    }

    async fn is_taken_if_held_by(&self, holder: Option<&str>) -> Result<bool, OpenError> {
        let cql = format!(
            "UPDATE drover_migration_leases USING TTL {TTL_SECONDS} SET holder = ? WHERE schema_name = ? IF holder = ?"
        );
        let answer = self.session.query_unpaged(cql, (&self.holder, self.schema, holder)).await;
        let taken = answer.map_err(Failure::from).and_then(applied);
        taken.map_err(OpenError::while_doing(format!("taking the {} schema's migration lease", self.schema)))
    }
}
