//! A disk that fills up under the embedded store: what it has taken is there afterwards, and later rows are taken again.

use std::sync::Arc;
use std::time::Duration;

use drover_backends::small_disk;
use drover_storage::conformance::{device, entry};
use drover_storage::ports::{Limit, SeriesStore, StoreError};
use drover_storage::series::{Field, Place, Series};
use drover_storage::{Embedded, EmbeddedLimits};

const DISK_BYTES: u64 = 8 * 1024 * 1024;
/// What stands in the way, and is removed later.
const BALLAST_BYTES: usize = 6 * 1024 * 1024;
/// Large enough to fill the disk soon.
const PAYLOAD_BYTES: usize = 64 * 1024;
/// How long a store may take to be opened again, and between two tries.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const ALL: Limit = Limit { rows: 10_000, bytes: usize::MAX };

async fn store(store: &Embedded, number: u64) -> Result<(), StoreError> {
    store.store(Arc::new(vec![entry("d", number, 1, &small_disk::noise(number, PAYLOAD_BYTES))])).await
}

#[tokio::test]
async fn what_was_stored_before_the_disk_was_full_is_kept_and_with_room_rows_are_taken_again() {
    let name = "full_disk::what_was_stored_before_the_disk_was_full_is_kept_and_with_room_rows_are_taken_again";
    let Some(disk) = small_disk::enter(name, DISK_BYTES) else { return };
    let series = Embedded::open(&disk.join("store"), EmbeddedLimits::default()).expect("opens");
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).expect("there is room for it");

    let mut stored = 0;
    let failure = loop {
        match store(&series, stored).await {
            Ok(()) => stored += 1,
            Err(failure) => break failure,
        }
    };
    // Unavailable: something in the background met the full disk first, and fjall does not pass its reason on.
    assert!(matches!(failure, StoreError::Full { .. } | StoreError::Unavailable { .. }), "{failure}");
    assert!(stored > 0, "there was room at first");
    std::fs::remove_file(&ballast).expect("removed");
    // As it comes again from the log, whether it was stored or not; and one more.
    for number in [stored, stored + 1] {
        let stored = async {
            while store(&series, number).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, stored).await.expect("there is room again");
    }

    let wanted: Vec<u64> = (0..=stored + 1).collect();
    let last = Place::last_of(u64::MAX);
    let messages = series.messages(&device("d"), 0, last, ALL).await.expect("readable");
    let mut times: Vec<u64> = messages.rows.iter().map(|message| message.at.time_ms).collect();
    times.sort_unstable();
    assert_eq!((times, messages.next), (wanted.clone(), None), "each message once");
    let of = Series { device: device("d"), field: Field::new("t").expect("valid") };
    let points = series.points(&of, Place::first_of(0), u64::MAX, ALL).await.expect("readable");
    let times: Vec<u64> = points.rows.iter().map(|point| point.at.time_ms).collect();
    assert_eq!(times, wanted, "each point once");
}
