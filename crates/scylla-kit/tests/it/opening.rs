//! Opening a keyspace: by many at once, of another version, with wrong words, before the server is there.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use drover_backends::cassandra::{self, Cassandra as Server};
use drover_scylla_kit::{Credentials, Migration, OpenError, Options, Replication, Schema, Store};
use scylla::client::session_builder::SessionBuilder;
use tokio::task::JoinSet;

use crate::stage::{FIRST, Log, SCHEMA, keyspace, options, process};

/// Starters at once.
const STARTERS: usize = 4;

/// Opens it; a loaded machine may need a second try.
async fn opened(options: &Options, schema: &Schema) -> Result<Store, OpenError> {
    process(options).open_when_there(schema, |why| eprintln!("waiting: {why}")).await
}

async fn refused(options: &Options, schema: &Schema) -> OpenError {
    let outcome =
        tokio::time::timeout(Duration::from_secs(120), process(options).open_when_there(schema, |_| {})).await;
    outcome.expect("an error that does not pass is not waited for").map(drop).expect_err("refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_starters_each_finds_the_schema_in_place() {
    let Some(options) = keyspace() else { return };
    let mut starters = JoinSet::new();
    for _ in 0..STARTERS {
        let options = options.clone();
        starters.spawn(async move { process(&options).open_when_there(&SCHEMA, |_| {}).await });
    }
    for store in starters.join_all().await {
        let store = store.expect("opens");
        for table in ["test_rows", "test_owners", "test_notes"] {
            store.prepare_read(&format!("SELECT name FROM {table} LIMIT 1")).await.expect("the table is there");
        }
    }
}

#[tokio::test]
async fn who_only_looks_is_told_whether_the_keyspace_is_there_and_makes_nothing() {
    let Some(options) = keyspace() else { return };
    for _ in 0..2 {
        assert_eq!(process(&options).look().await, Ok(false));
    }
    opened(&options, &SCHEMA).await.expect("opens");
    assert_eq!(process(&options).look().await, Ok(true));
}

#[tokio::test]
async fn an_older_keyspace_is_brought_up_and_another_service_has_its_own_version() {
    let Some(options) = keyspace() else { return };
    let older = Schema { name: SCHEMA.name, migrations: &[FIRST] };
    opened(&options, &older).await.expect("opens");
    let store = opened(&options, &SCHEMA).await.expect("opens");
    store.prepare_read("SELECT note FROM test_notes LIMIT 1").await.expect("the second step was made");
    const LAMPS: Migration = Migration {
        number: 1,
        name: "lamps",
        statements: &["CREATE TABLE IF NOT EXISTS lamps_lamps (name text PRIMARY KEY)"],
    };
    let other = Schema { name: "lamps", migrations: &[LAMPS] };
    opened(&options, &other).await.expect("another service starts from its own first step");
}

#[tokio::test]
async fn a_newer_keyspace_is_refused_and_left_as_it_is() {
    let Some(options) = keyspace() else { return };
    opened(&options, &SCHEMA).await.expect("opens");
    let older = Schema { name: SCHEMA.name, migrations: &[FIRST] };
    let error = refused(&options, &older).await;
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    let line = error.to_string();
    assert!(line.contains("holds version 2 of the test schema, this drover knows up to 1") && !line.contains('\n'));
    opened(&options, &SCHEMA).await.expect("still fits its own version");
}

#[tokio::test]
async fn a_step_that_was_applied_with_another_text_is_refused() {
    let Some(options) = keyspace() else { return };
    const OTHER: Migration =
        Migration { statements: &["CREATE TABLE IF NOT EXISTS test_rows (name text PRIMARY KEY)"], ..FIRST };
    opened(&options, &Schema { name: "test", migrations: &[OTHER] }).await.expect("opens");
    let error = refused(&options, &SCHEMA).await;
    assert!(matches!(error, OpenError::Changed { number: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_step_that_was_cut_off_is_done_again() {
    let Some(options) = keyspace() else { return };
    const CUT_OFF: Migration = Migration { statements: &[FIRST.statements[0], "CREATE TABLE nonsense"], ..FIRST };
    let error = refused(&options, &Schema { name: "test", migrations: &[CUT_OFF] }).await;
    assert!(error.to_string().starts_with("test migration 1 (rows): cassandra refuses the request: "), "{error}");
    opened(&options, &SCHEMA).await.expect("the first half is in nobody's way");
}

#[tokio::test]
async fn a_datacenter_that_is_not_there_is_named_with_those_that_are() {
    let Some(options) = keyspace() else { return };
    let elsewhere = Options { local_datacenter: Some("mars".into()), ..options.clone() };
    let error = refused(&elsewhere, &SCHEMA).await.to_string();
    assert_eq!(error, r#"cassandra.local_datacenter is "mars", the cluster has datacenter1"#);
    let here = Options { local_datacenter: Some("datacenter1".into()), ..options };
    opened(&here, &SCHEMA).await.expect("opens");
}

#[tokio::test]
async fn more_copies_than_nodes_are_refused_before_the_keyspace_is_made() {
    let Some(options) = keyspace() else { return };
    let three = Options { replication: Replication::Factor(3), ..options.clone() };
    let named = Options { local_datacenter: Some("datacenter1".into()), ..three.clone() };
    for options in [three, named] {
        let error = refused(&options, &SCHEMA).await.to_string();
        assert_eq!(error, "cassandra.replication is 3, the cluster has 1 node");
    }
    let each = BTreeMap::from([("datacenter1".to_owned(), 1), ("mars".to_owned(), 2)]);
    let elsewhere = Options { replication: Replication::PerDatacenter(each), ..options.clone() };
    let error = refused(&elsewhere, &SCHEMA).await.to_string();
    assert_eq!(error, r#"cassandra.replication is 2, datacenter "mars" has 0 nodes"#);
    assert_eq!(process(&options).look().await, Ok(false));
    opened(&options, &SCHEMA).await.expect("the configuration is mended, and that is all it takes");
}

#[tokio::test]
async fn a_keyspace_that_is_there_in_more_copies_than_nodes_is_told_once() {
    let Some(options) = keyspace() else { return };
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let session = SessionBuilder::new().known_node(&options.hosts[0]).build().await.expect("a session");
    let replication = "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}";
    let made = format!("CREATE KEYSPACE {} WITH replication = {replication}", options.keyspace);
    session.query_unpaged(made, ()).await.expect("made");
    let cassandra = process(&options);
    for _ in 0..2 {
        let error = cassandra.open(&SCHEMA).await.map(drop).expect_err("one node is no majority of three");
        assert!(error.may_pass(), "{error}");
    }
    let lines = log.lines("more copies");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let named = format!("keyspace={:?}", options.keyspace);
    for part in ["WARN", named.as_str(), "replication is 3, the cluster has 1 node"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[tokio::test]
async fn wrong_passwords_are_one_clear_line_and_right_ones_work() {
    let Some(server) = Server::start(cassandra::Options { passwords: true, ..cassandra::Options::default() }) else {
        return;
    };
    let anonymous = options(&server.address());
    let credentials = |password: &str| Some(Credentials { username: "cassandra".into(), password: password.into() });

    let error = refused(&anonymous, &SCHEMA).await;
    assert!(matches!(error, OpenError::NoCredentials { .. }), "{error}");
    let error = refused(&Options { credentials: credentials("wrong"), ..anonymous.clone() }, &SCHEMA).await;
    assert!(matches!(error, OpenError::Credentials { .. }), "{error}");
    let line = error.to_string();
    assert!(line.contains(r#"does not accept cassandra.username "cassandra""#) && !line.contains('\n'), "{line}");
    assert!(!line.contains("wrong"), "the password is in {line}");

    let right = Options { credentials: credentials("cassandra"), ..anonymous };
    process(&right).open_when_there(&SCHEMA, |_| {}).await.expect("opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_later_is_waited_for_and_told_of() {
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    server.kill();
    let (options, told) = (options(&server.address()), Mutex::new(Vec::new()));
    let cassandra = process(&options);
    let opening = cassandra.open_when_there(&SCHEMA, |why| told.lock().expect("not poisoned").push(why.clone()));
    let starting = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    let (opened, _server) = tokio::join!(opening, starting);
    opened.expect("opens");
    let told = told.lock().expect("not poisoned");
    assert!(matches!(told.first(), Some(OpenError::Unreachable { .. })), "{told:?}");
}
