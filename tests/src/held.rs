//! A command for as long as somebody holds it: asked to stop (SIGTERM) by the end of its holder, orderly or not,
//! and killed if it does not.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::ensure;

use crate::patience::{Patience, pause};

/// Runs "$@" but its first word, which is a number of seconds; asks it to stop when standard input ends, which the death of the
/// test does as well, and kills it so much later; ends as it ends.
const SCRIPT: &str = r#"
exec 3<&0
patience=$1
shift
"$@" 3<&- &
pid=$!
(
  read -r _ <&3
  kill -TERM "$pid" 2>/dev/null
  while [ "$patience" -gt 0 ]; do sleep 1; patience=$((patience - 1)); done
  kill -KILL "$pid" 2>/dev/null
) &
watcher=$!
wait "$pid"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;
/// How long a command may take to stop: longer than processes may take to drain, one after the other.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command, running.
pub struct Held {
    shell: Child,
    output: PathBuf,
}

impl Held {
    /// Starts `command`, of which program, arguments, directory and environment count. What it prints goes to `output`.
    pub fn start(command: &Command, output: PathBuf) -> anyhow::Result<Self> {
        let log = File::create(&output)?;
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "held"]).arg(PATIENCE.as_secs().to_string());
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            shell.current_dir(directory);
        }
        let shell = shell.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { shell, output })
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.shell.try_wait()?)
    }

    /// Asks it to stop; how it ended.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        drop(self.shell.stdin.take());
        let waiting = Patience::new(PATIENCE);
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            ensure!(waiting.lasts(), "it has not stopped within {PATIENCE:?}: {}", self.said());
            pause();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().expect("our own child ends");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_by_itself_or_is_asked_to() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let start = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).env("WORD", "well").current_dir(directory.path());
            Held::start(&command, directory.path().join("out"))
        };
        let mut brief = start("exit 3")?;
        let status = loop {
            match brief.ended()? {
                Some(status) => break status,
                None => pause(),
            };
        };
        assert_eq!(status.code(), Some(3));

        let endless = start("trap 'echo $WORD; exit 0' TERM; echo begun; while :; do sleep 0.01; done")?;
        while !endless.said().contains("begun") {
            pause();
        }
        assert!(endless.stop()?.success());
        assert_eq!(std::fs::read_to_string(directory.path().join("out"))?, "begun\nwell\n");
        Ok(())
    }
}
