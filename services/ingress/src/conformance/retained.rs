//! What every adapter of [`RetainedStore`] must do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use drover_host::SystemClock;
use drover_mqtt::{Property, PropertyList};
use drover_types::{ClientId, Clock, DeviceId, Qos, RecordId, TenantId, TopicName};
use futures::future::{join, join_all};

pub use crate::adapters::rows::retained::REMOVAL_MS;
use crate::domain::message::{Forwarded, Message, Publication, Publisher, Stamp};
use crate::ports::{RetainedBounds, RetainedQuery, RetainedStore};

/// What a tenant may retain in these tests.
pub const BOUNDS: RetainedBounds = RetainedBounds { messages: 3, bytes: 1_000 };
/// Calls made at the same time.
const AT_ONCE: u64 = 50;
/// First levels that become empty, and are written to while they are swept.
const LEVELS: u64 = 20;

/// Stores to test.
#[async_trait]
pub trait RetainedFactory: Send + Sync {
    /// The store, with [`BOUNDS`], over what all of this factory share. One is open at a time.
    async fn open(&self) -> Arc<dyn RetainedStore>;
}

/// Everything that the port promises.
pub async fn retained(factory: &dyn RetainedFactory) {
    the_last_message_of_a_topic_is_kept_as_it_was_sent_and_survives_a_restart(factory).await;
    of_several_messages_the_last_by_time_and_id_stays_in_whatever_order_they_come(factory).await;
    a_filter_finds_what_it_matches_page_by_page_and_never_another_tenants(factory).await;
    a_tenant_keeps_no_more_than_its_bounds_and_another_is_not_hurt(factory).await;
    what_has_expired_is_not_sent_and_gives_its_room_back(factory).await;
    many_who_keep_at_once_are_all_answered(factory).await;
    what_is_kept_under_an_empty_level_while_it_is_swept_is_found(factory).await;
}

/// A time of the system's clock, by which stores may go: not before anything that was kept so far, and before all that
/// is kept from now on. Milliseconds since the Unix epoch.
pub async fn moment_ms() -> u64 {
    let moment_ms = SystemClock.now_ms();
    while SystemClock.now_ms() <= moment_ms {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    moment_ms
}

/// A store, and a tenant that no other test uses.
struct Place {
    store: Arc<dyn RetainedStore>,
    tenant: TenantId,
}

impl Place {
    async fn of(factory: &dyn RetainedFactory, tenant: &str) -> Self {
        Self { store: factory.open().await, tenant: TenantId::new(tenant).expect("valid") }
    }

    async fn reopened(self, factory: &dyn RetainedFactory) -> Self {
        let Self { store, tenant } = self;
        drop(store);
        Self { store: factory.open().await, tenant }
    }

    /// A retained message with a user property.
    fn message(&self, topic: &str, payload: &str, time_ms: u64) -> Message {
        message(&self.tenant, topic, payload, time_ms, 7, None)
    }

    fn query(&self, filter: &str) -> RetainedQuery {
        RetainedQuery {
            tenant: self.tenant.clone(),
            filter: filter.into(),
            after: None,
            now_ms: 0,
            messages_max: 100,
            bytes_max: 1 << 20,
        }
    }

    async fn keep(&self, messages: &[Message]) -> usize {
        self.store.keep(messages.iter().cloned().map(Arc::new).collect()).await.expect("kept")
    }

    async fn read(&self, query: RetainedQuery) -> Vec<String> {
        let page = self.store.matching(query).await.expect("read");
        let text = |m: Message| format!("{}={}", m.telemetry.topic, String::from_utf8_lossy(&m.telemetry.payload));
        page.messages.into_iter().map(text).collect()
    }

    async fn read_all(&self, filter: &str) -> Vec<String> {
        self.read(self.query(filter)).await
    }
}

/// A retained message with a user property.
pub fn message(tenant: &TenantId, topic: &str, payload: &str, time_ms: u64, id: u8, expiry_s: Option<u32>) -> Message {
    let mut list = PropertyList::default();
    list.push(Property::UserProperty(("k", "v"))).expect("short");
    expiry_s.iter().for_each(|s| list.push(Property::MessageExpiry(*s)).expect("short"));
    let publication = Publication {
        topic: TopicName::new(topic).expect("valid"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::ExactlyOnce,
        retain: true,
        dup: false,
        packet_id: 0,
        properties: Forwarded::of(list.as_properties()),
    };
    let publisher = Publisher {
        tenant: tenant.clone(),
        device: DeviceId::new("d").expect("valid"),
        client: ClientId::new("c").expect("valid"),
        epoch: 0,
    };
    publication.stamp(publisher, Stamp { id: RecordId([id; 16]), time_ms, traceparent: None })
}

async fn the_last_message_of_a_topic_is_kept_as_it_was_sent_and_survives_a_restart(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "restart").await;
    assert!(place.read_all("#").await.is_empty());
    let messages = [place.message("a/b", "1", 1), place.message("a/b", "2", 2), place.message("a", "x", 1)];
    place.keep(&messages).await;
    let place = place.reopened(factory).await;
    assert_eq!(place.read_all("a/#").await, ["a=x", "a/b=2"]);
    let page = place.store.matching(place.query("a/b")).await.expect("read");
    assert_eq!(page.messages, [messages[1].clone()]);
}

async fn of_several_messages_the_last_by_time_and_id_stays_in_whatever_order_they_come(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "order").await;
    place.keep(&[place.message("t", "late", 5)]).await;
    place.keep(&[place.message("t", "early", 4)]).await;
    place.keep(&[message(&place.tenant, "t", "lower id", 5, 6, None)]).await;
    assert_eq!(place.read_all("t").await, ["t=late"]);
    place.keep(&[message(&place.tenant, "t", "higher id", 5, 8, None)]).await;
    assert_eq!(place.read_all("t").await, ["t=higher id"]);
    place.keep(&[place.message("t", "", 7)]).await; // [MQTT-3.3.1-6]
    place.keep(&[place.message("t", "before the removal", 6)]).await;
    assert!(place.read_all("t").await.is_empty(), "a removal is remembered");
    let place = place.reopened(factory).await;
    assert!(place.read_all("#").await.is_empty());
    place.keep(&[place.message("t", "after", 8)]).await;
    assert_eq!(place.read_all("t").await, ["t=after"]);
}

