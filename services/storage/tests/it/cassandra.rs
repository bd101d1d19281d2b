//! The store on a real Cassandra: every promise of the port.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::{self, Cassandra as Server};
use drover_scylla_kit::{Cassandra, Options, Replication};
use drover_storage::Scylla;
use drover_storage::conformance::{self, Factory, device, entry};
use drover_storage::ports::{Limit, SeriesStore, StoreError};
use drover_storage::series::Place;

/// What requests are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What requests are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// Keyspaces of one server; the last one made is the one that is opened again.
struct Keyspaces {
    address: String,
    made: AtomicU32,
}

fn options(address: &str, keyspace: String, request_timeout: Duration) -> Options {
    Options {
        hosts: vec![address.to_owned()],
        keyspace,
        replication: Replication::Factor(1),
        request_timeout,
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

async fn open(options: Options, retention_ms: Option<u64>) -> Scylla {
    let waiting = |why: &_| eprintln!("waiting: {why}");
    Scylla::open(&Cassandra::new(options), retention_ms, waiting).await.expect("opens")
}

impl Keyspaces {
    async fn open_last(&self) -> Arc<dyn SeriesStore> {
        let keyspace = format!("storage_{}", self.made.load(Ordering::Relaxed));
        Arc::new(open(options(&self.address, keyspace, PATIENCE), None).await)
    }
}

#[async_trait]
impl Factory for Keyspaces {
    async fn empty(&self) -> Arc<dyn SeriesStore> {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.open_last().await
    }

    async fn reopened(&self, store: Arc<dyn SeriesStore>) -> Arc<dyn SeriesStore> {
        drop(store);
        self.open_last().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_cassandra_keeps_every_promise_and_outlives_a_killed_server() {
    let Some(server) = Server::start(cassandra::Options::default()) else { return };
    let address = server.address();
    conformance::suite(&Keyspaces { address: address.clone(), made: AtomicU32::new(0) }).await;
    rows_with_a_retention_go_by_themselves(&address).await;
    what_was_stored_is_there_after_a_kill(server).await;
}

async fn rows_with_a_retention_go_by_themselves(address: &str) {
    let store = open(options(address, "storage_retention".to_owned(), PATIENCE), Some(1_500)).await;
    store.store(Arc::new(vec![entry("d", 1, 1, "1")])).await.expect("writable");
    let limit = Limit { rows: 10, bytes: usize::MAX };
    loop {
        let messages = store.messages(&device("d"), 0, Place::last_of(9), limit).await.expect("readable").rows;
        let newest = store.newest(&device("d"), "", limit).await.expect("readable").rows;
        if messages.is_empty() && newest.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn what_was_stored_is_there_after_a_kill(server: Server) {
    let store = open(options(&server.address(), "storage_killed".to_owned(), IMPATIENCE), None).await;
    let (before, after) = (entry("d", 1, 1, "1"), entry("d", 2, 2, "2"));
    store.store(Arc::new(vec![before.clone()])).await.expect("writable");
    let server = Mutex::new(server);
    server.lock().expect("nobody panics").kill();
    let refused = store.store(Arc::new(vec![after.clone()])).await.expect_err("nobody is there");
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    let server = tokio::task::spawn_blocking(move || {
        server.lock().expect("nobody panics").restart();
        server
    });
    let _server = server.await.expect("it starts");
    while store.store(Arc::new(vec![after.clone()])).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let limit = Limit { rows: 10, bytes: usize::MAX };
    let found = loop {
        match store.messages(&before.device, 0, Place::last_of(9), limit).await {
            Ok(page) => break page.rows,
            Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error}"),
        }
    };
    assert_eq!(found, [after.message, before.message]);
}
