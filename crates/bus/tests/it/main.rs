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

use drover_bus::conformance::Fixture;
use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};

drover_bus::conformance_suite!(embedded());

fn embedded() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("opens");
    Fixture::new(Arc::new(bus), directory)
}
