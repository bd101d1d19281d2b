//! `cargo xtask hang`: Kafka hangs for as long as said, under a whole fleet of the release build and under one client of the
//! adapter.

use std::path::Path;

use clap::Args;

use super::release::Binaries;
use super::whole;

/// Target and filter of each test: `tests/e2e/kafka_hangs.rs`, `crates/bus-kafka/tests/it/faults.rs`.
const TESTS: [(&str, &str); 2] = [("e2e", "while_kafka_hangs"), ("it", "while_the_broker_hangs")];

/// For how long; the gate has seconds.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    binaries: Binaries,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=600))]
    seconds: u32,
}

/// Runs both tests and shows what they print.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = options.binaries.find(root)?;
    let variables = [("DROVER_KAFKA_HANG_SECONDS", options.seconds.to_string())];
    TESTS.iter().try_for_each(|(target, filter)| whole::run(root, &binaries, target, &[filter], &variables))
}
