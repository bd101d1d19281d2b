//! `cargo xtask kubernetes`: the tests of the operator and the chart over the release build, one after the other, on a real API
//! server; with `--node`, as root, on a real node as well.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use clap::Args;

/// Modules of `tests/e2e` that need a cluster.
const TESTS: [&str; 4] = ["operator", "chart_applied", "cluster", "load_jobs"];

/// What is run.
#[derive(Args)]
pub struct Options {
    /// On a real node too: as root, with Debian's packages that the README names.
    #[arg(long)]
    node: bool,
    /// Only tests whose names contain this, `operator_many` for example.
    #[arg(long)]
    only: Option<String>,
}

/// Builds the release executable and tries it; what takes the time of many minutes at first is kept in the cache.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let built = ["build", "--release", "--workspace", "--bins"];
    ensure!(
        Command::new("cargo").args(built).current_dir(root).status()?.success(),
        "cargo {} failed",
        built.join(" ")
    );
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "--test-threads=1"]);
    match &options.only {
        Some(only) => cargo.arg(only),
        None => cargo.args(TESTS),
    };
    let binaries = super::bench::target(root)?.join("release");
    cargo.env("DROVER_BIN", binaries.join("drover")).env("DROVER_LOAD_BIN", binaries.join("drover-load"));
    cargo.env("DROVER_TEST_KUBERNETES", if options.node { "node" } else { "1" });
    ensure!(cargo.current_dir(root).status()?.success(), "a test failed");
    Ok(())
}
