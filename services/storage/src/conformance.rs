//! The suite that every store adapter must pass.
//!
//! An adapter's test gives a [`Factory`]; each function here is one promise of [`SeriesStore`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use drover_types::{DeviceId, DeviceKey, Qos, RecordId, TenantId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::ports::{Limit, Page, SeriesStore};
use crate::series::{Entry, Field, Message, Place, Point, Series, Value};

/// Makes stores for the suite.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A store with nothing in it, without retention.
    async fn empty(&self) -> Arc<dyn SeriesStore>;
    /// The same store after its process has died and come back; nobody else holds `store`.
    async fn reopened(&self, store: Arc<dyn SeriesStore>) -> Arc<dyn SeriesStore>;
}

/// As much as there is.
const ALL: Limit = Limit { rows: 100_000, bytes: usize::MAX };
/// Histories tried against the model.
const HISTORIES: usize = 24;

/// Runs every promise.
pub async fn suite(factory: &dyn Factory) {
    every_kind_of_value_reads_back(factory).await;
    the_newest_point_is_the_last_by_time_and_id_in_whatever_order_they_came(factory).await;
    tenants_devices_and_fields_are_kept_apart(factory).await;
    pages_bring_each_row_once_also_within_a_millisecond(factory).await;
    devices_are_listed_once_and_by_pages(factory).await;
    rows_of_all_sizes_keep_their_order_where_a_slice_of_time_ends(factory).await;
    the_bytes_of_a_page_are_bounded_but_it_has_a_row(factory).await;
    what_was_stored_survives_reopening(factory).await;
    whatever_is_stored_again_in_any_order_reads_as_the_model_says(factory).await;
}

/// A device of the tenant `home`.
pub fn device(name: &str) -> DeviceKey {
    key("home", name)
}

fn key(tenant: &str, name: &str) -> DeviceKey {
    DeviceKey { tenant: TenantId::new(tenant).expect("valid"), device: DeviceId::new(name).expect("valid") }
}

/// A message of a device of the tenant `home` to `t/DEVICE`; its payload is the value of the field `t`.
pub fn entry(name: &str, time_ms: u64, id: u8, payload: &str) -> Entry {
    let value = payload.parse().map_or_else(|_| Value::Text(payload.to_owned()), Value::Number);
    entry_of(device(name), Place { time_ms, id: RecordId([id; 16]) }, payload, vec![(field("t"), value)])
}

fn entry_of(device: DeviceKey, at: Place, payload: &str, values: Vec<(Field, Value)>) -> Entry {
    let topic = format!("t/{}", device.device);
    // Some of either kind, the same whenever it is made.
    let of_rule = at.id.0[0] % 2 == 1;
    let message = Message { at, topic, qos: Qos::AtLeastOnce, payload: payload.to_owned().into(), of_rule };
    Entry { device, message, values }
}

fn field(name: &str) -> Field {
    Field::new(name).expect("valid")
}

fn series(device: &DeviceKey, name: &str) -> Series {
    Series { device: device.clone(), field: field(name) }
}

async fn store_all(store: &dyn SeriesStore, entries: Vec<Entry>) {
    store.store(Arc::new(entries)).await.expect("writable");
}

async fn points(store: &dyn SeriesStore, series: &Series) -> Vec<Point> {
    let page = store.points(series, Place::first_of(0), u64::MAX, ALL).await.expect("readable");
    assert_eq!(page.next, None);
    page.rows
}

async fn messages(store: &dyn SeriesStore, device: &DeviceKey) -> Vec<Message> {
    let page = store.messages(device, 0, Place::last_of(LAST_MS), ALL).await.expect("readable");
    assert_eq!(page.next, None);
    page.rows
}

async fn newest(store: &dyn SeriesStore, device: &DeviceKey) -> Vec<Point> {
    let page = store.newest(device, "", ALL).await.expect("readable");
    assert_eq!(page.next, None);
    page.rows
}

