//! `cargo xtask test`: all tests of the workspace, suites side by side.
//!
//! Cargo runs one test executable after the other, and most of ours wait for servers that they have started, killed or
//! hung. So cargo builds and lists them, and they run in lanes. What watches a whole platform runs alone, at the end.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::ensure;
use clap::{Args, Subcommand};

use super::cargo;
use super::not_run::NotRun;
use super::suite::{Ended, Suite, failures};
use super::tls;

/// Suites that run at the same time.
const LANES: usize = 2;
/// The longest suites begin first, so that no lane is left with one of them at the end.
const LONGEST_FIRST: [&str; 4] =
    ["crates/bus-kafka it", "services/registry it", "crates/scylla-kit it", "tests promises"];
/// Suites that kill and time whole platforms: alone, after all others.
const ALONE: [&str; 1] = ["tests e2e"];
/// Suites of the summary, by time.
const SLOWEST: usize = 5;

/// Which tests.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Lint and test TLS to Kafka and Cassandra: cargo features that nothing else builds.
    Tls,
}

/// Runs the part that is asked for, or all that the gate runs.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    match options.part {
        None => all(root),
        Some(Part::Tls) => tls::run(root),
    }
}

/// Builds and runs all of them, then the examples in documentation; fails if one did.
fn all(root: &Path) -> anyhow::Result<()> {
    let (alone, mut together): (Vec<_>, Vec<_>) =
        suites(root, &["--workspace"])?.into_iter().partition(|suite| ALONE.contains(&suite.name.as_str()));
    together.sort_by_key(|suite| !LONGEST_FIRST.contains(&suite.name.as_str()));
    let mut ended = in_lanes(together, LANES, &[])?;
    ended.extend(in_lanes(alone, 1, &[])?);
    let documentation = cargo::command(root).args(["test", "--workspace", "--doc"]).status()?;

    conclude(ended)?;
    ensure!(documentation.success(), "failed: examples in documentation");
    Ok(())
}

/// Sums up; fails if a suite did, or if something did not run that has to.
pub fn conclude(mut ended: Vec<Ended>) -> anyhow::Result<()> {
    ended.sort_by_key(|suite| std::cmp::Reverse(suite.took));
    println!("\nslowest suites");
    ended.iter().take(SLOWEST).for_each(|suite| println!("  {suite}"));
    let mut not_run = NotRun::default();
    ended.iter().for_each(|suite| not_run.note(&suite.said));
    let told = not_run.tell();
    for suite in ended.iter().filter(|suite| !suite.passed) {
        println!("\nfailed: {}\n{}", suite.name, failures(&suite.said));
    }
    let failed: Vec<&str> = ended.iter().filter(|suite| !suite.passed).map(|suite| suite.name.as_str()).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    told?;
    println!("{} suites passed, {} tests", ended.len(), ended.iter().map(|suite| suite.tests).sum::<usize>());
    Ok(())
}

/// What cargo has built of the `chosen` packages, by its own account.
pub fn suites(root: &Path, chosen: &[&str]) -> anyhow::Result<Vec<Suite>> {
    let arguments = [&["test"][..], chosen, &["--no-run", "--message-format=json-render-diagnostics"]].concat();
    let built = cargo::command(root).args(&arguments).stderr(Stdio::inherit()).output()?;
    ensure!(built.status.success(), "cargo {} failed", arguments.join(" "));
    let messages = built.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let suites: Vec<Suite> = messages.filter_map(|message| Suite::of(root, &message)).collect();
    ensure!(!suites.is_empty(), "cargo names no test executable");
    Ok(suites)
}

/// Runs the tests of suites whose names contain one of `names` (all, if there is none), `lanes` suites at a time; what each
/// has said is printed when it ends.
pub fn in_lanes(suites: Vec<Suite>, lanes: usize, names: &[&str]) -> anyhow::Result<Vec<Ended>> {
    let (waiting, ended) = (Mutex::new(VecDeque::from(suites)), Mutex::new(Vec::new()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let lane = || -> anyhow::Result<()> {
        while let Some(suite) = next() {
            let result = suite.run(names)?;
            ended.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|_| anyhow::bail!("a lane panicked")))
    })?;
    Ok(ended.into_inner().unwrap_or_else(PoisonError::into_inner))
}
