//! `cargo xtask costs`: `tests/e2e/costs.rs` over the release build, with more messages than the gate takes.

use std::path::Path;

use clap::Args;

use super::release::Binaries;
use super::whole;

/// How much is measured.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    binaries: Binaries,
    /// Of each of 50 devices.
    #[arg(long, default_value_t = 4_000)]
    messages: u32,
}

/// Measures the release executable.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = options.binaries.find(root)?;
    let variables = [("DROVER_COSTS_MESSAGES", options.messages.to_string())];
    whole::run(root, &binaries, "e2e", &["costs"], &variables)
}
