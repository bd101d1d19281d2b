//! Tests over the release build, one after the other: measurements that need several processes, Kafka and Cassandra, with
//! more of everything than the gate takes, and what needs a cluster.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};

use super::cargo;
use super::not_run::NotRun;
use super::suite::passed;

/// Runs the tests of `target` whose names contain one of `names`, with these variables in their environment, and shows what they
/// print. Fails if there is none, and if one could not run.
pub fn run(
    root: &Path,
    binaries: &Path,
    target: &str,
    names: &[&str],
    variables: &[(&str, String)],
) -> anyhow::Result<()> {
    let mut tests = cargo::command(root);
    tests.args(["test", "--workspace", "--test", target, "--", "--nocapture", "--test-threads=1"]).args(names);
    tests.env("DROVER_BIN", std::path::absolute(binaries.join("drover"))?);
    tests.env("DROVER_LOAD_BIN", std::path::absolute(binaries.join("drover-load"))?);
    tests.envs(variables.iter().map(|(name, value)| (*name, value)));

    let mut running = tests.stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let (mut not_run, mut count) = (NotRun::default(), 0);
    for line in BufReader::new(running.stdout.take().context("what cargo prints")?).lines() {
        let line = line?;
        println!("{line}");
        not_run.note(printed(&line));
        count += passed(&line);
    }
    let names = names.join(", ");
    ensure!(running.wait()?.success(), "failed: {names}");
    let left_out = not_run.obligatory();
    ensure!(left_out.is_empty(), "could not run: {}", left_out.join("; "));
    ensure!(count > 0, "no test of {target} is named {names}");
    Ok(())
}

/// What a test has printed in a line: the first one stands behind the test's name, as a runner with one thread has it.
pub fn printed(line: &str) -> &str {
    let named = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
    named.map_or(line, |(_, printed)| printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_prints_first_is_found_behind_its_name() {
        assert_eq!(printed("test a::b ... NOT RUN: java is missing"), "NOT RUN: java is missing");
        assert_eq!(printed("test a::b ... ok"), "ok");
        for line in ["NOT RUN: java is missing", "test result: ok. 1 passed; 0 failed", "costs: one ... two"] {
            assert_eq!(printed(line), line);
        }
        let mut not_run = NotRun::default();
        not_run.note(printed("test a ... NOT RUN: java is missing"));
        assert_eq!(not_run.obligatory(), ["java is missing"]);
    }
}
