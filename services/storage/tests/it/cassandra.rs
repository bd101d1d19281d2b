//! The store on a real Cassandra: every promise of the port.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use drover_backends::cassandra::{self, Cassandra as Server};
use drover_proto::storage::v1 as wire;
use drover_scylla_kit::{Cassandra, Options, Replication, Schema, Store, Write};
use drover_storage::Scylla;
use drover_storage::conformance::{self, Factory, device, entry};
use drover_storage::ports::{Limit, SeriesStore, StoreError};
use drover_storage::series::{Entry, Field, Place, Series, Value};
use prost::Message as _;
use tokio::time::Instant;

/// What requests are given where nothing is wrong; a loaded machine needs it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What requests are given where the server is away.
const IMPATIENCE: Duration = Duration::from_secs(2);
/// What a call may take beyond that, on a machine that does other things.
const SLACK: Duration = Duration::from_secs(8);

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

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
async fn the_store_in_cassandra_keeps_every_promise_and_outlives_a_server_that_hangs_or_is_killed() {
    let Some(server) = Server::start(cassandra::Options::default()) else { return };
    let address = server.address();
    conformance::suite(&Keyspaces { address: address.clone(), made: AtomicU32::new(0) }).await;
    rows_with_a_retention_go_by_themselves(&address).await;
    a_device_was_heard_when_its_own_last_message_came(&address).await;
    rows_of_versions_before_slices_are_read_among_others(&address).await;
    what_was_stored_is_there_after_a_hang_and_a_kill(server).await;
}

