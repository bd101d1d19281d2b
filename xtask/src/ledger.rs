//! `cargo xtask ledger`: the fault test of `tests/e2e/ledger_faults.rs` with other numbers than the gate's.

use std::path::Path;

use anyhow::ensure;
use clap::Args;

use super::cargo;

/// How much happens; the defaults are the full form.
#[derive(Args)]
pub struct Options {
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
    /// Which faults, when and for how long; absent: another one each time, printed.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the test and shows what it prints.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let mut tests = cargo::command(root);
    tests.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "ledger_faults"]);
    tests.env("DROVER_LEDGER_DEVICES", options.devices.to_string());
    tests.env("DROVER_LEDGER_MESSAGES", options.messages.to_string());
    tests.env("DROVER_LEDGER_FAULTS", options.faults.to_string());
    tests.env("DROVER_LEDGER_SECONDS", options.seconds.to_string());
    if let Some(seed) = options.seed {
        tests.env("DROVER_LEDGER_SEED", seed.to_string());
    }
    ensure!(tests.status()?.success(), "the ledger does not balance");
    Ok(())
}