/// The end of the year 9999, milliseconds since the Unix epoch.
const LAST_MS: u64 = 253_402_300_799_999;

async fn devices_are_listed_once_and_by_pages(factory: &dyn Factory) {
    let store = factory.empty().await;
    let names = ["a", "a-b", "a:", "aa", "b", "z"];
    let message = |tenant: &str, name: &str, time_ms, id| {
        let at = Place { time_ms, id: RecordId([id; 16]) };
        entry_of(key(tenant, name), at, "1", vec![(field("t"), Value::Number(1.0))])
    };
    let kept = |tenant| names.into_iter().flat_map(move |name| [1, 5, LAST_MS].map(|ms| message(tenant, name, ms, 1)));
    store_all(&*store, kept("home").collect()).await;
    store_all(&*store, vec![message("home-2", "other", 1, 1), message("a", "other", 1, 1), message("z", "z", 1, 1)])
        .await;
    store_all(&*store, kept("home").collect()).await;
    for rows in [1, 2, 5, 6, 100] {
        let (mut found, mut from) = (Vec::new(), None);
        loop {
            let tenant = TenantId::new("home").expect("valid");
            let page = store.devices(&tenant, from, rows).await.expect("readable");
            assert!(page.rows.len() <= rows, "{rows}");
            found.extend(page.rows.into_iter().map(|device| device.to_string()));
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        found.sort();
        assert_eq!(found, names, "pages of {rows}");
    }
    let nobody = TenantId::new("hom").expect("valid");
    assert_eq!(store.devices(&nobody, None, 10).await.expect("readable"), Page { rows: vec![], next: None });
}

async fn every_kind_of_value_reads_back(factory: &dyn Factory) {
    let store = factory.empty().await;
    let values = [
        ("zero", Value::Number(0.0)),
        ("small", Value::Number(-5e-324)),
        ("large", Value::Number(f64::MAX)),
        ("no", Value::Boolean(false)),
        ("yes", Value::Boolean(true)),
        ("empty", Value::Text(String::new())),
        ("text", Value::Text("a\0é\n".to_owned())),
        ("cells[0].é v", Value::Number(1.5)),
    ];
    let values: Vec<_> = values.into_iter().map(|(name, value)| (field(name), value)).collect();
    let at = Place { time_ms: LAST_MS, id: RecordId([0xff; 16]) };
    let kept = entry_of(device("d"), at, "", values.clone());
    store_all(&*store, vec![kept.clone()]).await;
    for (name, value) in values {
        let found = points(&*store, &series(&kept.device, name.as_str())).await;
        let expected = Point { field: name, at, topic: "t/d".to_owned(), value };
        assert_eq!(found, [expected]);
    }
    assert_eq!(messages(&*store, &kept.device).await, [kept.message]);
    assert_eq!(newest(&*store, &kept.device).await.len(), 8);
}

async fn the_newest_point_is_the_last_by_time_and_id_in_whatever_order_they_came(factory: &dyn Factory) {
    let store = factory.empty().await;
    let d = device("d");
    let kept = async |expected: &str| {
        let value = newest(&*store, &d).await.into_iter().map(|point| point.value).collect::<Vec<_>>();
        assert_eq!(value, [Value::Text(expected.to_owned())]);
    };
    store_all(&*store, vec![entry("d", 5, 5, "first")]).await;
    store_all(&*store, vec![entry("d", 4, 9, "earlier")]).await;
    kept("first").await;
    store_all(&*store, vec![entry("d", 5, 4, "lower id")]).await;
    kept("first").await;
    store_all(&*store, vec![entry("d", 5, 6, "higher id")]).await;
    kept("higher id").await;
    store_all(&*store, vec![entry("d", 7, 0, "last"), entry("d", 6, 9, "not last")]).await;
    kept("last").await;
    store_all(&*store, vec![entry("d", 5, 5, "first")]).await;
    kept("last").await;
}

async fn tenants_devices_and_fields_are_kept_apart(factory: &dyn Factory) {
    let store = factory.empty().await;
    let at = |id| Place { time_ms: 1, id: RecordId([id; 16]) };
    let mut id = 0;
    let (tenants, devices, fields) =
        (["home", "home-2", "a"], ["d", "d2", "d:2", "D"], ["t", "t2", "t.x", "T", "t[0]"]);
    for (tenant, name) in tenants.into_iter().flat_map(|tenant| devices.map(|name| (tenant, name))) {
        id += 1;
        let values = fields.iter().map(|name| (field(name), Value::Number(f64::from(id)))).collect();
        store_all(&*store, vec![entry_of(key(tenant, name), at(id), "p", values)]).await;
    }
    id = 0;
    for (tenant, name) in tenants.into_iter().flat_map(|tenant| devices.map(|name| (tenant, name))) {
        id += 1;
        let of = key(tenant, name);
        for name in fields {
            let found: Vec<_> = points(&*store, &series(&of, name)).await.into_iter().map(|p| p.value).collect();
            assert_eq!(found, [Value::Number(f64::from(id))], "{of} {name}");
        }
        let named: Vec<_> = newest(&*store, &of).await.into_iter().map(|p| p.field.to_string()).collect();
        assert_eq!(named, ["T", "t", "t.x", "t2", "t[0]"]);
        assert_eq!(messages(&*store, &of).await.len(), 1);
    }
    assert_eq!(points(&*store, &series(&device("nobody"), "t")).await, []);
    assert_eq!(messages(&*store, &device("nobody")).await, []);
    assert_eq!(newest(&*store, &device("nobody")).await, []);
}

/// 3 rows in each of 5 milliseconds, in buckets of time far apart.
fn crowd() -> Vec<Entry> {
    let place = |i: u8| (u64::from(i / 3) * 100_000_000_000, i);
    (0..15).map(place).map(|(time_ms, i)| entry("d", time_ms, i, &i.to_string())).collect()
}

/// All points of a series, page by page.
async fn paged_points(store: &dyn SeriesStore, series: &Series, limit: Limit) -> Vec<Point> {
    let (mut found, mut from) = (Vec::new(), Some(Place::first_of(0)));
    while let Some(at) = from {
        let page = store.points(series, at, u64::MAX, limit).await.expect("readable");
        assert!(page.rows.len() == limit.rows || limit.bytes < usize::MAX || page.next.is_none());
        found.extend(page.rows);
        from = page.next;
    }
    found
}

/// All points of a series, page by page, from the last on; in the order of their places.
async fn paged_points_back(store: &dyn SeriesStore, series: &Series, limit: Limit) -> Vec<Point> {
    let (mut found, mut last) = (Vec::new(), Some(Place::last_of(LAST_MS)));
    while let Some(at) = last {
        let page = store.points_back(series, 0, at, limit).await.expect("readable");
        assert!(page.rows.len() == limit.rows || limit.bytes < usize::MAX || page.next.is_none());
        found.extend(page.rows);
        last = page.next;
    }
    found.reverse();
    found
}

/// All messages of a device, page by page.
async fn paged_messages(store: &dyn SeriesStore, device: &DeviceKey, limit: Limit) -> Vec<Message> {
    let (mut found, mut last) = (Vec::new(), Some(Place::last_of(LAST_MS)));
    while let Some(at) = last {
        let page = store.messages(device, 0, at, limit).await.expect("readable");
        assert!(page.rows.len() == limit.rows || limit.bytes < usize::MAX || page.next.is_none());
        found.extend(page.rows);
        last = page.next;
    }
    found
}

async fn pages_bring_each_row_once_also_within_a_millisecond(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (d, t) = (device("d"), series(&device("d"), "t"));
    store_all(&*store, crowd()).await;
    let (all, all_messages) = (points(&*store, &t).await, messages(&*store, &d).await);
    assert_eq!((all.len(), all_messages.len()), (15, 15));
    assert!(all.is_sorted_by_key(|point| point.at) && all_messages.iter().rev().is_sorted_by_key(|m| m.at));
    for rows in [1, 2, 3, 7, 14, 15, 16] {
        let limit = Limit { rows, bytes: usize::MAX };
        assert_eq!(paged_points(&*store, &t, limit).await, all, "{rows} rows");
        assert_eq!(paged_points_back(&*store, &t, limit).await, all, "{rows} rows");
        assert_eq!(paged_messages(&*store, &d, limit).await, all_messages, "{rows} rows");
    }
    let span = store.points(&t, all[4].at, all[9].at.time_ms, ALL).await.expect("readable");
    assert_eq!(span, Page { rows: all[4..9].to_vec(), next: None });
    let span = store.points_back(&t, all[3].at.time_ms, all[10].at, ALL).await.expect("readable");
    assert!(span.rows.iter().rev().eq(&all[3..=10]), "{span:?}");
    let span = store.messages(&d, all[3].at.time_ms, all[10].at, ALL).await.expect("readable");
    assert_eq!(span.rows, all_messages[4..12]);
    assert_eq!(store.points(&t, all[4].at, 0, ALL).await, Ok(Page { rows: vec![], next: None }));
    assert_eq!(store.points_back(&t, u64::MAX, all[4].at, ALL).await, Ok(Page { rows: vec![], next: None }));
    let fields = ["a", "b", "c"].map(|name| (field(name), Value::Boolean(true))).to_vec();
    store_all(&*store, vec![entry_of(device("f"), all[0].at, "", fields)]).await;
    let page = store.newest(&device("f"), "", Limit { rows: 2, bytes: usize::MAX }).await.expect("readable");
    assert_eq!((page.rows.len(), page.next), (2, Some(field("c"))));
    let page = store.newest(&device("f"), "c", ALL).await.expect("readable");
    assert_eq!((page.rows.len(), page.next), (1, None));
}

/// Messages of all sizes, in order, at times around those where a store may begin something new: seconds, minutes, an
/// hour, a day. Their texts are points as far as texts may be.
fn borders() -> Vec<Entry> {
    const DAY_MS: u64 = 86_400_000;
    let borders_ms = [3_000, 15_000, 120_000, 900_000, 3_600_000, DAY_MS].map(|ms| 20_000 * DAY_MS + ms);
    let times_ms = borders_ms.into_iter().flat_map(|ms| [ms - 1, ms]);
    let of_time = |time_ms| {
        [5_000usize, 1, 200_000, 900, 40_000].into_iter().zip(0u8..).map(move |(bytes, id)| {
            let at = Place { time_ms, id: RecordId([id; 16]) };
            let text = Value::Text("x".repeat(bytes.min(1_024)));
            entry_of(device("d"), at, &"x".repeat(bytes), vec![(field("t"), text)])
        })
    };
    times_ms.flat_map(of_time).collect()
}

async fn rows_of_all_sizes_keep_their_order_where_a_slice_of_time_ends(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (d, t, mut model) = (device("d"), series(&device("d"), "t"), Model::default());
    let entries = borders();
    entries.iter().for_each(|entry| model.keep(entry));
    // From the last to the first, then again in another order and in other batches.
    for batch in entries.rchunks(7) {
        store_all(&*store, batch.to_vec()).await;
    }
    for batch in entries.chunks(11) {
        store_all(&*store, batch.iter().rev().cloned().collect()).await;
    }
    model.compare(&*store).await;
    let (all, all_messages) = (points(&*store, &t).await, messages(&*store, &d).await);
    for (rows, bytes) in [(1, usize::MAX), (7, usize::MAX), (59, usize::MAX), (1_000, 1), (1_000, 300_000)] {
        let limit = Limit { rows, bytes };
        assert!(paged_points(&*store, &t, limit).await == all, "{limit:?}");
        assert!(paged_points_back(&*store, &t, limit).await == all, "{limit:?}");
        assert!(paged_messages(&*store, &d, limit).await == all_messages, "{limit:?}");
    }
    // Each span begins and ends within slices.
    for (first, last) in [(0, 9), (3, 31), (17, 48), (22, 22), (41, 59)] {
        let (from, to) = (all[first].at, all[last].at);
        let expected = all.iter().filter(|point| point.at >= from && point.at.time_ms < to.time_ms + 1);
        let span = store.points(&t, from, to.time_ms + 1, ALL).await.expect("readable");
        assert!(span.rows.iter().eq(expected), "points {first} to {last}");
        let expected = all.iter().filter(|point| point.at.time_ms >= from.time_ms && point.at <= to);
        let span = store.points_back(&t, from.time_ms, to, ALL).await.expect("readable");
        assert!(span.rows.iter().rev().eq(expected), "points from {last} back to {first}");
        let expected = all_messages.iter().filter(|kept| kept.at.time_ms >= from.time_ms && kept.at <= to);
        let span = store.messages(&d, from.time_ms, to, ALL).await.expect("readable");
        assert!(span.rows.iter().eq(expected), "messages {first} to {last}");
    }
}

async fn the_bytes_of_a_page_are_bounded_but_it_has_a_row(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (d, t) = (device("d"), series(&device("d"), "t"));
    let large = "x".repeat(1_000);
    store_all(&*store, (0..10).map(|i| entry("d", u64::from(i), i, &large)).collect()).await;
    for (bytes, rows) in [(0, 1), (1, 1), (1_000, 1), (2_000, 2), (5_000, 5)] {
        let limit = Limit { rows: 100, bytes };
        let page = store.points_back(&t, 0, Place::last_of(LAST_MS), limit).await.expect("readable");
        assert_eq!((page.rows.len(), page.next.map(|at| at.time_ms)), (rows, Some(9 - rows as u64)), "{bytes} bytes");
        let page = store.points(&t, Place::first_of(0), u64::MAX, limit).await.expect("readable");
        assert_eq!((page.rows.len(), page.next.map(|at| at.time_ms)), (rows, Some(rows as u64)), "{bytes} bytes");
        let page = store.messages(&d, 0, Place::last_of(LAST_MS), limit).await.expect("readable");
        assert_eq!((page.rows.len(), page.next.map(|at| at.time_ms)), (rows, Some(9 - rows as u64)), "{bytes} bytes");
    }
}

async fn what_was_stored_survives_reopening(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (d, t) = (device("d"), series(&device("d"), "t"));
    store_all(&*store, crowd()).await;
    let before = (points(&*store, &t).await, messages(&*store, &d).await, newest(&*store, &d).await);
    let store = factory.reopened(store).await;
    assert_eq!((points(&*store, &t).await, messages(&*store, &d).await, newest(&*store, &d).await), before);
    store_all(&*store, crowd()).await;
    assert_eq!((points(&*store, &t).await, messages(&*store, &d).await, newest(&*store, &d).await), before);
}

/// What a store must read as.
#[derive(Default)]
struct Model {
    messages: BTreeMap<DeviceKey, BTreeMap<Place, Message>>,
    points: BTreeMap<Series, BTreeMap<Place, Point>>,
}

impl Model {
    fn keep(&mut self, entry: &Entry) {
        let Entry { device, message, values } = entry;
        self.messages.entry(device.clone()).or_default().insert(message.at, message.clone());
        for (field, value) in values {
            let (field, topic) = (field.clone(), message.topic.clone());
            let point = Point { field: field.clone(), at: message.at, topic, value: value.clone() };
            let series = Series { device: device.clone(), field };
            self.points.entry(series).or_default().insert(message.at, point);
        }
    }

    async fn compare(&self, store: &dyn SeriesStore) {
        for (device, expected) in &self.messages {
            let expected: Vec<_> = expected.values().rev().cloned().collect();
            assert_eq!(messages(store, device).await, expected);
            let of_device = self.points.iter().filter(|(series, _)| series.device == *device);
            let last = of_device.filter_map(|(_, points)| points.values().next_back().cloned());
            assert_eq!(newest(store, device).await, last.collect::<Vec<_>>());
        }
        for (series, expected) in &self.points {
            let expected: Vec<_> = expected.values().cloned().collect();
            assert_eq!(points(store, series).await, expected);
        }
    }
}

/// Batches of (device, time, id); what a message says follows from these.
fn history() -> impl Strategy<Value = Vec<Vec<(u8, u64, u8)>>> {
    let times = prop::sample::select(vec![0, 1, 2, 86_400_000, 700_000_000_000, 1_795_000_000_000]);
    prop::collection::vec(prop::collection::vec((0u8..3, times, 0u8..4), 1..12), 1..6)
}

fn told(tenant: &str, (name, time_ms, id): (u8, u64, u8)) -> Entry {
    let at = Place { time_ms, id: RecordId([id; 16]) };
    let value = |name: &str, at: usize| match (at + usize::from(id)) % 3 {
        0 => Value::Number(time_ms as f64 + f64::from(id)),
        1 => Value::Text(format!("{name} {time_ms} {id}")),
        _ => Value::Boolean(id.is_multiple_of(2)),
    };
    let fields = ["a", "b", "ab"].into_iter().enumerate().filter(|(i, _)| (usize::from(id) + i) % 4 != 0);
    let values = fields.map(|(i, name)| (field(name), value(name, i))).collect();
    entry_of(key(tenant, &format!("d{name}")), at, &format!("{time_ms} {id}"), values)
}

async fn whatever_is_stored_again_in_any_order_reads_as_the_model_says(factory: &dyn Factory) {
    let store = factory.empty().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..HISTORIES {
        let history = history().new_tree(&mut runner).expect("nothing is rejected").current();
        let (tenant, mut model) = (format!("case-{case}"), Model::default());
        for batch in history {
            let entries: Vec<Entry> = batch.into_iter().map(|what| told(&tenant, what)).collect();
            entries.iter().for_each(|entry| model.keep(entry));
            store_all(&*store, entries).await;
        }
        model.compare(&*store).await;
    }
}

/// For stores that remove by [`SeriesStore::expire`]: what is too old goes, all else stays, in bounded steps.
pub async fn expiry(factory: &dyn Factory) {
    let store = factory.empty().await;
    let (horizon_ms, mut model) = (1_000, Model::default());
    let mut entries: Vec<Entry> = (0..2_500).map(|i| entry("old", i / 4, (i % 4) as u8, "1")).collect();
    entries.extend((0..1_200).map(|i| entry(&format!("d{i}"), 900 + i / 6, 1, "2")));
    entries.extend([999, 1_000].map(|time_ms| entry("old", time_ms, 7, "3")));
    entries.iter().filter(|entry| entry.message.at.time_ms >= horizon_ms).for_each(|entry| model.keep(entry));
    let all: BTreeSet<DeviceKey> = entries.iter().map(|entry| entry.device.clone()).collect();
    store_all(&*store, entries).await;
    let (mut cursor, mut steps, mut removed) = (None, 0, 0);
    loop {
        let expired = store.expire(horizon_ms, cursor).await.expect("writable");
        (cursor, steps, removed) = (expired.next, steps + 1, removed + expired.rows);
        if cursor.is_none() {
            break;
        }
    }
    assert!(steps > 5, "{steps} steps");
    // 2,501 old messages and points of one device, 600 of others with the newest points of these.
    assert_eq!(removed, 2 * 2_501 + 3 * 600);
    let store = factory.reopened(store).await;
    model.compare(&*store).await;
    for gone in all.difference(&model.messages.keys().cloned().collect()) {
        assert_eq!((messages(&*store, gone).await, newest(&*store, gone).await), (vec![], vec![]));
    }
}
