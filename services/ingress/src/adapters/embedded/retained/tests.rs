//! What the port promises, kept by the embedded store.

use bytes::Bytes;
use drover_mqtt::{Property, PropertyList};
use drover_types::{ClientId, DeviceId, Qos, RecordId, TopicName};

use super::*;
use crate::domain::message::{Forwarded, Publication, Publisher, Stamp};

const BOUNDS: RetainedBounds = RetainedBounds { messages: 3, bytes: 1_000 };

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("valid")
}

/// A retained message of tenant `home`, with a user property.
fn message(topic: &str, payload: &str, time_ms: u64) -> Message {
    of("home", topic, payload, time_ms, None)
}

fn of(tenant_id: &str, topic: &str, payload: &str, time_ms: u64, expiry_s: Option<u32>) -> Message {
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
        tenant: tenant(tenant_id),
        device: DeviceId::new("d").expect("valid"),
        client: ClientId::new("c").expect("valid"),
        epoch: 0,
    };
    publication.stamp(&publisher, Stamp { id: RecordId([7; 16]), time_ms, traceparent: None })
}

fn query(filter: &str) -> RetainedQuery {
    RetainedQuery {
        tenant: tenant("home"),
        filter: filter.into(),
        after: None,
        now_ms: 0,
        messages_max: 100,
        bytes_max: 1 << 20,
    }
}

struct Store {
    store: Retained,
    directory: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { store: Retained::open(&directory.path().join("store"), BOUNDS).expect("opens"), directory }
    }

    fn reopened(self) -> Self {
        let Self { store, directory } = self;
        drop(store);
        Self { store: Retained::open(&directory.path().join("store"), BOUNDS).expect("opens"), directory }
    }

    async fn keep(&self, messages: &[Message]) -> usize {
        self.store.keep(messages.iter().cloned().map(Arc::new).collect()).await.expect("kept")
    }

    async fn read(&self, query: RetainedQuery) -> Vec<String> {
        let page = self.store.matching(query).await.expect("read");
        let text = |m: Message| format!("{}={}", m.telemetry.topic, String::from_utf8_lossy(&m.telemetry.payload));
        page.messages.into_iter().map(text).collect()
    }
}

#[tokio::test]
async fn the_last_message_of_a_topic_is_kept_as_it_was_sent_and_survives_a_restart() {
    let store = Store::new();
    assert!(store.read(query("#")).await.is_empty());
    assert!(!store.directory.path().join("store").exists(), "who retains nothing pays nothing");
    store.keep(&[message("a/b", "1", 1), message("a/b", "2", 2), message("a", "x", 1)]).await;
    let store = store.reopened();
    assert_eq!(store.read(query("a/#")).await, ["a=x", "a/b=2"]);
    let page = store.store.matching(query("a/b")).await.expect("read");
    assert_eq!(page.messages, [message("a/b", "2", 2)]);
}

#[tokio::test]
async fn of_several_messages_the_last_by_time_and_id_stays_in_whatever_order_they_come() {
    let store = Store::new();
    store.keep(&[message("t", "late", 5)]).await;
    store.keep(&[message("t", "early", 4)]).await;
    assert_eq!(store.read(query("t")).await, ["t=late"]);
    store.keep(&[message("t", "", 7)]).await; // [MQTT-3.3.1-6]
    store.keep(&[message("t", "before the removal", 6)]).await;
    assert!(store.read(query("t")).await.is_empty(), "a removal is remembered");
    let store = store.reopened();
    assert!(store.read(query("#")).await.is_empty());
    assert_eq!(store.store.sweep(7 + REMOVAL_MS).await.expect("swept"), 1);
    store.keep(&[message("t", "after", 8)]).await;
    assert_eq!(store.read(query("t")).await, ["t=after"]);
}

#[tokio::test]
async fn a_filter_finds_what_it_matches_page_by_page_and_never_another_tenants() {
    let store = Store::new();
    let topics = ["a", "a/b", "ab"];
    store.keep(&topics.map(|topic| message(topic, "1", 1))).await;
    store.keep(&[of("other", "a", "1", 1, None)]).await;
    for (filter, expected) in [
        ("#", vec!["a=1", "a/b=1", "ab=1"]),
        ("a/#", vec!["a=1", "a/b=1"]),
        ("a/+", vec!["a/b=1"]),
        ("+", vec!["a=1", "ab=1"]),
        ("a", vec!["a=1"]),
        ("+/b", vec!["a/b=1"]),
        ("b/#", vec![]),
    ] {
        assert_eq!(store.read(query(filter)).await, expected, "{filter}");
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let query = RetainedQuery { after, messages_max: 1, ..query(filter) };
            let page = store.store.matching(query).await.expect("read");
            found.extend(page.messages.into_iter().map(|m| format!("{}=1", m.telemetry.topic)));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(found, expected, "{filter} by pages of one");
    }
}

#[tokio::test]
async fn a_tenant_keeps_no_more_than_its_bounds_and_another_is_not_hurt() {
    let store = Store::new();
    let topics = ["a", "b", "c", "d"];
    assert_eq!(store.keep(&topics.map(|topic| message(topic, "1", 1))).await, 1);
    assert_eq!(store.keep(&[message("a", "2", 2), of("other", "d", "1", 1, None)]).await, 0, "replaced, and other");
    let store = store.reopened();
    assert_eq!(store.keep(&[message("d", "1", 1)]).await, 1);
    assert_eq!(store.keep(&[message("a", "", 3), message("d", "1", 3)]).await, 0, "a removal gives room back");
    assert_eq!(store.keep(&[message("b", &"x".repeat(BOUNDS.bytes), 4)]).await, 1, "bytes");
    assert_eq!(store.read(query("#")).await, ["b=1", "c=1", "d=1"]);
}

#[tokio::test]
async fn what_has_expired_is_not_sent_and_gives_its_room_back() {
    let store = Store::new();
    store.keep(&[of("home", "t", "x", 1_000, Some(2))]).await;
    let at = |now_ms| RetainedQuery { now_ms, ..query("t") };
    assert_eq!(store.read(at(2_999)).await, ["t=x"]);
    assert!(store.read(at(3_000)).await.is_empty());
    assert_eq!(store.store.sweep(2_999).await.expect("swept"), 0);
    assert_eq!(store.store.sweep(3_000).await.expect("swept"), 1);
    assert!(store.read(at(0)).await.is_empty());
}

#[tokio::test]
async fn many_who_keep_at_once_are_all_answered() {
    let store = Store::new();
    let keep = |n: u64| {
        let store = store.store.clone();
        async move { store.keep(vec![Arc::new(message("t", &n.to_string(), n))]).await }
    };
    let answers = futures::future::join_all((1..=50).map(keep)).await;
    assert!(answers.into_iter().all(|answer| matches!(answer, Ok(0))));
    assert_eq!(store.read(query("t")).await, ["t=50"]);
}

#[test]
fn a_directory_that_is_in_use_or_somebody_elses_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let first = Retained::open(&directory.path().join("store"), BOUNDS).expect("opens");
    runtime.block_on(first.keep(vec![Arc::new(message("t", "1", 1))])).expect("kept");
    let second = Retained::open(&directory.path().join("store"), BOUNDS);
    assert!(matches!(second, Err(OpenError::Locked { .. })));
}
