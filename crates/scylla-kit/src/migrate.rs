//! Brings a schema up to date, one process at a time.
//!
//! A step is recorded when all its statements were taken and all nodes agree on the schema. Whoever dies before that
//! leaves statements that the next one repeats: nothing is ever half-recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::statement::unprepared::Statement;

use crate::lease::Lease;
use crate::store::{all_rows, first_row};
use crate::{Failure, Migration, OpenError, Options, Schema};

/// How long one change of the schema may take, all nodes included.
pub const SCHEMA_TIMEOUT: Duration = Duration::from_secs(30);

/// The tables of this module. Fixed ids: two nodes that are asked at once to make a table would otherwise make two.
const OWN_TABLES: [(&str, &str); 2] = [
    (
        "drover_migrations",
        "CREATE TABLE IF NOT EXISTS drover_migrations (schema_name text, number int, name text, checksum blob, \
         PRIMARY KEY (schema_name, number)) WITH ID = '6f1c1de0-5b0a-4d5e-9d5f-5d1f6b1f0001'",
    ),
    (
        "drover_migration_leases",
        "CREATE TABLE IF NOT EXISTS drover_migration_leases (schema_name text PRIMARY KEY, holder text) \
         WITH ID = '6f1c1de0-5b0a-4d5e-9d5f-5d1f6b1f0002'",
    ),
];

/// Steps that were applied: number, name, checksum.
type Applied = BTreeMap<u32, (String, Vec<u8>)>;

/// Applies what is missing. Refuses a keyspace that is ahead, or that was migrated by other texts.
pub async fn up(session: &Session, options: &Options, schema: &Schema) -> Result<(), OpenError> {
    let reading = || OpenError::while_doing(format!("reading the {} schema's version", schema.name));
    make_own_tables(session, &options.keyspace).await?;
    let applied = applied(session, schema).await.map_err(reading())?;
    if missing(&applied, options, schema)?.next().is_none() {
        return Ok(());
    }
    let lease = Lease::take(session, &options.keyspace, schema.name).await?;
    let outcome = apply_missing(session, options, schema, &lease).await;
    lease.release().await;
    outcome
}

async fn apply_missing(
    session: &Session,
    options: &Options,
    schema: &Schema,
    lease: &Lease<'_>,
) -> Result<(), OpenError> {
    let reading = OpenError::while_doing(format!("reading the {} schema's version", schema.name));
    // Whoever had the lease before has done some of it.
    let applied = applied(session, schema).await.map_err(reading)?;
    for migration in missing(&applied, options, schema)? {
        let Migration { number, name, .. } = migration;
        let doing = || OpenError::while_doing(format!("{} migration {number} ({name})", schema.name));
        for statement in migration.statements {
            lease.renew().await?;
            change(session, statement).await.map_err(doing())?;
        }
        record(session, schema, migration).await.map_err(doing())?;
        tracing::info!(keyspace = options.keyspace, schema = schema.name, number, name, "migrated");
    }
    Ok(())
}

/// The steps that are not applied, oldest first.
fn missing<'a>(
    applied: &Applied,
    options: &Options,
    schema: &'a Schema,
) -> Result<impl Iterator<Item = &'a Migration> + use<'a>, OpenError> {
    let keyspace = || options.keyspace.clone();
    let (found, known) = (applied.keys().next_back().copied().unwrap_or(0), schema.version());
    if found > known {
        return Err(OpenError::Newer { keyspace: keyspace(), schema: schema.name, found, known });
    }
    for migration in schema.migrations {
        let Some((name, checksum)) = applied.get(&migration.number) else { continue };
        if *checksum != migration.checksum() {
            let (number, name) = (migration.number, name.clone());
            return Err(OpenError::Changed { keyspace: keyspace(), schema: schema.name, number, name });
        }
    }
    Ok(schema.migrations.iter().filter(move |migration| migration.number > found))
}

async fn make_own_tables(session: &Session, keyspace: &str) -> Result<(), OpenError> {
    for (table, cql) in OWN_TABLES {
        let doing = || OpenError::while_doing(format!("making table {keyspace}.{table}"));
        let find = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
        let found = session.query_unpaged(find, (keyspace, table)).await.map_err(Failure::from);
        let found: Option<(String,)> = found.and_then(first_row).map_err(doing())?;
        if found.is_none() {
            change(session, cql).await.map_err(doing())?;
        }
    }
    Ok(())
}

/// Changes the schema, with all nodes agreeing before and (the driver sees to that) after.
async fn change(session: &Session, cql: &str) -> Result<(), Failure> {
    session.await_schema_agreement().await?;
    let mut statement = Statement::new(cql);
    statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
    session.query_unpaged(statement, ()).await?;
    Ok(())
}

async fn applied(session: &Session, schema: &Schema) -> Result<Applied, Failure> {
    let cql = "SELECT number, name, checksum FROM drover_migrations WHERE schema_name = ?";
    let rows: Vec<(i32, String, Vec<u8>)> = all_rows(session.query_unpaged(cql, (schema.name,)).await?)?;
    let number = |number: i32| u32::try_from(number).map_err(|_| Failure::unreadable(format!("migration {number}")));
    rows.into_iter().map(|(n, name, checksum)| Ok((number(n)?, (name, checksum)))).collect()
}

async fn record(session: &Session, schema: &Schema, migration: &Migration) -> Result<(), Failure> {
    let cql = "INSERT INTO drover_migrations (schema_name, number, name, checksum) VALUES (?, ?, ?, ?)";
    let number = i32::try_from(migration.number).map_err(Failure::unreadable)?;
    session.query_unpaged(cql, (schema.name, number, migration.name, migration.checksum())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        name: "test",
        migrations: &[
            Migration { number: 1, name: "one", statements: &["a"] },
            Migration { number: 2, name: "two", statements: &["b"] },
        ],
    };

    fn after(numbers: &[u32]) -> Result<Vec<u32>, OpenError> {
        let checksum = |number: u32| {
            let known = SCHEMA.migrations.iter().find(|migration| migration.number == number);
            known.map_or_else(Vec::new, Migration::checksum)
        };
        let applied = numbers.iter().map(|number| (*number, ("x".to_owned(), checksum(*number)))).collect();
        Ok(missing(&applied, &Options::default(), &SCHEMA)?.map(|migration| migration.number).collect())
    }

    #[test]
    fn what_was_not_applied_is_applied_in_order() {
        assert_eq!(after(&[]), Ok(vec![1, 2]));
        assert_eq!(after(&[1]), Ok(vec![2]));
        assert_eq!(after(&[1, 2]), Ok(vec![]));
    }

    #[test]
    fn a_keyspace_ahead_or_of_another_text_is_refused_in_one_line() {
        let newer = after(&[1, 2, 3]).expect_err("newer").to_string();
        assert!(newer.starts_with("keyspace drover holds version 3 of the test schema, this drover knows up to 2"));
        let other = BTreeMap::from([(1, ("one".to_owned(), vec![1]))]);
        let changed = missing(&other, &Options::default(), &SCHEMA).map(Iterator::count).expect_err("changed");
        assert!(changed.to_string().contains("another text of test migration 1 (one)"), "{changed}");
        assert!(!changed.may_pass());
    }
}
