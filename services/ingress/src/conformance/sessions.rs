//! What every adapter of [`SessionStore`] must do.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use drover_mqtt::{PacketId, Property, PropertyList, SubscriptionId};
use drover_types::{ClientId, DeviceId, Qos, RecordId, TenantId, TopicName};

use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::domain::router::Options;
use crate::domain::session::Delivery;
use crate::domain::sessions::{Key, Will};
use crate::ports::sessions::{Away, Change, Head, Place, Row, SessionStore, Stored, Subscription, What};

/// Epochs as shared owners give them: microseconds since the Unix epoch.
const EPOCH: u64 = 1_795_000_000_000_000;

/// Stores to test.
#[async_trait]
pub trait SessionFactory: Send + Sync {
    /// The store, as one node has it, over what all of this factory share. One is open at a time.
    async fn open(&self) -> Arc<dyn SessionStore>;
}

/// Everything that the port promises.
pub async fn sessions(factory: &dyn SessionFactory) {
    a_session_is_read_as_it_was_written_last_and_survives_a_restart(factory).await;
    an_inbox_keeps_its_order_over_pages_epochs_and_thousands_of_numbers(factory).await;
    messages_of_one_write_keep_their_order_however_many(factory).await;
    what_is_removed_is_gone_one_by_one_and_all_that_is_passed(factory).await;
    a_write_that_is_made_again_has_the_effect_of_once(factory).await;
    a_session_that_has_ended_leaves_nothing_to_the_next_of_its_client(factory).await;
    a_node_finds_its_own_sessions_page_by_page(factory).await;
}

/// The writer of one session.
struct Writer {
    store: Arc<dyn SessionStore>,
    key: Key,
    stamp: u64,
}

impl Writer {
    async fn of(factory: &dyn SessionFactory, client: &str) -> Self {
        let key = (TenantId::new("home").expect("valid"), ClientId::new(client).expect("valid"));
        Self { store: factory.open().await, key, stamp: EPOCH }
    }

    async fn reopened(self, factory: &dyn SessionFactory) -> Self {
        let Self { store, key, stamp } = self;
        drop(store);
        Self { store: factory.open().await, key, stamp }
    }

    fn changes(&mut self, all: impl IntoIterator<Item = What>) -> Arc<[Change]> {
        let key = Arc::new(self.key.clone());
        let change = |what| {
            self.stamp += 1;
            Change { key: key.clone(), stamp: self.stamp, what }
        };
        all.into_iter().map(change).collect()
    }

    async fn write(&mut self, all: impl IntoIterator<Item = What>) {
        let changes = self.changes(all);
        self.store.write(changes).await.expect("written");
    }

    async fn read(&self) -> Option<Stored> {
        self.store.read(&self.key).await.expect("read")
    }

    /// The places of all messages, read by pages of `rows_max`.
    async fn places(&self, rows_max: usize) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        loop {
            let page = self.store.inbox(&self.key, places.last().copied(), rows_max).await.expect("read");
            places.extend(page.iter().map(|row| row.place));
            if page.len() < rows_max {
                return places;
            }
        }
    }
}

fn head(epoch: u64) -> Head {
    Head {
        epoch,
        device: DeviceId::new("d").expect("valid"),
        expiry_s: 60,
        away: Some(Away { ends_ms: 1_000, will_ms: 500 }),
        will: Some(Will { publication: publication("w", Qos::AtLeastOnce), delay_s: 5 }),
        sent: Some(at(epoch, 3)),
    }
}

fn at(epoch: u64, number: u32) -> Place {
    Place { epoch, number }
}

fn publication(topic: &str, qos: Qos) -> Publication {
    let mut list = PropertyList::default();
    list.push(Property::UserProperty(("k", "v"))).expect("short");
    list.push(Property::MessageExpiry(9)).expect("short");
    Publication {
        topic: TopicName::new(topic).expect("valid"),
        payload: Bytes::from_static(b"\x00x"),
        qos,
        retain: true,
        dup: false,
        packet_id: 0,
        properties: Forwarded::of(list.as_properties()),
    }
}

fn message() -> Message {
    let publisher = Publisher {
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new("p").expect("valid"),
        client: ClientId::new("p").expect("valid"),
        epoch: 0,
    };
    let stamp = Stamp { id: RecordId([7; 16]), time_ms: 1_000, traceparent: None };
    publication("a/b", Qos::ExactlyOnce).stamp(publisher, stamp)
}

