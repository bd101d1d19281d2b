//! A process that ends when this one is gone, however that ended, also by SIGKILL and also if it is stopped then.
//!
//! A shell beside it waits for the end of a pipe whose other end only this process holds. It is in a process group of its own:
//! what a terminal sends to this one's does not reach it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Ends process `$1` when standard input ends. A killed process that was stopped ends all the same.
const SCRIPT: &str = r#"read -r _; kill -KILL "$1""#;

/// The process and its guard; dropping it kills both.
pub struct Guarded {
    child: Child,
    guard: Child,
}

impl Guarded {
    /// Starts `command` and its guard.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(child.id().to_string()).process_group(0);
        match shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(guard) => Ok(Self { child, guard }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Its standard input, if that is piped and was not taken yet.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, if that is piped and was not taken yet.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            // Its number may be another's from now on.
            self.dismiss();
        }
        Ok(status)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.dismiss();
        Ok(status)
    }

    /// Ends the guard, with nothing done. One that has ended already is as good.
    fn dismiss(&mut self) {
        self.guard.kill().ok();
        self.guard.wait().ok();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // One that has ended already is as good.
        self.child.kill().ok();
        self.dismiss();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::pause;

    #[test]
    fn one_that_is_waited_for_tells_how_it_has_ended() -> io::Result<()> {
        let mut guarded = Guarded::start(Command::new("sh").args(["-c", "exit 3"]))?;
        assert_eq!(guarded.wait()?.code(), Some(3));
        assert!(guarded.ended()?.is_some());
        Ok(())
    }

    #[test]
    fn a_process_ends_with_its_holder_also_while_it_is_stopped() -> io::Result<()> {
        for stopped in [false, true] {
            let mut guarded = Guarded::start(Command::new("sleep").arg("60"))?;
            if stopped {
                guarded.signal(Signal::STOP)?;
            }
            assert_eq!(guarded.ended()?, None);
            // What the system does when this process is gone.
            drop(guarded.guard.stdin.take());
            let status = loop {
                match guarded.ended()? {
                    Some(status) => break status,
                    None => pause(Duration::from_millis(5)),
                }
            };
            assert_eq!(status.to_string(), "signal: 9 (SIGKILL)");
        }
        Ok(())
    }
}
