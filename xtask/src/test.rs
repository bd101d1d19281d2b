//! `cargo xtask test`: all tests of the workspace, suites side by side.
//!
//! Cargo runs one test executable after the other, and most of ours wait for servers that they have started, killed or
//! hung. So cargo builds and lists them, and they run in lanes. What watches a whole platform runs alone, at the end.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::cargo;
use super::not_run::NotRun;
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
/// Lines of a suite's failures that are printed again at the end.
const FAILURE_LINES: usize = 80;

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

/// A test executable.
pub struct Suite {
    /// Its crate's directory in the workspace and its target: `crates/bus it`.
    name: String,
    executable: PathBuf,
    /// Where cargo would run it: the crate's directory.
    directory: PathBuf,
}

/// How a suite ended.
pub struct Ended {
    name: String,
    took: Duration,
    passed: bool,
    /// What its last line counted as passed.
    pub tests: usize,
    said: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} tests in {:.1} s", self.name, self.tests, self.took.as_secs_f64())
    }
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
    let suites: Vec<Suite> = messages.filter_map(|message| suite(root, &message)).collect();
    ensure!(!suites.is_empty(), "cargo names no test executable");
    Ok(suites)
}

/// The test executable that a message of cargo tells of, if it does.
fn suite(root: &Path, message: &Value) -> Option<Suite> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let executable = message["executable"].as_str().filter(|_| is_test)?.into();
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let place = directory.strip_prefix(root).unwrap_or(&directory).display().to_string();
    let name = format!("{place} {}", message["target"]["name"].as_str()?);
    Some(Suite { name, executable, directory })
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

impl Suite {
    #[expect(clippy::disallowed_methods, reason = "this measures real time")]
    fn run(self, names: &[&str]) -> anyhow::Result<Ended> {
        println!("     Running {}", self.name);
        let begun = Instant::now();
        let mut command = Command::new(&self.executable);
        command
            .arg("--show-output")
            .args(names)
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory);
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", self.name))?;
        let Output { status, stdout, stderr } = output;
        let said = String::from_utf8_lossy(&stderr).into_owned() + &String::from_utf8_lossy(&stdout);
        // In one piece, or the lanes would mix.
        print!("\n     {}\n{said}", self.name);
        if !status.success() {
            println!("FAILED {}: {status}", self.name);
        }
        Ok(Ended { tests: passed(&said), name: self.name, took: begun.elapsed(), passed: status.success(), said })
    }
}

/// Tests that passed, by the closing line of their runner: `test result: ok. 5 passed; …`.
pub fn passed(said: &str) -> usize {
    let closing = said.lines().rev().find(|line| line.starts_with("test result: "));
    let count =
        closing.and_then(|line| line.split(' ').zip(line.split(' ').skip(1)).find(|(_, word)| *word == "passed;"));
    count.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

/// What a runner says of the tests that failed; the end of all it has said, if it was ended before it could.
fn failures(said: &str) -> String {
    let told = said.split_once("\nfailures:\n").map(|(_, failures)| failures);
    let lines: Vec<&str> = told.unwrap_or(said).lines().collect();
    let shown = match told {
        Some(_) => &lines[..lines.len().min(FAILURE_LINES)],
        None => &lines[lines.len().saturating_sub(FAILURE_LINES)..],
    };
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_from_what_passed() {
        let passed = "test a ... FAILED\n\nsuccesses:\n\n---- b stdout ----\nfine\n";
        let failed = "---- a stdout ----\nError: no";
        assert_eq!(failures(&format!("{passed}\nfailures:\n\n{failed}\n")).trim(), failed);
        let killed = (0..100).map(|line| format!("line {line}\n")).collect::<String>();
        assert!(failures(&killed).starts_with("line 20\n") && failures(&killed).ends_with("line 99"));
    }

    #[test]
    fn a_runner_tells_how_many_passed_in_its_closing_line() {
        let said = "test a ... ok\n\ntest result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(passed(said), 12);
        assert_eq!(passed("killed by a signal"), 0);
    }

    #[test]
    fn only_test_executables_are_suites() {
        let mut message = serde_json::json!({
            "reason": "compiler-artifact", "executable": "/target/it", "manifest_path": "/w/crates/bus/Cargo.toml",
            "profile": {"test": true}, "target": {"name": "it"},
        });
        assert_eq!(suite(Path::new("/w"), &message).expect("a suite").name, "crates/bus it");
        message["profile"]["test"] = false.into();
        assert!(suite(Path::new("/w"), &message).is_none());
    }
}