fn row(place: Place) -> Row {
    let delivery = Delivery {
        message: Arc::new(message()),
        qos: Qos::ExactlyOnce,
        retain: true,
        ids: [SubscriptionId::new(3).expect("valid")].into(),
        share: Some("$share/g/a/+".into()),
    };
    Row { place, packet_id: PacketId::MIN, delivery: Some(delivery) }
}

async fn a_session_is_read_as_it_was_written_last_and_survives_a_restart(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "restart").await;
    assert_eq!(writer.read().await, None);
    let options = Options {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        id: SubscriptionId::new(268_435_455),
    };
    let subscription = |filter: &str, options| Subscription { filter: filter.into(), options };
    let subscriptions = vec![subscription("a/#", options), subscription("$share/g/b", Options::default())];
    let received = vec![PacketId::MIN, PacketId::MAX];
    let held = Head { away: None, will: None, sent: None, ..head(EPOCH) };
    let filters = |all: &[Subscription]| What::Subscriptions(all.to_vec());
    writer.write([What::Head(Box::new(held.clone())), filters(&subscriptions[..1])]).await;
    let first = writer.read().await.expect("it is there");
    assert_eq!((&first.head, first.subscriptions.len(), first.received.len()), (&held, 1, 0));
    let changes = [filters(&subscriptions), What::Received(received.clone()), What::Head(Box::new(head(EPOCH)))];
    writer.write(changes).await;
    writer.write([What::Put(row(at(EPOCH, 0)))]).await;
    let writer = writer.reopened(factory).await;
    let stored = writer.read().await.expect("it is there");
    assert!(stored.stamp > first.stamp);
    let (stamp, node) = (stored.stamp, stored.node.clone());
    assert_eq!(stored, Stored { head: head(EPOCH), subscriptions, received, stamp, node });
    assert_eq!(writer.store.inbox(&writer.key, None, 2).await.expect("read"), [row(at(EPOCH, 0))]);
}

async fn an_inbox_keeps_its_order_over_pages_epochs_and_thousands_of_numbers(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "order").await;
    let places =
        [at(EPOCH, 0), at(EPOCH, 999), at(EPOCH, 1_000), at(EPOCH, 70_000), at(EPOCH + 1, 0), at(EPOCH + 2, 5)];
    writer.write(places.map(|place| What::Put(row(place)))).await;
    writer.write([What::Put(Row { delivery: None, ..row(at(EPOCH, 999)) })]).await;
    for rows_max in [1, 2, 4, 100] {
        assert_eq!(writer.places(rows_max).await, places, "by pages of {rows_max}");
    }
    let rows = writer.store.inbox(&writer.key, Some(places[0]), 1).await.expect("read");
    assert_eq!(rows, [Row { delivery: None, ..row(at(EPOCH, 999)) }], "the later state of it");
    let key = (writer.key.0.clone(), ClientId::new("order-").expect("valid"));
    let other = Writer { key, ..writer };
    assert!(other.places(10).await.is_empty(), "another session's");
}

async fn messages_of_one_write_keep_their_order_however_many(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "many").await;
    let places: Vec<Place> = (700..1_300).map(|number| at(EPOCH, number)).collect();
    let puts = places.iter().map(|place| What::Put(row(*place)));
    let states = places.iter().map(|place| What::Put(Row { delivery: None, ..row(*place) }));
    let changes: Vec<What> = puts.chain(states).chain([What::Remove(places[1])]).collect();
    writer.write(changes).await;
    let rows = writer.store.inbox(&writer.key, None, 1_000).await.expect("read");
    let found: Vec<Place> = rows.iter().map(|row| row.place).collect();
    assert_eq!((found[0], &found[1..]), (places[0], &places[2..]));
    assert!(rows.iter().all(|row| row.delivery.is_none()), "the later state of each");
}

