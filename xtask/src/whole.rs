//! Tests of `tests/e2e` over the release build, one after the other: measurements that need several processes, Kafka and
//! Cassandra, with more of everything than the gate takes, and what needs a cluster.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

/// Runs the tests whose names contain one of `names`, with these variables in their environment.
pub fn run(root: &Path, binaries: &Path, names: &[&str], variables: &[(&str, String)]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "--test-threads=1"]).args(names);
    cargo.env("DROVER_BIN", std::path::absolute(binaries.join("drover"))?);
    cargo.env("DROVER_LOAD_BIN", std::path::absolute(binaries.join("drover-load"))?);
    cargo.envs(variables.iter().map(|(name, value)| (*name, value)));
    ensure!(cargo.current_dir(root).status()?.success(), "failed: {}", names.join(", "));
    Ok(())
}
