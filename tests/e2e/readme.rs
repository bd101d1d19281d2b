//! The README's commands, up to and including the section "Let others in", entered as they stand by a new user. Those of
//! separate processes are entered by `costs` and `separate`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use drover_tests::{Platform, executable, lines_of, tool};

/// The last section whose commands are entered; those that follow need more than one platform.
const LAST: &str = "\n## Let others in\n";
/// How the one output begins that the README shows; what follows is a time.
const PROMISED: &str = r#"{"temperature":31.5,"device":"kitchen","at":"#;

/// What is entered in place of what is written. Variables are those of [`NewUser::shell`].
const SUBSTITUTIONS: [(&str, &str); 7] = [
    ("target/release/drover", r#""$EXECUTABLE""#),
    // Keys and the like are written into a temporary directory, so that is where commands run.
    ("deploy/", r#""$REPOSITORY"/deploy/"#),
    ("mosquitto_pub ", "mosquitto_pub -p $MQTT "),
    ("127.0.0.1:9092", "127.0.0.1:$KAFKA"),
    ("127.0.0.1:8080", "127.0.0.1:$HTTP"),
    // The token that the line before has printed.
    ("drt_…", r#""$PRINTED""#),
    // Long enough to be watched.
    ("--seconds 30", "--seconds 10"),
];

/// Lines that are more than run to their end, by how they begin.
const SPECIAL: [(&str, Manner); 4] = [
    ("cargo run --release -- up", Manner::Started),
    ("kcat ", Manner::Promised),
    ("target/release/drover demo ", Manner::Beside),
    ("target/release/drover tail ", Manner::Watched),
];

/// What is done with a line.
#[derive(Clone, Copy)]
enum Manner {
    /// It is run and has to end well: every line of which [`SPECIAL`] does not know better.
    Run,
    /// The test has started the platform before the first line.
    Started,
    /// It is run again until it prints something, as rules work after the acknowledgement; that has to be [`PROMISED`].
    Promised,
    /// It runs while further lines are entered, and has to have ended well after the last.
    Beside,
    /// It does not end by itself, so it is ended when it has printed a line.
    Watched,
}

impl Manner {
    fn of(line: &str) -> Self {
        SPECIAL.iter().find(|(start, _)| line.starts_with(start)).map_or(Self::Run, |(_, manner)| *manner)
    }
}

/// A command whose end is not waited for; killed when dropped, if it runs.
struct Running {
    line: String,
    child: Child,
    /// Where it prints to; its complaints are the test's own.
    output: PathBuf,
}

impl Running {
    fn printed(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("our own child can be killed");
            self.child.wait().expect("our own child can be waited for");
        }
    }
}

/// Who enters the commands, in a directory of their own.
struct NewUser {
    beside: Vec<Running>,
    /// Lines of the last command that has ended.
    printed: Vec<String>,
    platform: Platform,
}

impl NewUser {
    fn new() -> anyhow::Result<Self> {
        let user = Self { beside: Vec::new(), printed: Vec::new(), platform: Platform::start()? };
        std::fs::create_dir(user.directory())?;
        Ok(user)
    }

    fn directory(&self) -> PathBuf {
        self.platform.file("user")
    }

    /// A shell that runs `line` with the substitutions made, after `prefix`.
    fn shell(&self, prefix: &str, line: &str) -> anyhow::Result<Command> {
        let entered = SUBSTITUTIONS.iter().fold(line.to_owned(), |line, (written, meant)| line.replace(written, meant));
        let port = |contract: u16| self.platform.port(contract).to_string();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{prefix}{entered}")).current_dir(self.directory()).stdin(Stdio::null());
        shell.env("EXECUTABLE", std::path::absolute(executable()?)?).env("REPOSITORY", repository());
        shell.env("MQTT", port(1883)).env("KAFKA", port(9092)).env("HTTP", port(8080));
        shell.env("PRINTED", self.printed.last().map_or("", String::as_str));
        shell.env("DROVER_SERVER", format!("http://127.0.0.1:{}", port(8080)));
        shell.env("DROVER_TOKEN_FILE", self.platform.data().join("admin.token")).env_remove("DROVER_TOKEN");
        Ok(shell)
    }

    fn enter(&mut self, line: &str) -> anyhow::Result<()> {
        match Manner::of(line) {
            Manner::Started => Ok(()),
            Manner::Run => {
                self.printed = lines_of(&mut self.shell("", line)?, b"")?;
                Ok(())
            }
            Manner::Promised => self.wait_for_output(line),
            Manner::Beside => {
                let running = self.spawn(line)?;
                self.beside.push(running);
                Ok(())
            }
            Manner::Watched => self.watch(line),
        }
    }

    fn wait_for_output(&mut self, line: &str) -> anyhow::Result<()> {
        let mut shell = self.shell("", line)?;
        let mut lines = Ok(Vec::new());
        let waited = self.platform.until("read from", |_| {
            lines = lines_of(&mut shell, b"");
            Ok(lines.as_ref().is_ok_and(|lines| !lines.is_empty()))
        });
        self.printed = lines?; // its own complaint says more than that time is over
        waited?;
        let promised = self.printed.len() == 1 && self.printed[0].starts_with(PROMISED);
        ensure!(promised, "it printed {:?}, not once {PROMISED}…", self.printed);
        Ok(())
    }

    fn watch(&mut self, line: &str) -> anyhow::Result<()> {
        let mut running = self.spawn(line)?;
        self.platform.until("watched", |_| {
            let printed = running.printed()?;
            let ended = running.child.try_wait()?;
            ensure!(ended.is_none(), "it ended by itself: {printed}");
            Ok(printed.contains('\n'))
        })
    }

    /// Starts a line; what it prints goes to a file.
    fn spawn(&self, line: &str) -> anyhow::Result<Running> {
        let output = self.platform.file(&format!("beside-{}.out", self.beside.len()));
        // Without a shell in between, to be killed itself.
        let mut shell = self.shell("exec ", line)?;
        let child = shell.stdout(File::create(&output)?).spawn()?;
        Ok(Running { line: line.to_owned(), child, output })
    }

    /// Waits for what was started beside.
    fn finish(mut self) -> anyhow::Result<()> {
        for mut running in std::mem::take(&mut self.beside) {
            let mut status = None;
            self.platform.until("left by what runs beside", |_| {
                status = running.child.try_wait()?;
                Ok(status.is_some())
            })?;
            let well = status.is_some_and(|status| status.success());
            ensure!(well, "README.md: {}: it ended with {status:?}: {}", running.line, running.printed()?);
        }
        Ok(())
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The lines of the `sh` blocks, up to and including the section [`LAST`].
fn commands(readme: &str) -> anyhow::Result<Vec<&str>> {
    let (before, after) = readme.split_once(LAST).with_context(|| format!("README.md has no section {LAST:?}"))?;
    let section = after.split("\n## ").next().unwrap_or_default();
    let blocks = [before, section].into_iter().flat_map(|text| text.split("```sh\n").skip(1));
    Ok(blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines()).collect())
}

/// The two commands of "In separate processes", without their comments: what starts the backends, what starts the services.
pub fn separate_processes() -> anyhow::Result<[String; 2]> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (_, section) = readme.split_once("\n## In separate processes\n").context("README.md has no such section")?;
    let block = section.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).context("commands")?;
    let lines = block.lines().map(|line| line.split(" #").next().unwrap_or(line).trim().to_owned());
    let lines: Vec<String> = lines.collect();
    let two: Result<[String; 2], Vec<String>> = lines.try_into();
    two.map_err(|lines| anyhow::anyhow!("not two commands: {lines:?}"))
}

#[test]
fn every_command_of_the_readme_works_as_it_stands() -> anyhow::Result<()> {
    let (Some(_), Some(_)) = (tool("mosquitto_pub"), tool("kcat")) else { return Ok(()) };
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    ensure!(readme.contains(PROMISED), "README.md does not show {PROMISED}…");
    let lines = commands(&readme)?;
    for (start, _) in SPECIAL {
        ensure!(lines.iter().any(|line| line.starts_with(start)), "no line of README.md begins with {start:?}");
    }
    let mut user = NewUser::new()?;
    for line in lines {
        user.enter(line).with_context(|| format!("README.md: {line}"))?;
    }
    user.finish()
}
