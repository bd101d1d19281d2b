//! `cargo xtask ledger`: the fault test of `tests/e2e/ledger_faults.rs` over the release build, with other numbers than the
//! gate's.

use std::path::Path;

use clap::Args;

use super::release::Binaries;
use super::whole;

/// How much happens; the defaults are the full form.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    binaries: Binaries,
    #[arg(long, default_value_t = 200)]
    devices: u32,
    /// Of each device.
    #[arg(long, default_value_t = 5_000)]
    messages: u32,
    #[arg(long, default_value_t = 20)]
    faults: u32,
    /// The longest of them, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Faults of Kafka, Cassandra, one ingress and one rules process only: of what a message needs on its way.
    #[arg(long)]
    on_the_way: bool,
    /// Which faults, when and for how long; absent: another one each time, printed.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the test and shows what it prints.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let Options { binaries, devices, messages, faults, seconds, on_the_way, seed } = options;
    let mut variables = vec![
        ("DROVER_LEDGER_DEVICES", devices.to_string()),
        ("DROVER_LEDGER_MESSAGES", messages.to_string()),
        ("DROVER_LEDGER_FAULTS", faults.to_string()),
        ("DROVER_LEDGER_SECONDS", seconds.to_string()),
    ];
    variables.extend(on_the_way.then(|| ("DROVER_LEDGER_DECKS", "1".to_owned())));
    variables.extend(seed.map(|seed| ("DROVER_LEDGER_SEED", seed.to_string())));
    let binaries = binaries.find(root)?;
    whole::run(root, &binaries, "e2e", &["ledger_faults"], &variables)
}
