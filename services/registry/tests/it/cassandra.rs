//! The registry's store on a real Cassandra: every promise of the port, several processes at once, writes cut off
//! anywhere, and a server that is killed or hangs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::{self, Cassandra as Server, shared};
use drover_host::{Cassandra, SystemClock, SystemRandom};
use drover_registry::conformance::{self, Factory, creation, device};
use drover_registry::object::{Credential, CredentialKind, Kind, Object, ObjectKey, Spec};
use drover_registry::ports::{Mutation, RegistryStore, RelayTurn, StoreError};
use drover_registry::{RegistryConfig, Scylla, StoreConfig};
use drover_scylla_kit::{Options, Replication};
use drover_types::{DeviceId, DeviceKey, TenantId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stage::{self, Stage, until};

/// What calls are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What calls are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// What a loaded machine may take on top; far below any other timeout.
const SLACK: Duration = Duration::from_secs(6);
/// Stores over the same keyspace.
const STORES: usize = 3;
/// Changes that each of them makes to one object.
const CHANGES: usize = 8;

/// Options of a keyspace that no other test uses.
fn options(address: &str, request_timeout: Duration) -> Options {
    static KEYSPACES: AtomicU32 = AtomicU32::new(0);
    Options {
        hosts: vec![address.to_owned()],
        keyspace: format!("registry_{}", KEYSPACES.fetch_add(1, Ordering::Relaxed)),
        replication: Replication::Factor(1),
        request_timeout,
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    }
}

/// A store as one process has it.
async fn open(options: &Options) -> Arc<dyn RegistryStore> {
    let waiting = |why: &_| eprintln!("waiting: {why}");
    let cassandra = Cassandra::new(options.clone());
    Arc::new(Scylla::open(&cassandra, Arc::new(SystemClock), &SystemRandom, waiting).await.expect("opens"))
}

/// Keyspaces of one server; the last one made is the one that is opened again.
struct Keyspaces {
    address: String,
    last: Mutex<Option<Options>>,
}

#[async_trait]
impl Factory for Keyspaces {
    async fn empty(&self) -> Arc<dyn RegistryStore> {
        let options = options(&self.address, PATIENCE);
        *self.last.lock().expect("not poisoned") = Some(options.clone());
        open(&options).await
    }

    async fn reopened(&self, store: Arc<dyn RegistryStore>) -> Arc<dyn RegistryStore> {
        drop(store);
        let options = self.last.lock().expect("not poisoned").clone().expect("one was made");
        open(&options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_in_cassandra_keeps_every_promise() {
    let Some(address) = shared() else { return };
    conformance::suite(&Keyspaces { address, last: Mutex::default() }).await;
}

/// A change of the device `name` that says what it is by a label; tried again until it is made.
async fn change(store: &dyn RegistryStore, name: &str, label: String) {
    loop {
        let current = store.get(&device(name).key()).await.expect("readable").expect("it is there");
        let mut object = current.clone();
        object.meta.labels.insert("by".into(), label.clone());
        let expected = Some(current.meta.revision);
        match store.write(Mutation::new(object.key(), expected, Some(object), 9)).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_change_one_object_each_on_top_of_the_other() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    let first = open(&options).await;
    first.write(creation(device("one"))).await.expect("created");
    let mut changes = JoinSet::new();
    for store in 0..STORES {
        let options = options.clone();
        changes.spawn(async move {
            let opened = open(&options).await;
            for i in 0..CHANGES {
                change(&*opened, "one", format!("{store}-{i}")).await;
            }
        });
    }
    changes.join_all().await;
    let rows = first.outbox(1_000).await.expect("readable");
    assert_eq!(rows.len(), 1 + STORES * CHANGES, "one row a change");
    for pair in rows.windows(2) {
        assert_eq!(pair[0].change.after, pair[1].change.before, "each on top of the one before, in order");
    }
    let last = rows.last().expect("some").change.after.clone();
    assert_eq!(first.get(&device("one").key()).await.expect("readable"), last);
}

fn credential(name: &str) -> Object {
    let mut object = device(name);
    let digest = std::array::from_fn(|i| name.as_bytes().get(i).copied().unwrap_or(0));
    let device = DeviceId::new(name).expect("valid");
    let kind = CredentialKind::Token;
    object.spec = Spec::Credential(Credential { device, kind, expires_ms: None, digest, sealed: None });
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_cut_off_anywhere_has_happened_wholly_or_not() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    let (store, other) = (open(&options).await, open(&options).await);
    let tenant = TenantId::default_tenant();
    let mut happened = 0;
    for i in 0..40 {
        let object = credential(&format!("c{i:02}"));
        let write = store.write(creation(object.clone()));
        let cut_off = tokio::time::timeout(Duration::from_millis(i), write).await.is_err();
        let Spec::Credential(Credential { digest, device, .. }) = object.spec.clone() else { unreachable!() };
        let key = DeviceKey { tenant: tenant.clone(), device };
        let found = other.get(&object.key()).await.expect("readable");
        assert!(cut_off || found.is_some(), "{i} was answered and is lost");
        let Some(found) = found else { continue };
        happened += 1;
        assert_eq!(other.credential_by_digest(&digest).await, Ok(Some(found.clone())), "{i} by digest");
        assert_eq!(other.credentials_of(&key).await, Ok(vec![found.clone()]), "{i} by device");
        assert_eq!(other.has_had_credentials(&key).await, Ok(true));
        let listed = other.page(Kind::Credential, &tenant, "", 100).await.expect("readable");
        assert!(listed.contains(&found), "{i} in the list");
        let rows = other.outbox(1_000).await.expect("readable");
        let of_it = rows.iter().filter(|row| row.change.key == found.key()).count();
        assert_eq!(of_it, 1, "{i} in the outbox");
    }
    eprintln!("{happened} of 40 had happened");
    // What was not seen above may have been decided since; then it is whole as well.
    let rows = other.outbox(1_000).await.expect("readable");
    assert!(rows.len() >= happened);
    for row in rows {
        assert_eq!(other.get(&row.change.key).await.expect("readable").is_some(), row.change.after.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_relays_and_when_it_is_gone_another_does() {
    let Some(address) = shared() else { return };
    let options = options(&address, PATIENCE);
    let (one, two) = (open(&options).await, open(&options).await);
    assert_eq!(one.relay_turn().await, Ok(RelayTurn::Ours));
    assert_eq!(two.relay_turn().await, Ok(RelayTurn::Others));
    assert_eq!(one.relay_turn().await, Ok(RelayTurn::Ours));
    let written = one.write(creation(device("a"))).await.expect("written").expect("there");
    drop(one);
    until(async || two.relay_turn().await == Ok(RelayTurn::Ours)).await;
    let rows = two.outbox(10).await.expect("readable");
    assert_eq!(rows.iter().map(|row| row.change.after.clone()).collect::<Vec<_>>(), [Some(written)]);
}

/// Whether `call` says, in time, that the store is away.
async fn is_away<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) {
    let began = Instant::now();
    let failure = call.await.expect_err("nobody answers");
    assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}");
    assert!(began.elapsed() < IMPATIENCE + SLACK, "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_or_hanging_costs_calls_their_time_and_loses_nothing() {
    let Some(mut server) = Server::start(cassandra::Options::default()) else { return };
    let options = options(&server.address(), IMPATIENCE);
    // Tables take longer than calls do.
    drop(open(&Options { request_timeout: PATIENCE, ..options.clone() }).await);
    let store = open(&options).await;
    let key = |name: &str| ObjectKey::new(Kind::Device, &TenantId::default_tenant(), name);
    let write_until_answered = async |name: &str| {
        loop {
            match store.write(creation(device(name))).await {
                Ok(_) => return,
                // An earlier try of ours, which was not answered.
                Err(StoreError::Conflict { expected: None, .. }) => return,
                Err(failure) => assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}"),
            }
        }
    };
    write_until_answered("first").await;

    server.hang();
    is_away(store.write(creation(device("hung")))).await;
    is_away(store.get(&key("first"))).await;
    server.resume();
    write_until_answered("second").await;

    server.kill();
    is_away(store.write(creation(device("killed")))).await;
    is_away(store.outbox(10)).await;
    let _server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .expect("it starts");
    write_until_answered("third").await;

    for name in ["first", "second", "third"] {
        let found = loop {
            match store.get(&key(name)).await {
                Ok(found) => break found,
                Err(failure) => assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}"),
            }
        };
        assert!(found.is_some(), "{name} was answered and is lost");
    }
    let rows = loop {
        match store.outbox(100).await {
            Ok(rows) => break rows,
            Err(failure) => assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}"),
        }
    };
    for row in rows {
        let found = store.get(&row.change.key).await.expect("readable");
        assert_eq!(found, row.change.after, "half a write");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registries_over_one_keyspace_serve_the_same_and_feed_once() {
    let Some(address) = shared() else { return };
    let config = RegistryConfig { store: StoreConfig::Cassandra, ..stage::config() };
    let cassandra = Cassandra::new(options(&address, PATIENCE));
    let one = Stage::with_cassandra(config.clone(), tempfile::tempdir().expect("a directory"), &cassandra).await;
    let two = one.beside(RegistryConfig { member: "registry-1".into(), ..config }, &cassandra).await;

    one.create_device("a").await.expect("created");
    let token = two.issue_token("a", 0).await.token;
    let found = one.authenticate_token("a", &token).await.expect("one knows what two has issued");
    assert_eq!(found.device, "a");
    let again = two.create_device("a").await.expect_err("it is there already");
    assert_eq!(again.code, drover_types::ErrorCode::AlreadyExists);
    for i in 0..10 {
        let stage = if i % 2 == 0 { &one } else { &two };
        stage.create_device(&format!("d{i}")).await.expect("created");
    }
    let keys = async || {
        let records = one.records(drover_registry::CHANGES_TOPIC).await;
        let mut keys: Vec<String> = records
            .iter()
            .filter_map(|r| Some(String::from_utf8_lossy(r.record.key.as_deref()?).into_owned()))
            .collect();
        keys.sort();
        keys
    };
    until(async || keys().await.len() >= 12).await;
    let mut once = keys().await;
    once.dedup();
    assert_eq!(once.len(), 12, "ten devices, the first one, its credential");
    assert_eq!(keys().await.len(), 12, "nothing is fed twice without need");
}
