//! `cargo xtask kubernetes`: the tests of the operator and the chart over the release build, one after the other, on a real API
//! server; with `--node`, as root, on a real node as well.

use std::path::Path;

use clap::Args;

use super::release::Binaries;
use super::whole;

/// Modules of `tests/e2e` that need a cluster.
const TESTS: [&str; 4] = ["operator", "chart_applied", "cluster", "load_jobs"];

/// What is run.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    binaries: Binaries,
    /// On a real node too: as root, with Debian's packages that the README names.
    #[arg(long)]
    node: bool,
    /// Only tests whose names contain this, `operator_many` for example.
    #[arg(long)]
    only: Option<String>,
}

/// Tries the release executable; what takes the time of many minutes at first is kept in the cache.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = options.binaries.find(root)?;
    let names = options.only.as_deref().map_or(TESTS.to_vec(), |only| vec![only]);
    let wanted = if options.node { "node" } else { "1" };
    whole::run(root, &binaries, "e2e", &names, &[("DROVER_TEST_KUBERNETES", wanted.to_owned())])
}