async fn a_filter_finds_what_it_matches_page_by_page_and_never_another_tenants(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "filters").await;
    let topics = ["a", "a/b", "ab"];
    place.keep(&topics.map(|topic| place.message(topic, "1", 1))).await;
    let other = TenantId::new("filters-other").expect("valid");
    place.keep(&[message(&other, "a", "1", 1, 7, None)]).await;
    for (filter, expected) in [
        ("#", vec!["a=1", "a/b=1", "ab=1"]),
        ("a/#", vec!["a=1", "a/b=1"]),
        ("a/+", vec!["a/b=1"]),
        ("+", vec!["a=1", "ab=1"]),
        ("a", vec!["a=1"]),
        ("+/b", vec!["a/b=1"]),
        ("b/#", vec![]),
    ] {
        assert_eq!(place.read_all(filter).await, expected, "{filter}");
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let query = RetainedQuery { after, messages_max: 1, ..place.query(filter) };
            let page = place.store.matching(query).await.expect("read");
            found.extend(page.messages.into_iter().map(|m| format!("{}=1", m.telemetry.topic)));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found, expected, "{filter} by pages of one");
    }
}

async fn a_tenant_keeps_no_more_than_its_bounds_and_another_is_not_hurt(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "bounds").await;
    let other = TenantId::new("bounds-other").expect("valid");
    for (topic, refused) in [("a", 0), ("b", 0), ("c", 0), ("d", 1)] {
        assert_eq!(place.keep(&[place.message(topic, "1", 1)]).await, refused, "{topic}");
    }
    let replaced = [place.message("a", "2", 2), message(&other, "d", "1", 1, 7, None)];
    assert_eq!(place.keep(&replaced).await, 0, "replaced, and another's");
    let place = place.reopened(factory).await;
    assert_eq!(place.keep(&[place.message("d", "1", 1)]).await, 1);
    assert_eq!(place.keep(&[place.message("a", "", 3)]).await, 0);
    assert_eq!(place.keep(&[place.message("d", "1", 3)]).await, 0, "a removal gives room back");
    assert_eq!(place.keep(&[place.message("b", &"x".repeat(BOUNDS.bytes), 4)]).await, 1, "bytes");
    assert_eq!(place.read_all("#").await, ["b=1", "c=1", "d=1"]);
}

async fn what_has_expired_is_not_sent_and_gives_its_room_back(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "expiry").await;
    place.keep(&[message(&place.tenant, "t", "x", 1_000, 7, Some(2))]).await;
    place.keep(&["u", "v"].map(|topic| place.message(topic, "1", 1))).await;
    let at = |now_ms| RetainedQuery { now_ms, ..place.query("t") };
    assert_eq!(place.read(at(2_999)).await, ["t=x"]);
    assert!(place.read(at(3_000)).await.is_empty());
    assert_eq!(place.store.sweep(2_999).await.expect("swept"), 0);
    assert_eq!(place.keep(&[place.message("w", "1", 1)]).await, 1);
    assert_eq!(place.store.sweep(3_000).await.expect("swept"), 1);
    assert!(place.read(at(0)).await.is_empty());
    assert_eq!(place.keep(&[place.message("w", "1", 1)]).await, 0);
}

async fn many_who_keep_at_once_are_all_answered(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "many").await;
    let keep = |n: u64| place.store.keep(vec![Arc::new(place.message("t", &n.to_string(), n))]);
    let answers = join_all((1..=AT_ONCE).map(keep)).await;
    assert!(answers.into_iter().all(|answer| matches!(answer, Ok(0))));
    assert_eq!(place.read_all("t").await, [format!("t={AT_ONCE}")]);
}

async fn what_is_kept_under_an_empty_level_while_it_is_swept_is_found(factory: &dyn RetainedFactory) {
    let place = Place::of(factory, "levels").await;
    place.keep(&[place.message("stays/1", "1", 1)]).await;
    for n in 1..=LEVELS {
        let topic = format!("level-{n}/1");
        place.keep(&[place.message(&topic, "1", 1)]).await;
        place.keep(&[place.message(&topic, "", 2)]).await;
        let later_ms = moment_ms().await + REMOVAL_MS;
        let again = vec![Arc::new(place.message(&topic, "2", 3))];
        let (swept, kept) = join(place.store.sweep(later_ms), place.store.keep(again)).await;
        assert!(swept.is_ok() && matches!(kept, Ok(0)), "{swept:?} {kept:?}");
        for filter in ["#", "+/1", "+/#"] {
            assert_eq!(place.read_all(filter).await, [format!("{topic}=2"), "stays/1=1".to_owned()], "{filter}");
        }
        place.keep(&[place.message(&topic, "", 4)]).await;
    }
    let later_ms = moment_ms().await + REMOVAL_MS;
    place.store.sweep(later_ms).await.expect("swept");
    let place = place.reopened(factory).await;
    assert_eq!(place.read_all("#").await, ["stays/1=1"]);
}
