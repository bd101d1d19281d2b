//! Measurements that need several processes, Kafka and Cassandra: tests of `tests/e2e`, over the release build and with
//! more of everything than the gate takes.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;

/// Runs the tests whose names contain `name`, with these sizes in their environment.
pub fn run(root: &Path, binaries: &Path, name: &str, sizes: &[(&str, usize)]) -> anyhow::Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--workspace", "--test", "e2e", "--", "--nocapture", "--test-threads=1", name]);
    cargo.env("DROVER_BIN", std::path::absolute(binaries.join("drover"))?);
    cargo.env("DROVER_LOAD_BIN", std::path::absolute(binaries.join("drover-load"))?);
    cargo.envs(sizes.iter().map(|(name, size)| (*name, size.to_string())));
    ensure!(cargo.current_dir(root).status()?.success(), "the measurement failed");
    Ok(())
}
