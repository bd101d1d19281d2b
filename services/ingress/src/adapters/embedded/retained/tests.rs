//! What the port promises, kept by the embedded store, and what is this store's own.

use bytes::Bytes;
use drover_types::{ClientId, DeviceId, Qos, RecordId, TopicName};

use super::*;
use crate::adapters::embedded;
use crate::adapters::rows::retained::REMOVAL_MS;
use crate::conformance::{BOUNDS, RetainedFactory, retained};
use crate::domain::message::{Publication, Publisher, Stamp};

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn open(&self) -> Retained {
        embedded::open(&self.0.path().join("store"), BOUNDS).expect("opens").0
    }
}

#[async_trait]
impl RetainedFactory for Directory {
    async fn open(&self) -> Arc<dyn RetainedStore> {
        Arc::new(self.open())
    }
}

fn message(payload: &'static str) -> Arc<Message> {
    let publication = Publication {
        topic: TopicName::new("t").expect("valid"),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: Qos::AtMostOnce,
        retain: true,
        dup: false,
        packet_id: 0,
        properties: None,
    };
    let publisher = Publisher {
        tenant: TenantId::new("home").expect("valid"),
        device: DeviceId::new("d").expect("valid"),
        client: ClientId::new("c").expect("valid"),
        epoch: 0,
    };
    Arc::new(publication.stamp(publisher, Stamp { id: RecordId([7; 16]), time_ms: 7, traceparent: None }))
}

#[tokio::test]
async fn the_embedded_store_keeps_every_promise() {
    retained(&Directory::new()).await;
}

#[tokio::test]
async fn who_retains_nothing_pays_nothing() {
    let directory = Directory::new();
    let store = directory.open();
    let query = RetainedQuery {
        tenant: TenantId::new("home").expect("valid"),
        filter: "#".into(),
        after: None,
        now_ms: 0,
        messages_max: 1,
        bytes_max: 1,
    };
    assert!(store.matching(query).await.expect("read").messages.is_empty());
    assert!(!directory.0.path().join("store").exists());
}

#[tokio::test]
async fn a_removal_is_forgotten_when_no_message_of_before_can_be_on_its_way() {
    let directory = Directory::new();
    let store = directory.open();
    store.keep(vec![message("")]).await.expect("kept");
    assert_eq!(store.sweep(7 + REMOVAL_MS - 1).await.expect("swept"), 0);
    assert_eq!(store.sweep(7 + REMOVAL_MS).await.expect("swept"), 1);
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused() {
    let directory = Directory::new();
    let first = directory.open();
    first.keep(vec![message("1")]).await.expect("kept");
    let second = embedded::open(&directory.0.path().join("store"), BOUNDS).map(drop);
    assert!(matches!(second, Err(drover_fjall_kit::OpenError::Locked { .. })));
}
