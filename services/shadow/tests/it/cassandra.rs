//! The store on a real Cassandra: every promise of the port, several processes at once, a server that is killed or
//! hangs while updates run, and keyspaces that are refused.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::{self, Cassandra as Server, shared};
use drover_host::Cassandra;
use drover_scylla_kit::{Credentials, Migration, Options, Replication, Schema};
use drover_shadow::Scylla;
use drover_shadow::conformance::{self, Factory};
use drover_shadow::ports::Store;
use drover_types::TenantId;
use tokio::task::JoinSet;

use crate::stage::{Stage, until};

/// What requests are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What requests are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// How long the server hangs: longer than requests are given, and than a member may be silent.
const HANG: Duration = Duration::from_secs(12);
/// Devices that are updated side by side.
const DEVICES: usize = 4;
/// Updates of each between two mishaps.
const UPDATES: usize = 15;

/// Options of a keyspace that no other test uses.
fn options(address: &str, request_timeout: Duration) -> Options {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    Options {
        hosts: vec![address.to_owned()],
        keyspace: format!("shadow_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
        replication: Replication::Factor(1),
        request_timeout,
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

/// A store as one process has it.
async fn open(options: &Options) -> Arc<dyn Store> {
    let waiting = |why: &_| eprintln!("waiting: {why}");
    Arc::new(Scylla::open(&Cassandra::new(options.clone()), waiting).await.expect("opens"))
}

/// Keyspaces of one server; the last one made is the one that is opened again.
struct Keyspaces {
    address: String,
    last: Mutex<Option<Options>>,
}

#[async_trait]
impl Factory for Keyspaces {
    async fn empty(&self) -> Arc<dyn Store> {
        let options = options(&self.address, PATIENCE);
        *self.last.lock().expect("not poisoned") = Some(options.clone());
        open(&options).await
    }

    async fn reopened(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        drop(store);
        let options = self.last.lock().expect("not poisoned").clone().expect("one was made");
        open(&options).await
    }

    fn rows_end_by_themselves(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_cassandra_keeps_every_promise() {
    let Some(address) = shared() else { return };
    conformance::suite(&Keyspaces { address, last: Mutex::default() }).await;
}

fn device(number: usize) -> String {
    format!("lamp-{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_and_is_killed_while_updates_run_loses_none_and_leaves_no_gap() {
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    let options = options(&server.address(), IMPATIENCE);
    // Tables take longer than calls do.
    drop(open(&Options { request_timeout: PATIENCE, ..options.clone() }).await);
    let (stage, cassandra) = (Stage::new(), Cassandra::new(options));
    let replica = Arc::new(stage.start("shadow-0", &cassandra));
    replica.ready().await;
    let updates = |round: usize| {
        let mut senders = JoinSet::new();
        for number in 0..DEVICES {
            let replica = Arc::clone(&replica);
            senders.spawn(async move {
                for update in round * UPDATES..(round + 1) * UPDATES {
                    replica.update(&device(number), update).await;
                }
            });
        }
        senders
    };

    let senders = updates(0);
    until(async || stage.records(drover_shadow::DOCUMENTS_TOPIC).await.len() > DEVICES).await;
    server.hang();
    until(async || !replica.health.obstacles().is_empty()).await;
    tokio::time::sleep(HANG).await;
    server.resume();
    senders.join_all().await;

    let (senders, so_far) = (updates(1), stage.records(drover_shadow::DOCUMENTS_TOPIC).await.len());
    until(async || stage.records(drover_shadow::DOCUMENTS_TOPIC).await.len() > so_far + DEVICES).await;
    server.kill();
    until(async || !replica.health.obstacles().is_empty()).await;
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("it starts");
    senders.join_all().await;
    replica.ready().await;

    let versions = stage.check_books(2 * UPDATES).await;
    assert_eq!(versions.len(), DEVICES);
    for number in 0..DEVICES {
        let version = versions[&format!("home/{}", device(number))];
        until(async || replica.version(&device(number)).await == Ok(version)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_share_the_partitions_and_one_goes_on_for_the_other() {
    let Some(address) = shared() else { return };
    let (stage, options) = (Stage::new(), options(&address, PATIENCE));
    let process = || Cassandra::new(options.clone());
    let (one, two) = (stage.start("shadow-0", &process()), stage.start("shadow-1", &process()));
    tokio::join!(one.ready(), two.ready());
    for update in 0..UPDATES {
        for number in 0..DEVICES {
            let (asked, other) = if (update + number) % 2 == 0 { (&one, &two) } else { (&two, &one) };
            assert_eq!(asked.update(&device(number), update).await, update as u64 + 1);
            assert_eq!(other.version(&device(number)).await, Ok(update as u64 + 1), "what was answered is read");
        }
    }
    one.abort();
    for update in UPDATES..2 * UPDATES {
        for number in 0..DEVICES {
            assert_eq!(two.update(&device(number), update).await, update as u64 + 1);
        }
    }
    let one = stage.start("shadow-0", &process());
    one.ready().await;
    for (number, asked) in (0..DEVICES).map(|number| (number, if number % 2 == 0 { &one } else { &two })) {
        until(async || asked.version(&device(number)).await == Ok(2 * UPDATES as u64)).await;
    }
    stage.check_books(2 * UPDATES).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_whose_documents_are_older_than_its_list_of_open_deltas_is_filled_again() {
    let Some(address) = shared() else { return };
    const STEP: Migration = Migration {
        number: 1,
        name: "no list",
        statements: &["TRUNCATE shadow_open_deltas", "TRUNCATE shadow_view_next"],
    };
    /// Leaves what a Drover leaves that keeps no such list.
    const FORMER: Schema = Schema { name: "former", migrations: &[STEP] };
    let (stage, options) = (Stage::new(), options(&address, PATIENCE));
    let replica = stage.start("shadow-0", &Cassandra::new(options.clone()));
    replica.ready().await;
    replica.update("lamp", 1).await;
    until(async || replica.open_deltas().await == Ok(vec!["lamp".to_owned()])).await;
    replica.stop().await;
    Cassandra::new(options.clone()).open_when_there(&FORMER, |_| {}).await.expect("opens");
    let store = open(&options).await;
    assert_eq!(store.open_deltas(&TenantId::new("home").expect("a tenant"), None, 9).await, Ok(Vec::new()));
    let replica = stage.start("shadow-0", &Cassandra::new(options));
    until(async || replica.open_deltas().await == Ok(vec!["lamp".to_owned()])).await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_of_a_newer_version_is_refused_in_one_line() {
    let Some(address) = shared() else { return };
    const STEP: Migration = Migration {
        number: 1,
        name: "of the future",
        statements: &["CREATE TABLE IF NOT EXISTS shadow_future (name text PRIMARY KEY)"],
    };
    const STEPS: [Migration; 4] =
        [STEP, Migration { number: 2, ..STEP }, Migration { number: 3, ..STEP }, Migration { number: 4, ..STEP }];
    const NEWER: Schema = Schema { name: "shadow", migrations: &STEPS };
    let options = options(&address, PATIENCE);
    Cassandra::new(options.clone()).open_when_there(&NEWER, |_| {}).await.expect("opens");
    let line = Stage::new().start("shadow-0", &Cassandra::new(options)).refused().await;
    let expected = "holds version 4 of the shadow schema, this drover knows up to 3";
    assert!(line.starts_with("shadow.store.kind = cassandra: ") && line.contains(expected), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_one_clear_line() {
    let Some(server) = Server::start(cassandra::Options { passwords: true, ..cassandra::Options::default() }) else {
        return;
    };
    let credentials = Some(Credentials { username: "cassandra".into(), password: "mistaken".into() });
    let options = Options { credentials, ..options(&server.address(), PATIENCE) };
    let line = Stage::new().start("shadow-0", &Cassandra::new(options)).refused().await;
    assert!(line.contains(r#"does not accept cassandra.username "cassandra" with its password"#), "{line}");
    assert!(!line.contains('\n') && !line.contains("mistaken"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_of_another_log_is_told_of_and_not_built_upon() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    open(&options).await.put(0, 0, 7, Vec::new()).await.expect("put");
    let stage = Stage::new();
    let replica = stage.start("shadow-0", &Cassandra::new(options));
    let told = async || replica.health.obstacles().iter().any(|(_, why)| why.contains("is the view of another log"));
    until(told).await;
    assert!(stage.records(drover_shadow::DOCUMENTS_TOPIC).await.is_empty());
}
