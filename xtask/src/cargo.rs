//! Cargo, called from a task that cargo itself has started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// What `cargo run` tells the executable about its package. Some build scripts watch the same variables, and everything that
/// depends on them would be built anew for a task, and once more without it.
const OF_THE_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Cargo with the environment of the shell that the task was started in.
pub fn command(root: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root);
    let told = std::env::vars_os().map(|(name, _)| name);
    for name in told.filter(|name| OF_THE_PACKAGE.iter().any(|prefix| name.to_string_lossy().starts_with(prefix))) {
        cargo.env_remove(name);
    }
    cargo
}

/// Runs cargo; fails if it does.
pub fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let shown = arguments.join(" ");
    println!("cargo {shown}");
    let status = command(root).args(arguments).status().context("starting cargo")?;
    ensure!(status.success(), "cargo {shown} failed");
    Ok(())
}
