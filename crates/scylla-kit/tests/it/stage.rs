//! Servers and keyspaces to test on.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
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

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn lines(&self, with: &str) -> Vec<String> {
        let log = String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned();
        log.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

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
