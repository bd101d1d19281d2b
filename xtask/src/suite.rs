//! A test executable: run once, within a deadline, and what its runner said of it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

/// The longest a suite may take; the longest takes a third of it on two cores. A test that hangs is told by its name, before
/// whoever runs the gate loses patience with all of it.
const SUITE_MAX: Duration = Duration::from_secs(30 * 60);
/// How often is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a suite's failures that are printed again at the end.
const FAILURE_LINES: usize = 80;

/// A test executable.
pub struct Suite {
    /// Its crate's directory in the workspace and its target: `crates/bus it`.
    pub name: String,
    executable: PathBuf,
    /// Where cargo would run it: the crate's directory.
    directory: PathBuf,
}

/// How a suite ended.
pub struct Ended {
    pub name: String,
    pub took: Duration,
    pub passed: bool,
    /// What its last line counted as passed.
    pub tests: usize,
    pub said: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {} tests in {:.1} s", self.name, self.tests, self.took.as_secs_f64())
    }
}

impl Suite {
    /// The test executable that a message of cargo tells of, if it does.
    pub fn of(root: &Path, message: &Value) -> Option<Self> {
        let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let executable = message["executable"].as_str().filter(|_| is_test)?.into();
        let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
        let place = directory.strip_prefix(root).unwrap_or(&directory).display().to_string();
        let name = format!("{place} {}", message["target"]["name"].as_str()?);
        Some(Self { name, executable, directory })
    }

    /// Runs its tests whose names contain one of `names` (all, if there is none) and prints what they have said.
    #[expect(clippy::disallowed_methods, reason = "this measures real time")]
    pub fn run(self, names: &[&str]) -> anyhow::Result<Ended> {
        println!("     Running {}", self.name);
        let begun = Instant::now();
        // Files: of a pipe the end is only seen when every process is gone that a test has left behind.
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = Command::new(&self.executable);
        command.arg("--show-output").args(names);
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("starting {}", self.name))?;
        let status = ended_within(&mut child, SUITE_MAX)?;
        let mut said = all_of(&mut stderr)? + &all_of(&mut stdout)?;
        let passed = status.is_some_and(|status| status.success());
        if !passed {
            let how = status.map_or_else(|| hung(&said), |status| status.to_string());
            said += &format!("FAILED {}: {how}\n", self.name);
        }
        // In one piece, or the lanes would mix.
        print!("\n     {}\n{said}", self.name);
        Ok(Ended { tests: self::passed(&said), name: self.name, took: begun.elapsed(), passed, said })
    }
}

/// How the process has ended; `None` if it had to be.
#[expect(clippy::disallowed_methods, reason = "a process is waited for, and there is no runtime here")]
fn ended_within(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// What was written to a file, from its beginning.
fn all_of(file: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Which tests a runner was still waiting for when it was ended: it has told of those that took long.
fn hung(said: &str) -> String {
    let name = |line: &str| line.strip_prefix("test ").and_then(|rest| rest.split(' ').next()).unwrap_or("").to_owned();
    let ended: Vec<String> = said.lines().filter(|line| line.contains(" ... ")).map(name).collect();
    let long = said.lines().filter(|line| line.contains(" has been running for over ")).map(name);
    let open: Vec<String> = long.filter(|name| !ended.contains(name)).collect();
    format!("still running after {} min: {}", SUITE_MAX.as_secs() / 60, open.join(", "))
}

/// Tests that passed, by the closing line of their runner: `test result: ok. 5 passed; …`.
pub fn passed(said: &str) -> usize {
    let closing = said.lines().rev().find(|line| line.starts_with("test result: "));
    let count =
        closing.and_then(|line| line.split(' ').zip(line.split(' ').skip(1)).find(|(_, word)| *word == "passed;"));
    count.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

/// What a runner says of the tests that failed; the end of all it has said, if it was ended before it could.
pub fn failures(said: &str) -> String {
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
    fn a_suite_that_hangs_is_ended_and_its_open_tests_are_named() {
        let said = "test a ... ok\ntest b has been running for over 60 seconds\n\
            test c::d has been running for over 60 seconds\ntest b ... ok\n";
        assert_eq!(hung(said), "still running after 30 min: c::d");
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        assert_eq!(ended_within(&mut child, LOOK_EVERY).expect("it is our child"), None);
        let mut child = Command::new("true").spawn().expect("true");
        assert!(ended_within(&mut child, SUITE_MAX).expect("it is our child").is_some_and(|status| status.success()));
    }

    #[test]
    fn only_test_executables_are_suites() {
        let mut message = serde_json::json!({
            "reason": "compiler-artifact", "executable": "/target/it", "manifest_path": "/w/crates/bus/Cargo.toml",
            "profile": {"test": true}, "target": {"name": "it"},
        });
        assert_eq!(Suite::of(Path::new("/w"), &message).expect("a suite").name, "crates/bus it");
        message["profile"]["test"] = false.into();
        assert!(Suite::of(Path::new("/w"), &message).is_none());
    }
}
