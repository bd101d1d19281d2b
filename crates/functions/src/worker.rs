//! A process that calls functions: `PROGRAM function eval --stdin --in-process`. It can be ended, which nothing within
//! a process can be.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::watchdog::{CALL_CPU_MS_MAX, EXIT_STUCK};

/// Longest wait for one answer, in milliseconds of the wall. A process ends itself much earlier, by its processor time;
/// this is for one that gets none.
const ANSWER_MS_MAX: u64 = 5_000;

/// All that a process gets of the environment, where it is set: where its libraries are, and the system's. The rest, with
/// what is secret in it, is nothing for whoever breaks out of the engine.
const ENVIRONMENT: [&str; 2] = ["LD_LIBRARY_PATH", "SystemRoot"];

/// Why there is no answer. The process is gone then.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("took more than {CALL_CPU_MS_MAX} ms of processor time and was ended")]
    Stuck,
    #[error("took more than {ANSWER_MS_MAX} ms and was ended")]
    Late,
    #[error("the process that called it died")]
    Died,
    #[error("the process that calls functions cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
}

/// A running process; dropping it ends it.
pub struct Worker {
    child: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

impl Worker {
    /// Starts one. Its local time is UTC, so that scripts do the same on every machine.
    pub fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        let kept = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.args(["function", "eval", "--stdin", "--in-process"]).env_clear().envs(kept).env("TZ", "UTC");
        // Ctrl-C is for who waits for the answers, and has work to finish.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("has no pipe");
        let questions = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        // One question at a time, so one answer.
        let (sender, answers) = sync_channel(1);
        thread::spawn(move || forward(stdout, &sender));
        Ok(Self { child, questions, answers })
    }

    /// Asks one line, and waits for the answer.
    pub fn ask(&mut self, question: &str) -> Result<String, WorkerError> {
        self.questions.write_all(question.as_bytes())?;
        self.questions.write_all(b"\n")?;
        self.questions.flush()?;
        self.answers.recv_timeout(Duration::from_millis(ANSWER_MS_MAX)).map_err(|error| match error {
            RecvTimeoutError::Timeout => WorkerError::Late,
            RecvTimeoutError::Disconnected => match self.child.wait() {
                Ok(status) if status.code() == Some(EXIT_STUCK) => WorkerError::Stuck,
                Ok(_) | Err(_) => WorkerError::Died,
            },
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Either fails only if the process is gone already.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn forward(stdout: ChildStdout, sender: &SyncSender<String>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        if sender.send(line).is_err() {
            return;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_process_gets_nothing_of_the_environment_that_it_does_not_need() {
        let folder = tempfile::tempdir().expect("a directory");
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\nread -r question\necho $(/usr/bin/env)\n").expect("written");
        fs::set_permissions(&program, Permissions::from_mode(0o700)).expect("allowed");
        let answer = Worker::start(&program).expect("started").ask("which?").expect("an answer");
        let has = |name: &str| answer.split(' ').any(|variable| variable.starts_with(name));
        assert!(std::env::var_os("PATH").is_some() && !has("PATH=") && has("TZ=UTC"), "{answer}");
    }
}
