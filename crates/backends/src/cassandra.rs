//! Apache Cassandra as one node in a directory of its own.
//!
//! The server dies with whoever started it: the kernel kills it when the thread that holds it ends, so that not even a
//! killed test leaves a Java process behind.

mod command;
mod jars;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::ports;

/// How long a start may take; a loaded machine needs half a minute.
const START_MAX: Duration = Duration::from_secs(240);
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Lines of the server's log that a failed start shows.
const LOG_LINES_SHOWN: usize = 20;

/// What a server is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Clients prove who they are; there is one user, `cassandra` with the password `cassandra`.
    pub passwords: bool,
    /// Where clients connect; absent: a port that is free.
    pub port: Option<u16>,
    /// Address that clients are told, where it is another than they find it at by themselves.
    pub advertised: Option<String>,
    /// Clients speak TLS; PEM file with the server's key and certificate.
    pub tls: Option<PathBuf>,
}

/// A server, running or killed. Dropping it kills it and removes its data.
pub struct Cassandra {
    directory: TempDir,
    port: u16,
    /// The user is made after everything else, at the first start only.
    makes_user: bool,
    running: Option<Running>,
}

/// The process, and the thread that it dies with.
struct Running {
    pid: Pid,
    ended: mpsc::Receiver<ExitStatus>,
}

/// The address of a server that all tests of a process may use, each in a keyspace of its own; the first that asks starts
/// it. `None` if a tool is missing.
pub fn shared() -> Option<String> {
    static SERVER: OnceLock<Option<Mutex<Cassandra>>> = OnceLock::new();
    let server = SERVER.get_or_init(|| Cassandra::start(Options::default()).map(Mutex::new));
    server.as_ref().map(|server| server.lock().expect("nobody panics while they hold this").address())
}

/// Writes the files of a server into a directory, for somebody who starts and stops it: `java @DIRECTORY/java.args`. `None`
/// if a tool is missing.
pub fn prepare(directory: &Path, options: &Options) -> Option<()> {
    let _port = write(directory, options)?;
    Some(())
}

/// As [`prepare`]; the port where clients connect.
fn write(directory: &Path, options: &Options) -> Option<u16> {
    let jars = jars::fetch()?;
    let free = || ports::free().expect("a free port");
    let (port, storage_port) = (options.port.unwrap_or_else(free), free());
    command::write_config(directory, port, storage_port, options);
    command::write_launcher(directory, &jars);
    Some(port)
}

impl Cassandra {
    /// Starts a server with nothing in it; `None` if a tool is missing.
    pub fn start(options: Options) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let port = write(directory.path(), &options)?;
        let mut server = Self { directory, port, makes_user: options.passwords, running: None };
        server.restart();
        Some(server)
    }

    /// Where clients connect, `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it at once; its data stays.
    pub fn kill(&mut self) {
        let Some(running) = self.running.take() else { return };
        signal(running.pid, Signal::KILL);
        running.ended.recv().expect("the keeper tells of the end");
    }

    /// Starts it again over its data, and waits until it serves.
    #[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
    pub fn restart(&mut self) {
        self.kill();
        let log = self.log();
        if log.exists() {
            fs::remove_file(&log).expect("the last log is removed");
        }
        let running = keep(self.directory.path());
        let began = Instant::now();
        while !self.serves() {
            if let Ok(status) = running.ended.try_recv() {
                panic!("cassandra ended with {status}:\n{}", self.last_lines());
            }
            assert!(began.elapsed() < START_MAX, "cassandra is not up after {START_MAX:?}:\n{}", self.last_lines());
            std::thread::sleep(LOOK_AGAIN);
        }
        self.makes_user = false;
        self.running = Some(running);
    }

    /// Stops it from doing anything, its connections stay open.
    pub fn hang(&self) {
        signal(self.pid(), Signal::STOP);
    }

    /// Lets it go on after [`Cassandra::hang`].
    pub fn resume(&self) {
        signal(self.pid(), Signal::CONT);
    }

    fn pid(&self) -> Pid {
        self.running.as_ref().expect("the server runs").pid
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("system.log")
    }

    fn serves(&self) -> bool {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let has_user = !self.makes_user || log.contains("Created default superuser role");
        log.contains("Startup complete") && has_user && TcpStream::connect(self.address()).is_ok()
    }

    /// The end of what the server said.
    fn last_lines(&self) -> String {
        let files = [self.log(), self.directory.path().join("output.log")];
        let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Cassandra {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the server in a thread that stays until it ends: the kernel ties the server to that thread, and a test's
/// own thread may end before the server should.
fn keep(directory: &Path) -> Running {
    let (started, pid) = mpsc::sync_channel(1);
    let (told, ended) = mpsc::sync_channel(1);
    let mut command = command::launch(directory);
    std::thread::spawn(move || {
        let mut child: Child = command.spawn().expect("setpriv (util-linux) is installed");
        started.send(Pid::from_child(&child)).expect("somebody waits for it");
        let status = child.wait().expect("it is our child");
        // Whoever started it may be gone.
        told.send(status).ok();
    });
    Running { pid: pid.recv().expect("started"), ended }
}

fn signal(pid: Pid, signal: Signal) {
    // A process that is gone already needs no signal.
    kill_process(pid, signal).ok();
}
