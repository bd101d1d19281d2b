//! Owners of sessions on a real Cassandra: every promise of the port, and a server that is killed or hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::{self, Cassandra as Server, shared};
use drover_host::{Cassandra, SystemClock};
use drover_ingress::Scylla;
use drover_ingress::conformance::{self, Factory};
use drover_ingress::ports::{Former, Owners, OwnersError, Taken};
use drover_scylla_kit::{Options, Replication};
use drover_types::{ClientId, TenantId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stores_away::OWN_SERVER;

/// What calls are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What calls are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// Options of a keyspace that no other test uses.
fn options(address: &str, request_timeout: Duration) -> Options {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    Options {
        hosts: vec![address.to_owned()],
        keyspace: format!("ingress_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
        replication: Replication::Factor(1),
        request_timeout,
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

/// The owners as one process has them.
async fn open(options: &Options, node: &str, boot: u32) -> Arc<dyn Owners> {
    let waiting = |why: &_| eprintln!("waiting: {why}");
    let cassandra = Cassandra::new(options.clone());
    Arc::new(Scylla::open(&cassandra, node, Arc::new(SystemClock), boot, waiting).await.expect("opens"))
}

struct Keyspace(Options);

#[async_trait]
impl Factory for Keyspace {
    async fn open(&self, node: &str, boot: u32) -> Arc<dyn Owners> {
        open(&self.0, node, boot).await
    }
}

async fn take(owners: &dyn Owners, client: &str) -> Result<Taken, OwnersError> {
    owners.take(&TenantId::default_tenant(), &ClientId::new(client).expect("valid")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_in_cassandra_keep_every_promise() {
    let Some(address) = shared() else { return };
    conformance::alone(&Keyspace(options(&address, PATIENCE))).await;
    conformance::shared(&Keyspace(options(&address, PATIENCE))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_go_on_above_those_of_a_node_that_was_alone() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    for boot in [1, 300_000] {
        let alone = u64::from(boot) << 32 | 1_000;
        assert!(take(&*open(&options, "n", boot).await, "c").await.expect("taken").epoch > alone);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cut_off_anywhere_leaves_an_order_of_epochs() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    let (a, b) = (open(&options, "a", 1).await, open(&options, "b", 1).await);
    let mut calls = JoinSet::new();
    for i in 0..40 {
        let owners = if i % 2 == 0 { a.clone() } else { b.clone() };
        calls.spawn(async move {
            tokio::time::timeout(Duration::from_millis(i), take(&*owners, "c")).await.ok().and_then(Result::ok)
        });
    }
    let mut epochs: Vec<u64> = calls.join_all().await.into_iter().flatten().map(|taken| taken.epoch).collect();
    let answered = epochs.len();
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), answered, "none comes twice");
    let last = take(&*a, "c").await.expect("taken");
    assert!(epochs.iter().all(|epoch| *epoch < last.epoch));
    eprintln!("{answered} of 40 were answered in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_or_hanging_refuses_in_time_and_epochs_grow_through_it() {
    let _turn = OWN_SERVER.lock().await;
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    let options = options(&server.address(), IMPATIENCE);
    // Tables take longer than calls do.
    drop(open(&Options { request_timeout: PATIENCE, ..options.clone() }, "a", 1).await);
    let (a, b) = (open(&options, "a", 1).await, open(&options, "b", 1).await);
    let until_taken = async |owners: &dyn Owners| {
        let began = Instant::now();
        loop {
            match take(owners, "c").await {
                Ok(taken) => return taken,
                Err(OwnersError::Unavailable { .. }) if began.elapsed() < PATIENCE => {}
                Err(failure) => panic!("{failure}"),
            }
        }
    };
    let first = until_taken(&*a).await;

    server.hang();
    let failure = take(&*b, "c").await.expect_err("nobody answers");
    assert!(matches!(failure, OwnersError::Unavailable { .. }), "{failure}");
    server.resume();
    let second = until_taken(&*b).await;
    assert!(second.epoch > first.epoch);

    server.kill();
    let failure = take(&*a, "c").await.expect_err("nobody answers");
    assert!(matches!(failure, OwnersError::Unavailable { .. }), "{failure}");
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("it starts");
    let third = until_taken(&*a).await;
    assert!(third.epoch > second.epoch);
    assert_eq!(third.former, Former::Node("b".into()));
}
