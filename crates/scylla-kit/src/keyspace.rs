//! Makes the keyspace, by what the server is.

use scylla::client::session::Session;
use scylla::statement::unprepared::Statement;

use crate::migrate::SCHEMA_TIMEOUT;
use crate::store::first_row;
use crate::{Failure, OpenError, Options, copies};

/// Whose protocol it is that both speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Cassandra,
    Scylla,
}

/// Makes the keyspace if there is none, where there are nodes for all copies: their number cannot be mended by another
/// configuration later. One that is there may have been made by somebody who chose its replication: it stays as it is.
pub async fn ensure(session: &Session, options: &Options) -> Result<(), OpenError> {
    let keyspace = options.keyspace.as_str();
    let doing = || OpenError::while_doing(format!("making keyspace {keyspace}"));
    if exists(session, keyspace).await.map_err(doing())? {
        return Ok(());
    }
    copies::check(session, options)?;
    let server = server(session).await.map_err(doing())?;
    let mut refused = Ok(());
    for text in statements(keyspace, &options.replication.cql(), server) {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
        match session.query_unpaged(statement, ()).await.map_err(Failure::from) {
            Ok(_) => {
                tracing::info!(keyspace, ?server, "keyspace made");
                return Ok(());
            }
            Err(failure @ Failure::Refused { .. }) => refused = Err(failure),
            Err(failure) => return Err(doing()(failure)),
        }
    }
    refused.map_err(doing())
}

/// What to try, in this order, until the server takes one.
///
/// Scylla places rows by tablets unless told otherwise, and some of its versions then know no compare-and-set; older
/// ones, and those whose operator insists on tablets, refuse the word. Cassandra does not know it.
fn statements(keyspace: &str, replication: &str, server: Server) -> Vec<String> {
    let plain = format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}");
    match server {
        Server::Cassandra => vec![plain],
        Server::Scylla => vec![format!("{plain} AND tablets = {{'enabled': false}}"), plain],
    }
}

/// Whether there is a keyspace of this name.
pub async fn exists(session: &Session, keyspace: &str) -> Result<bool, Failure> {
    let cql = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let found: Option<(String,)> = first_row(session.query_unpaged(cql, (keyspace,)).await?)?;
    Ok(found.is_some())
}

/// Tells them apart by a table that only Scylla has.
async fn server(session: &Session) -> Result<Server, Failure> {
    match session.query_unpaged("SELECT key FROM system.scylla_local LIMIT 1", ()).await.map_err(Failure::from) {
        Ok(_) => Ok(Server::Scylla),
        Err(Failure::Refused { .. }) => Ok(Server::Cassandra),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablets_are_mentioned_to_scylla_only_and_may_be_left_out() {
        assert_eq!(statements("k", "{}", Server::Cassandra), ["CREATE KEYSPACE IF NOT EXISTS k WITH replication = {}"]);
        let scylla = statements("k", "{}", Server::Scylla);
        assert_eq!(scylla[0], "CREATE KEYSPACE IF NOT EXISTS k WITH replication = {} AND tablets = {'enabled': false}");
        assert_eq!(scylla[1..], statements("k", "{}", Server::Cassandra));
    }
}
