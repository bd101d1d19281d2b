//! A process that calls functions: this executable once more. It can be killed, which nothing within a process can be.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Longest wait for one answer, in milliseconds of the wall: a script's own limits are much tighter, but loops inside a
/// built-in function of the engine do not look at them.
const ANSWER_MS_MAX: u64 = 5_000;

/// Why there is no answer. The process is gone then.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("took more than {ANSWER_MS_MAX} ms and was ended")]
    Stuck,
    #[error("the process that called it died")]
    Died,
    #[error("the process that calls it cannot be reached: {0}")]
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
    pub fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["function", "eval", "--stdin", "--in-process"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("has no pipe");
        let questions = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        // One question at a time, so one answer.
        let (sender, answers) = sync_channel(1);
        thread::spawn(move || forward(stdout, &sender));
        Ok(Self { child, questions, answers })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, question: &str) -> Result<String, WorkerError> {
        self.questions.write_all(question.as_bytes())?;
        self.questions.write_all(b"\n")?;
        self.questions.flush()?;
        self.answers.recv_timeout(Duration::from_millis(ANSWER_MS_MAX)).map_err(|error| match error {
            RecvTimeoutError::Timeout => WorkerError::Stuck,
            RecvTimeoutError::Disconnected => WorkerError::Died,
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
        match line {
            Ok(line) if sender.send(line).is_ok() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Lets the system end this process when the one that started it is gone; a script in a loop would not notice.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap_or_default();
}
