//! The embedded log through its public interface: the conformance suite, crashes, damaged files, full disks.

mod crash;
mod damage;
mod faults;
mod faulty_disk;
mod full_disk;
mod keeping;
mod ledger;
mod look;
mod repair;
mod retained;

use std::sync::Arc;

use drover_bus::conformance::{Fixture, topics};
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};

drover_bus::conformance_suite!(embedded());

fn embedded() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("opens");
    Fixture::new(Arc::new(bus), directory)
}

/// As in the suite, where segments are so small and so little is in memory that compaction shows.
#[tokio::test]
async fn the_newest_record_of_each_key_outlives_compaction() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let options = EmbeddedOptions { segment_bytes: 512 * 1024, tail_bytes: 0, ..EmbeddedOptions::default() };
    let (bus, _) = EmbeddedBus::open(directory.path(), options).expect("opens");
    let fixture = Fixture::new(Arc::new(bus), directory).compacting();
    topics::the_newest_record_of_each_key_stays_in_a_compacted_topic(&fixture).await;
}
