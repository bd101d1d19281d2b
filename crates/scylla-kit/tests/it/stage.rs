//! Servers and keyspaces to test on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use drover_backends::cassandra::shared;
use drover_scylla_kit::{Cassandra, Migration, Options, Replication, Schema};

/// Two tables, in two steps.
pub const SCHEMA: Schema = Schema { name: "test", migrations: &[FIRST, SECOND] };
pub const FIRST: Migration = Migration {
    number: 1,
    name: "rows",
    statements: &[
        "CREATE TABLE IF NOT EXISTS test_rows (part text, name text, value bigint, PRIMARY KEY ((part), name))",
        "CREATE TABLE IF NOT EXISTS test_owners (name text PRIMARY KEY, owner text)",
    ],
};
pub const SECOND: Migration = Migration {
    number: 2,
    name: "notes",
    statements: &["CREATE TABLE IF NOT EXISTS test_notes (name text PRIMARY KEY, note text)"],
};

/// Options of a keyspace that no other test uses.
pub fn options(address: &str) -> Options {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    Options {
        hosts: vec![address.to_owned()],
        keyspace: format!("kit_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
        replication: Replication::Factor(1),
        request_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

/// A keyspace of its own on the shared server.
pub fn keyspace() -> Option<Options> {
    shared().map(|address| options(&address))
}

/// A process's handle on `options`.
pub fn process(options: &Options) -> Cassandra {
    Cassandra::new(options.clone())
}
