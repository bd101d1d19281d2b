//! `cargo xtask costs`: `tests/e2e/costs.rs` over the release build, with more messages than the gate takes.

use std::path::Path;

use clap::Args;

use super::{release, whole};

/// How much is measured.
#[derive(Args)]
pub struct Options {
    /// Of each of 50 devices.
    #[arg(long, default_value_t = 4_000)]
    messages: u32,
}

/// Builds the release executable and measures it.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = release::build(root)?;
    whole::run(root, &binaries, &["costs"], &[("DROVER_COSTS_MESSAGES", options.messages.to_string())])
}