async fn rows_with_a_retention_go_by_themselves(address: &str) {
    let store = open(options(address, "storage_retention".to_owned(), PATIENCE), Some(1_500)).await;
    store.store(Arc::new(vec![entry("d", 1, 2, "1")])).await.expect("writable");
    let limit = Limit { rows: 10, bytes: usize::MAX };
    loop {
        let messages = store.messages(&device("d"), 0, Place::last_of(9), limit).await.expect("readable").rows;
        let newest = store.newest(&device("d"), "", limit).await.expect("readable").rows;
        let heard = store.heard(&device("d")).await.expect("readable");
        if messages.is_empty() && newest.is_empty() && heard.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn a_device_was_heard_when_its_own_last_message_came(address: &str) {
    let store = open(options(address, "storage_heard".to_owned(), PATIENCE), None).await;
    assert_eq!(store.heard(&device("d")).await, Ok(None), "nothing is known");
    // Of odd ids are those of rules.
    let batch = vec![entry("d", 4, 2, "1"), entry("d", 5, 2, "2"), entry("d", 7, 1, "3"), entry("e", 8, 1, "4")];
    store.store(Arc::new(batch)).await.expect("writable");
    store.store(Arc::new(vec![entry("d", 3, 2, "0")])).await.expect("writable");
    assert_eq!(store.heard(&device("d")).await, Ok(Some(5)), "an earlier one that comes later changes nothing");
    assert_eq!(store.heard(&device("e")).await, Ok(None), "messages of rules do not count");
}

/// Writes as versions before slices do, which may still run.
struct Old {
    store: Store,
    put_day: Write,
    put_point: Write,
    put_message: Write,
}

impl Old {
    async fn open(cassandra: &Cassandra) -> Self {
        let none = Schema { name: "storage_old", migrations: &[] };
        let store = cassandra.open(&none).await.expect("opens");
        let prepare = async |cql: &str| store.prepare_write(cql).await.expect("the table is there");
        Self {
            put_day: prepare("INSERT INTO storage_days (tenant, device, day) VALUES (?, ?, ?)").await,
            put_point: prepare(
                "INSERT INTO storage_points (tenant, device, field, day, time_ms, id, point) \
                    VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .await,
            put_message: prepare(
                "INSERT INTO storage_messages (tenant, device, day, time_ms, id, message) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .await,
            store,
        }
    }

    async fn put(&self, Entry { device, message, values }: &Entry) {
        let (tenant, name, at) = (device.tenant.as_str(), device.device.as_str(), message.at);
        let (time_ms, day) = (at.time_ms.cast_signed(), i32::try_from(at.time_ms / DAY_MS).expect("not so late"));
        let (topic, qos) = (message.topic.clone(), u32::from(u8::from(message.qos)));
        let (payload, of_rule) = (message.payload.to_vec(), message.of_rule);
        let row = wire::StoredMessage { topic, qos, payload, of_rule, ..wire::StoredMessage::default() };
        let row = (tenant, name, day, time_ms, at.id.0.as_slice(), row.encode_to_vec());
        self.store.write_at(time_ms, &self.put_day, (tenant, name, day)).await.expect("written");
        self.store.write_at(time_ms, &self.put_message, row).await.expect("written");
        for (field, value) in values {
            let Value::Number(number) = value else { panic!("{value:?} is no number") };
            let (topic, value) = (message.topic.clone(), Some(wire::point::Value::Number(*number)));
            let row = wire::Point { topic, value, ..wire::Point::default() }.encode_to_vec();
            let row = (tenant, name, field.as_str(), day, time_ms, at.id.0.as_slice(), row);
            self.store.write_at(time_ms, &self.put_point, row).await.expect("written");
        }
    }
}

async fn rows_of_versions_before_slices_are_read_among_others(address: &str) {
    let cassandra = Cassandra::new(options(address, "storage_before_slices".to_owned(), PATIENCE));
    let store = Scylla::open(&cassandra, None, |why| eprintln!("waiting: {why}")).await.expect("opens");
    let old = Old::open(&cassandra).await;
    let times = [5, 6, 7, DAY_MS - 1, DAY_MS, DAY_MS + 1, 9 * DAY_MS, 40 * DAY_MS, 40 * DAY_MS + 1];
    let entries: Vec<Entry> =
        times.into_iter().zip(0u8..).map(|(ms, id)| entry("d", ms, id, &id.to_string())).collect();
    // By the old version alone, by the new one alone, and every third by both, as when a partition changes hands.
    for (entry, by) in entries.iter().zip([0, 1, 2].into_iter().cycle()) {
        if by != 1 {
            old.put(entry).await;
        }
        if by != 0 {
            store.store(Arc::new(vec![entry.clone()])).await.expect("writable");
        }
    }
    let (d, t) = (device("d"), Field::new("t").expect("valid"));
    let series = Series { device: d.clone(), field: t };
    let sent: Vec<_> = entries.iter().map(|entry| entry.message.clone()).collect();
    for rows in [1, 2, 4, 100] {
        let limit = Limit { rows, bytes: usize::MAX };
        let (mut points, mut from) = (Vec::new(), Some(Place::first_of(0)));
        while let Some(at) = from {
            let page = store.points(&series, at, u64::MAX, limit).await.expect("readable");
            points.extend(page.rows.into_iter().map(|point| (point.at, point.value)));
            from = page.next;
        }
        let expected = entries.iter().map(|entry| (entry.message.at, entry.values[0].1.clone()));
        assert_eq!(points, expected.collect::<Vec<_>>(), "{rows} rows");
        let (mut messages, mut last) = (Vec::new(), Some(Place::last_of(100 * DAY_MS)));
        while let Some(at) = last {
            let page = store.messages(&d, 0, at, limit).await.expect("readable");
            messages.extend(page.rows);
            last = page.next;
        }
        assert!(messages.iter().eq(sent.iter().rev()), "{rows} rows: {messages:?}");
    }
}

/// Whether `call` says, in time, that the store is away.
async fn is_away<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) {
    let began = Instant::now();
    let refused = call.await.expect_err("nobody answers");
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    assert!(began.elapsed() < IMPATIENCE + SLACK, "it took {:?}", began.elapsed());
}

async fn store_until_answered(store: &Scylla, entry: &Entry) {
    while let Err(refused) = store.store(Arc::new(vec![entry.clone()])).await {
        assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn what_was_stored_is_there_after_a_hang_and_a_kill(server: Server) {
    let store = open(options(&server.address(), "storage_killed".to_owned(), IMPATIENCE), None).await;
    let (before, hung, after) = (entry("d", 1, 1, "1"), entry("d", 2, 2, "2"), entry("d", 3, 3, "3"));
    let limit = Limit { rows: 10, bytes: usize::MAX };
    store_until_answered(&store, &before).await;
    let server = Mutex::new(server);

    server.lock().expect("nobody panics").hang();
    is_away(store.store(Arc::new(vec![hung.clone()]))).await;
    is_away(store.messages(&before.device, 0, Place::last_of(9), limit)).await;
    is_away(store.newest(&before.device, "", limit)).await;
    server.lock().expect("nobody panics").resume();
    store_until_answered(&store, &hung).await;

    server.lock().expect("nobody panics").kill();
    is_away(store.store(Arc::new(vec![after.clone()]))).await;
    let server = tokio::task::spawn_blocking(move || {
        server.lock().expect("nobody panics").restart();
        server
    });
    let _server = server.await.expect("it starts");
    store_until_answered(&store, &after).await;
    let found = loop {
        match store.messages(&before.device, 0, Place::last_of(9), limit).await {
            Ok(page) => break page.rows,
            Err(error) => assert!(matches!(error, StoreError::Unavailable { .. }), "{error}"),
        }
    };
    assert_eq!(found, [after.message, hung.message, before.message]);
}
