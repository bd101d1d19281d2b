//! A server that is killed, or hangs: requests end within their time, and work again when it is back.

use std::time::Duration;

use drover_backends::cassandra::{self, Cassandra as Server};
use drover_scylla_kit::{Cassandra, Failure, Options, Read, Store, Write};
use tokio::time::Instant;

use crate::stage::{SCHEMA, options, process};

/// What requests are given in these tests.
const TIMEOUT: Duration = Duration::from_secs(2);
/// What a loaded machine may take on top of it; far below any other timeout.
const SLACK: Duration = Duration::from_secs(6);

struct Probe {
    cassandra: Cassandra,
    store: Store,
    read: Read,
    write: Write,
}

impl Probe {
    async fn new(options: &Options) -> Self {
        let cassandra = process(options);
        assert_eq!(cassandra.answers().await, Ok(()), "nobody has asked for it yet");
        let store = cassandra.open_when_there(&SCHEMA, |_| {}).await.expect("opens");
        assert_eq!(cassandra.answers().await, Ok(()));
        let read = store.prepare_read("SELECT owner FROM test_owners WHERE name = ?").await.expect("prepared");
        let write = store.prepare_write("UPDATE test_owners SET owner = ? WHERE name = ?").await.expect("prepared");
        Self { cassandra, store, read, write }
    }

    async fn write(&self, owner: &str) -> Result<(), Failure> {
        self.store.write(&self.write, (owner, "a")).await
    }

    async fn owner(&self) -> Result<Option<(String,)>, Failure> {
        self.store.row(&self.read, ("a",)).await
    }

    /// Writes until it works again.
    async fn recovers(&self, owner: &str) {
        while self.write(owner).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.owner().await, Ok(Some((owner.to_owned(),))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_has_what_was_written_and_takes_more() {
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    let probe = Probe::new(&Options { request_timeout: TIMEOUT, ..options(&server.address()) }).await;
    probe.write("before").await.expect("written");
    server.kill();
    let began = Instant::now();
    let failure = probe.write("while").await.expect_err("nobody is there");
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure}");
    assert!(began.elapsed() < TIMEOUT + SLACK, "it took {:?}", began.elapsed());
    assert!(matches!(probe.cassandra.answers().await, Err(Failure::Unavailable { .. })));
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("it starts");
    let found = loop {
        match probe.owner().await {
            Ok(found) => break found,
            Err(failure) => assert!(matches!(failure, Failure::Unavailable { .. }), "{failure}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(found, Some(("before".to_owned(),)));
    probe.recovers("after").await;
    assert_eq!(probe.cassandra.answers().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_a_request_its_time_and_no_more() {
    let Some(server) = Server::start(cassandra::Options::default()) else { return };
    let patient = options(&server.address());
    let probe = Probe::new(&Options { request_timeout: TIMEOUT, ..patient.clone() }).await;
    server.hang();
    for _ in 0..2 {
        let began = Instant::now();
        let failure = probe.write("while").await.expect_err("nobody answers");
        assert!(matches!(failure, Failure::Unavailable { .. }), "{failure}");
        assert!(began.elapsed() < TIMEOUT + SLACK, "it took {:?}", began.elapsed());
    }
    assert!(matches!(probe.cassandra.answers().await, Err(Failure::Unavailable { .. })));
    // Another process starts now: it waits, and nothing is half-migrated.
    let other = Options { keyspace: format!("{}_other", patient.keyspace), connect_timeout: TIMEOUT, ..patient };
    let starting = tokio::spawn(async move { process(&other).open_when_there(&SCHEMA, |_| {}).await });
    tokio::time::sleep(TIMEOUT).await;
    assert!(!starting.is_finished(), "it waits");
    server.resume();
    probe.recovers("after").await;
    starting.await.expect("no panic").expect("opens");
}
