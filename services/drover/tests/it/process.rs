//! `drover` as a child process: its output, its exit code, and a port offset of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use drover_backends::ports;
use rustix::process::{Pid, Signal, kill_process};

/// Ports that `up` binds.
const PORTS: [u16; 11] = [1883, 8883, 8080, 8443, 9092, 7071, 7072, 7073, 7074, 7075, 9464];

/// The executable, without the caller's own settings.
pub fn drover(arguments: &[&str]) -> Command {
    configured_by(Command::new(env!("CARGO_BIN_EXE_drover")), arguments)
}

/// As [`drover`], where the permissions of files count: root, if that runs the tests, does not pass over them.
pub fn drover_by_permission(arguments: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return drover(arguments);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-dac_override", env!("CARGO_BIN_EXE_drover")]);
    configured_by(command, arguments)
}

/// The command, with these arguments and without the caller's own settings.
fn configured_by(mut command: Command, arguments: &[&str]) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DROVER_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What it printed and how it ended.
pub fn run(arguments: &[&str]) -> Output {
    drover(arguments).output().expect("the executable runs")
}

/// What it complained about: one text on stderr, and a failure.
pub fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("the executable runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// A complaint that has to be one line.
pub fn one_line(said: &str) -> &str {
    let line = said.trim_end();
    assert!(!line.contains('\n'), "more than one line: {said}");
    line
}

/// The one line with which `up` refuses a data directory.
pub fn refused_on(data: &Path) -> String {
    let offset = free_offset().to_string();
    let said = refused(drover(&["up", "--port-offset", &offset, "--set", "log.level=error", "--data"]).arg(data), 1);
    one_line(&said).to_owned()
}

/// An offset at which every port is free.
pub fn free_offset() -> u16 {
    ports::free_offset(&PORTS).expect("free ports")
}

/// A running `drover up`; killed when dropped.
pub struct Up {
    pub child: Child,
    pub offset: u16,
    /// What it printed until it was ready.
    pub printed: String,
    /// Reads what it logs until it ends; `None`: somebody else does.
    pub log: Option<JoinHandle<String>>,
}

impl Up {
    /// Starts with these arguments besides a port offset, and waits until it says that it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_offset(), drover(&["up"]).args(arguments))
    }

    /// As [`Up::start`], on the data directory `data`.
    pub fn on(data: &Path) -> Self {
        Self::start_at(free_offset(), drover(&["up", "--data"]).arg(data))
    }

    pub fn start_at(offset: u16, command: &mut Command) -> Self {
        let command = command.arg("--port-offset").arg(offset.to_string());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the executable runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut printed = String::new();
        // The text ends with an empty line; one more comes first.
        while !printed.ends_with("/metrics\n") {
            let Some(line) = lines.next() else {
                let mut said = String::new();
                child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
                panic!("it ended before it was ready: {printed}{said}");
            };
            printed += &(line.expect("text") + "\n");
        }
        // A full pipe must not stop it.
        let log = child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || std::io::read_to_string(log).expect("text"));
        Self { child, offset, printed, log: Some(log) }
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate()
    }

    /// As [`Up::stop`], with all that it had logged.
    pub fn stop_with_log(mut self) -> (ExitStatus, String) {
        let status = self.terminate();
        (status, self.log.take().expect("read here").join().expect("text"))
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not zero");
        kill_process(pid, Signal::TERM).expect("our own child");
        self.child.wait().expect("our own child")
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Status and body of a page of the admin port.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://127.0.0.1:{}{path}", 9464 + self.offset);
        let mut answer = agent.get(url).call().expect("it answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After `stop` and `kill` there is nothing left to end.
        if let Ok(None) = self.child.try_wait() {
            self.child.kill().expect("our own child");
            self.child.wait().expect("our own child");
        }
    }
}
