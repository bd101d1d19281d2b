//! `cargo xtask costs`: `tests/e2e/costs.rs` over the release build, with more messages than the gate takes.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use clap::Args;

/// How much is measured.
#[derive(Args)]
pub struct Options {
    /// Of each of 50 devices.
    #[arg(long, default_value_t = 4_000)]
    messages: u32,
}

/// Builds the release executable and measures it.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let built = ["build", "--release", "--workspace", "--bins"];
    ensure!(
        Command::new("cargo").args(built).current_dir(root).status()?.success(),
        "cargo {} failed",
        built.join(" ")
    );
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "--test-threads=1", "costs"]);
    cargo.env("DROVER_BIN", super::bench::target(root)?.join("release/drover"));
    cargo.env("DROVER_COSTS_MESSAGES", options.messages.to_string());
    ensure!(cargo.current_dir(root).status()?.success(), "the measurement failed");
    Ok(())
}
