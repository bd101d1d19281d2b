//! A disk that fills up under the embedded store of sessions: an inbox keeps what was answered, and takes more with room.

use std::sync::Arc;
use std::time::Duration;

use drover_backends::small_disk;
use drover_ingress::conformance::BOUNDS;
use drover_ingress::domain::message::{Publication, Publisher, Stamp};
use drover_ingress::domain::session::Delivery;
use drover_ingress::domain::sessions::Key;
use drover_ingress::embedded;
use drover_ingress::ports::StoreError;
use drover_ingress::ports::sessions::{Change, Head, Place, Row, SessionStore, What};
use drover_mqtt::PacketId;
use drover_types::{ClientId, DeviceId, Qos, RecordId, TenantId, TopicName};

const DISK_BYTES: u64 = 8 * 1024 * 1024;
/// What stands in the way, and is removed later.
const BALLAST_BYTES: usize = 6 * 1024 * 1024;
/// Large enough to fill the disk soon.
const PAYLOAD_BYTES: usize = 64 * 1024;
/// How long a store may take to be opened again, and between two tries.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The session of a client that is away.
fn session() -> (Key, Head) {
    let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
    let device = DeviceId::new("d").expect("valid");
    (key, Head { epoch: 1, device, expiry_s: 60, away: None, will: None, sent: None })
}

fn payload(number: u32) -> String {
    small_disk::noise(number.into(), PAYLOAD_BYTES)
}

/// A message in its inbox.
fn row(number: u32) -> Row {
    let publisher = Publisher {
        tenant: TenantId::default_tenant(),
        device: DeviceId::new("p").expect("valid"),
        client: ClientId::new("p").expect("valid"),
        epoch: 0,
    };
    let publication = Publication {
        topic: TopicName::new("t").expect("valid"),
        payload: payload(number).into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: 1,
        properties: None,
    };
    let message = publication.stamp(publisher, Stamp { id: RecordId([7; 16]), time_ms: 1_000, traceparent: None });
    let qos = Qos::AtLeastOnce;
    let delivery = Delivery { message: Arc::new(message), qos, retain: false, ids: Box::default(), share: None };
    Row { place: Place { epoch: 1, number }, packet_id: PacketId::MIN, delivery: Some(delivery) }
}

#[tokio::test]
async fn what_an_inbox_took_before_the_disk_was_full_is_kept_and_with_room_it_takes_more() {
    let name = "full_disk::what_an_inbox_took_before_the_disk_was_full_is_kept_and_with_room_it_takes_more";
    let Some(disk) = small_disk::enter(name, DISK_BYTES) else { return };
    let (_, sessions) = embedded::open(&disk.join("store"), BOUNDS).expect("opens");
    let (key, head) = session();
    let shared_key = Arc::new(key.clone());
    let write = async |stamp: u64, what: What| {
        let changes: Arc<[Change]> = Arc::from([Change { key: shared_key.clone(), stamp, what }]);
        sessions.write(changes).await
    };
    write(1, What::Head(Box::new(head.clone()))).await.expect("there is room for it");
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).expect("there is room for it");

    let mut kept = 0;
    let failure = loop {
        match write(2 + u64::from(kept), What::Put(row(kept))).await {
            Ok(()) => kept += 1,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, StoreError::Unavailable { .. }), "{failure}");
    assert!(kept > 0, "there was room at first");
    std::fs::remove_file(&ballast).expect("removed");
    // As the node writes it again, whether it is there or not; and one more.
    for number in [kept, kept + 1] {
        let written = async {
            while write(2 + u64::from(number), What::Put(row(number))).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.expect("there is room again");
    }

    let stored = sessions.read(&key).await.expect("readable").expect("there is a session");
    assert_eq!(stored.head, head);
    let rows = sessions.inbox(&key, None, usize::MAX).await.expect("readable");
    assert_eq!(rows.iter().map(|row| row.place.number).collect::<Vec<_>>(), (0..=kept + 1).collect::<Vec<_>>());
    for row in rows {
        let payload = payload(row.place.number);
        assert!(row.delivery.is_some_and(|delivery| delivery.message.telemetry.payload == payload), "{:?}", row.place);
    }
}
