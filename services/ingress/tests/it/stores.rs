//! What ingress nodes share on a real Cassandra: every promise of both ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::shared;
use drover_host::{Cassandra, SystemClock};
use drover_ingress::conformance::{self, BOUNDS, REMOVAL_MS, RetainedFactory, SessionFactory, moment_ms};
use drover_ingress::ports::RetainedStore;
use drover_ingress::ports::sessions::SessionStore;
use drover_ingress::scylla::{Retained, Sessions};
use drover_scylla_kit::{Options, Replication, Schema};
use drover_types::{Clock, TenantId};

/// Each store over a session of its own, as processes have them.
struct Keyspace(Options);

impl Keyspace {
    /// A keyspace that no other test uses; `None` where no server can be had.
    fn new() -> Option<Self> {
        static KEYSPACES: AtomicU32 = AtomicU32::new(0);
        Some(Self(Options {
            hosts: vec![shared()?],
            keyspace: format!("ingress_stores_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
            replication: Replication::Factor(1),
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            ..Options::default()
        }))
    }

    fn cassandra(&self) -> Cassandra {
        Cassandra::new(self.0.clone())
    }
}

#[async_trait]
impl RetainedFactory for Keyspace {
    async fn open(&self) -> Arc<dyn RetainedStore> {
        let waiting = |why: &_| eprintln!("waiting: {why}");
        Arc::new(Retained::open(&self.cassandra(), BOUNDS, waiting).await.expect("opens"))
    }
}

#[async_trait]
impl SessionFactory for Keyspace {
    async fn open(&self) -> Arc<dyn SessionStore> {
        let waiting = |why: &_| eprintln!("waiting: {why}");
        Arc::new(Sessions::open(&self.cassandra(), "n", waiting).await.expect("opens"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retained_messages_in_cassandra_keep_every_promise() {
    let Some(keyspace) = Keyspace::new() else { return };
    conformance::retained(&keyspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_level_stays_listed_without_a_message_until_none_can_be_on_its_way() {
    let Some(keyspace) = Keyspace::new() else { return };
    let cassandra = keyspace.cassandra();
    let retained = Retained::open(&cassandra, BOUNDS, |_| ()).await.expect("opens");
    let store = cassandra.open(&Schema { name: "reader", migrations: &[] }).await.expect("opens");
    let levels = "SELECT level FROM ingress_retained_levels WHERE tenant = ?";
    let levels = store.prepare_read(levels).await.expect("prepared");
    let tenant = TenantId::default_tenant();
    let listed = async || {
        let rows: Vec<(String,)> = store.rows(&levels, (tenant.as_str(),)).await.expect("read");
        rows.into_iter().map(|(level,)| level).collect::<Vec<_>>()
    };
    let keep = async |topic: &str, payload: &str, time_ms: u64, expiry_s: Option<u32>| {
        let message = conformance::retained_message(&tenant, topic, payload, time_ms, 7, expiry_s);
        assert_eq!(retained.keep(vec![Arc::new(message)]).await.expect("kept"), 0, "{topic}");
    };
    let before_ms = SystemClock.now_ms();
    keep("stays/1", "1", 1, None).await;
    keep("removed/1", "1", 1, None).await;
    keep("expires/1", "1", 1, Some(1)).await;
    keep("removed/1", "", 2, None).await;
    assert_eq!(retained.sweep(before_ms + REMOVAL_MS - 1).await.expect("swept"), 1, "what has expired");
    assert_eq!(listed().await, ["expires", "removed", "stays"]);
    retained.sweep(moment_ms().await + REMOVAL_MS).await.expect("swept");
    assert_eq!(listed().await, ["stays"]);

    keep("stays/1", "", 3, None).await;
    retained.sweep(before_ms).await.expect("swept");
    assert_eq!(listed().await, ["stays"], "a tenant that keeps nothing is swept on");
    retained.sweep(moment_ms().await + REMOVAL_MS).await.expect("swept");
    assert_eq!(listed().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sessions_in_cassandra_keep_every_promise() {
    let Some(keyspace) = Keyspace::new() else { return };
    conformance::sessions(&keyspace).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_only_the_sessions_whose_head_it_has_written_last() {
    use drover_ingress::ports::sessions::{Change, Head, What};
    use drover_types::{ClientId, DeviceId};

    let Some(keyspace) = Keyspace::new() else { return };
    let cassandra = keyspace.cassandra();
    let open = async |node: &str| Sessions::open(&cassandra, node, |_| ()).await.expect("opens");
    let (a, b) = (open("a").await, open("b").await);
    let key = Arc::new((TenantId::default_tenant(), ClientId::new("mover").expect("valid")));
    let head = |epoch| -> Arc<[Change]> {
        let device = DeviceId::new("d").expect("valid");
        let head = Head { epoch, device, expiry_s: 60, away: None, will: None, sent: None };
        Arc::from([Change { key: key.clone(), stamp: epoch, what: What::Head(Box::new(head)) }])
    };
    let held = async |store: &Sessions| store.own(None, 10).await.expect("read").len();
    a.write(head(1)).await.expect("written");
    assert_eq!((held(&a).await, held(&b).await), (1, 0));
    b.write(head(2)).await.expect("written");
    assert_eq!((held(&a).await, held(&b).await), (0, 1), "the first has lost it");
    a.write(head(1)).await.expect("written");
    assert_eq!((held(&a).await, held(&b).await), (0, 1), "also if it writes late");

    let left = async |store: &Sessions, node: &str| store.left_by(node, None, 10).await.expect("read").len();
    assert_eq!((left(&a, "b").await, left(&a, "a").await), (1, 0), "each finds those of the other");
    let gone = Change { key: key.clone(), stamp: 4, what: What::Left("b".into()) };
    let changes: Arc<[Change]> = Arc::from([gone]);
    a.write(changes).await.expect("written");
    assert_eq!(left(&a, "b").await, 0, "it is no longer in the list");
}
