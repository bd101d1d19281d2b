//! What the Cassandra adapters of all services stand on: one session a process, versioned schemas, prepared requests
//! that say how they may be repeated, and errors that say whether they may pass.
//!
//! The only crate that names the driver. It knows no table but its own two (`drover_migrations`,
//! `drover_migration_leases`); a service brings its [`Schema`] and its statements. CQL here and there is what Cassandra
//! 4 and 5 and Scylla have in common. `docs/adr/0007-cassandra.md` has the choices.
//!
//! ```no_run
//! use drover_scylla_kit::{Cassandra, Conditional, Failure, Migration, OpenError, Options, Read, Schema, Store, Write};
//!
//! /// Grows at its end only.
//! const SCHEMA: Schema = Schema {
//!     name: "lamps",
//!     migrations: &[Migration {
//!         number: 1,
//!         name: "lamps",
//!         statements: &["CREATE TABLE IF NOT EXISTS lamps_lamps (house text, name text, owner text, on_ boolean, \
//!             PRIMARY KEY ((house), name))"],
//!     }],
//! };
//!
//! struct Lamps {
//!     store: Store,
//!     list: Read,
//!     switch: Write,
//!     claim: Conditional,
//! }
//!
//! impl Lamps {
//!     async fn open(cassandra: &Cassandra) -> Result<Self, OpenError> {
//!         cassandra.open_and_prepare(&SCHEMA, Self::prepare, |why| eprintln!("waiting: {why}")).await
//!     }
//!
//!     async fn prepare(store: Store) -> Result<Self, Failure> {
//!         Ok(Self {
//!             list: store.prepare_read("SELECT name, on_ FROM lamps_lamps WHERE house = ? LIMIT ?").await?,
//!             switch: store.prepare_write("UPDATE lamps_lamps SET on_ = ? WHERE house = ? AND name = ?").await?,
//!             claim: store
//!                 .prepare_conditional("UPDATE lamps_lamps SET owner = ? WHERE house = ? AND name = ? IF owner = ?")
//!                 .await?,
//!             store,
//!         })
//!     }
//!
//!     async fn list(&self, house: &str) -> Result<Vec<(String, Option<bool>)>, Failure> {
//!         self.store.rows(&self.list, (house, 100)).await
//!     }
//!
//!     /// Of two switches the later `version` stays, whichever arrives last.
//!     async fn switch(&self, house: &str, name: &str, on: bool, version: i64) -> Result<(), Failure> {
//!         self.store.write_at(version, &self.switch, (on, house, name)).await
//!     }
//!
//!     /// Whether it is ours now.
//!     async fn claim(&self, house: &str, name: &str, owner: &str) -> Result<bool, Failure> {
//!         self.store.try_write(&self.claim, (owner, house, name, None::<&str>)).await
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cassandra = Cassandra::new(Options { hosts: vec!["10.0.0.1".into()], ..Options::default() });
//! let lamps = Lamps::open(&cassandra).await?;
//! assert!(lamps.list("home").await?.is_empty());
//! # Ok(())
//! # }
//! ```

mod cassandra;
mod copies;
mod error;
mod keyspace;
mod lease;
mod migrate;
mod options;
mod schema;
mod settle;
mod store;
#[cfg(feature = "cassandra-tls")]
mod tls;

pub use cassandra::Cassandra;
pub use error::{Failure, OpenError};
pub use options::{Consistency, Credentials, Options, Replication, SerialConsistency, Tls};
pub use schema::{Migration, Schema};
/// What a row is read into (tuples are) and what values are written from (tuples are).
pub use scylla::{deserialize::row::DeserializeRow, serialize::row::SerializeRow};
pub use store::{Batch, Conditional, Read, Store, Write};
