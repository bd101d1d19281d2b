//! Tests of `tests/e2e` over the release build, one after the other: measurements that need several processes, Kafka and
//! Cassandra, with more of everything than the gate takes, and what needs a cluster.

use std::path::Path;

use anyhow::ensure;

use super::cargo;

/// Runs the tests whose names contain one of `names`, with these variables in their environment.
pub fn run(root: &Path, binaries: &Path, names: &[&str], variables: &[(&str, String)]) -> anyhow::Result<()> {
    let mut tests = cargo::command(root);
    tests.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "--test-threads=1"]).args(names);
    tests.env("DROVER_BIN", std::path::absolute(binaries.join("drover"))?);
    tests.env("DROVER_LOAD_BIN", std::path::absolute(binaries.join("drover-load"))?);
    tests.envs(variables.iter().map(|(name, value)| (*name, value)));
    ensure!(tests.status()?.success(), "failed: {}", names.join(", "));
    Ok(())
}
