//! A server process that never outlives the test, however the test ends.
//!
//! A shell holds the other end of a pipe: when the pipe closes, by drop or by the death of the test process, it kills the
//! server and removes its directory, unless `DROVER_TEST_KEEP` is set. Nothing here needs the test to come to an orderly end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// For every line it reads, starts the command and says its process id; at the end kills the last and removes "$1", which
/// somebody who looks for a fault may want to keep.
const SCRIPT: &str = r#"
trap : INT TERM HUP
dir=$1; shift; pid=
while read -r _; do
  "$@" >>"$dir/output.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid"
done
[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
wait
[ -n "$DROVER_TEST_KEEP" ] || rm -rf "$dir"
"#;

/// A command that can be started again and again, one process at a time, in a directory of its own.
pub struct Guard {
    directory: PathBuf,
    shell: Mutex<Shell>,
}

struct Shell {
    child: Child,
    /// Closed to end everything.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<Pid>,
}

impl Guard {
    /// A guard for `command`; starts nothing yet. `directory` is removed at the end.
    pub fn new<S: AsRef<OsStr>>(directory: PathBuf, command: impl IntoIterator<Item = S>) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(&directory).args(command);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("sh cannot be run")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { directory, shell: Mutex::new(Shell { child, orders, answers, server: None }) })
    }

    /// What the server printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("output.log")).unwrap_or_default()
    }

    /// Starts the server.
    pub fn start(&self) -> anyhow::Result<()> {
        let mut shell = self.shell();
        shell.orders.as_mut().context("the guard has ended")?.write_all(b"start\n").context("the guard is gone")?;
        let mut line = String::new();
        shell.answers.read_line(&mut line)?;
        shell.server = Pid::from_raw(line.trim().parse().context("the guard says a process id")?);
        Ok(())
    }

    /// Whether the server's process is there.
    pub fn is_running(&self) -> bool {
        let Some(server) = self.shell().server else { return false };
        // A process that has ended stays visible until its parent asks for it.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.as_raw_nonzero())).unwrap_or_default();
        test_kill_process(server).is_ok() && !stat.contains(") Z ")
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.gone(None)
    }

    /// SIGTERM; returns when the process has come to its end by itself, which takes `patience` at most.
    pub fn stop(&self, patience: Duration) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.gone(Some(patience))
    }

    fn gone(&self, patience: Option<Duration>) -> anyhow::Result<()> {
        let since = Instant::now();
        while self.is_running() {
            if let Some(patience) = patience.filter(|patience| since.elapsed() > *patience) {
                bail!("the server has not ended within {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// SIGSTOP: the server hangs.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let server = self.shell().server.context("the server was not started")?;
        kill_process(server, signal).context("signal")
    }

    fn shell(&self) -> std::sync::MutexGuard<'_, Shell> {
        self.shell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut shell = self.shell();
        drop(shell.orders.take());
        if let Err(error) = shell.child.wait() {
            eprintln!("the guard of {} cannot be waited for: {error}", self.directory.display());
        }
    }
}