async fn what_is_removed_is_gone_one_by_one_and_all_that_is_passed(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "removed").await;
    let epochs = [EPOCH, EPOCH + 1];
    let numbers = [0, 1, 2, 998, 999, 1_000, 1_001, 2_500];
    let all = || epochs.into_iter().flat_map(move |epoch| numbers.map(|number| at(epoch, number)));
    writer.write(all().map(|place| What::Put(row(place)))).await;
    let mut left: Vec<Place> = all().collect();
    let mut removed_before = at(EPOCH, 0);
    for before in
        [at(EPOCH, 1), at(EPOCH, 999), at(EPOCH, 1_000), at(EPOCH, 1_001), at(EPOCH + 1, 1), at(EPOCH + 1, 2_000)]
    {
        let hole = at(EPOCH + 1, 2_500);
        writer.write([What::Passed { from: removed_before, before }, What::Remove(hole)]).await;
        left.retain(|place| *place >= before && *place != hole);
        assert_eq!(writer.places(100).await, left, "passed {before:?}");
        removed_before = before;
    }
    // What is removed in the same write that adds it is not there.
    let place = at(EPOCH + 1, 3_000);
    writer.write([What::Put(row(place)), What::Remove(place)]).await;
    let place = at(EPOCH + 1, 3_001);
    let passed = What::Passed { from: removed_before, before: at(EPOCH + 1, 3_002) };
    writer.write([What::Put(row(place)), passed]).await;
    assert!(writer.places(100).await.is_empty());
}

async fn a_write_that_is_made_again_has_the_effect_of_once(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "again").await;
    let first = writer.changes([
        What::Head(Box::new(head(EPOCH))),
        What::Put(row(at(EPOCH, 0))),
        What::Put(row(at(EPOCH, 1))),
        What::Remove(at(EPOCH, 0)),
    ]);
    for _ in 0..3 {
        writer.store.write(first.clone()).await.expect("written");
        assert_eq!(writer.places(100).await, [at(EPOCH, 1)]);
    }
}

async fn a_session_that_has_ended_leaves_nothing_to_the_next_of_its_client(factory: &dyn SessionFactory) {
    let mut writer = Writer::of(factory, "ended").await;
    let first = |epoch| {
        let filter = Subscription { filter: "a".into(), options: Options::default() };
        let (head, row) = (What::Head(Box::new(head(epoch))), What::Put(row(at(epoch, 1_000))));
        [head, What::Subscriptions(vec![filter]), What::Received(vec![PacketId::MIN]), row]
    };
    writer.write(first(EPOCH)).await;
    writer.write([What::End]).await;
    assert_eq!((writer.read().await, writer.places(10).await), (None, vec![]));
    assert!(writer.store.own(None, 1_000).await.expect("read").iter().all(|(key, _)| *key != writer.key));

    writer.write(first(EPOCH + 1_000)).await;
    let next = [What::Head(Box::new(head(EPOCH + 2_000))), What::Put(row(at(EPOCH + 2_000, 0)))];
    writer.write([What::Put(row(at(EPOCH + 1_000, 2))), What::End].into_iter().chain(next)).await;
    let stored = writer.read().await.expect("the next one");
    assert_eq!((stored.head.epoch, stored.subscriptions, stored.received), (EPOCH + 2_000, vec![], vec![]));
    assert_eq!(writer.places(10).await, [at(EPOCH + 2_000, 0)]);
}

async fn a_node_finds_its_own_sessions_page_by_page(factory: &dyn SessionFactory) {
    let names: Vec<String> = (0..20).map(|n| format!("own-{n:02}")).collect();
    let mut keys = Vec::new();
    for name in &names {
        let mut writer = Writer::of(factory, name).await;
        writer.write([What::Head(Box::new(head(EPOCH)))]).await;
        keys.push(writer.key);
    }
    let store = factory.open().await;
    for sessions_max in [1, 7, 1_000] {
        let mut found: Vec<Key> = Vec::new();
        loop {
            let page = store.own(found.last(), sessions_max).await.expect("read");
            assert!(page.len() <= sessions_max);
            let Some(_) = page.last() else { break };
            let mut heads = page.iter().map(|(_, stored)| &stored.as_ref().expect("not corrupt").head);
            assert!(heads.all(|stored| *stored == head(stored.epoch)));
            found.extend(page.into_iter().map(|(key, _)| key));
        }
        let mut ours: Vec<Key> = found.into_iter().filter(|(_, client)| client.as_str().starts_with("own-")).collect();
        ours.sort();
        assert_eq!(ours, keys, "by pages of {sessions_max}");
    }
}
