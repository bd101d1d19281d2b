//! The processes of a chaos run: started here, struck and recovered here, and gone when this is dropped or its process ends.

use std::fs::OpenOptions;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::faults::Fault;
use crate::clock::{LOOK, pause, unix_us, until};
use crate::guarded::Guarded;
use crate::scenario::{Kind, Process};

/// Ports that `drover up` binds; all are moved by one offset.
const PORTS: [u16; 12] = [1883, 8883, 8080, 8443, 9092, 7071, 7072, 7073, 7074, 7075, 7076, 9464];
/// The ports of CoAP, without DTLS and with it.
const UDP_PORTS: [u16; 2] = [5683, 5684];
/// Offsets that are tried: from the first, so many, this far apart. The last port lies below those that systems give to clients
/// (from 32,768 on).
const OFFSETS: (u16, u16, u16) = (10_000, 100, 131);
/// How long a start may take (databases need theirs), and an orderly stop, in microseconds.
const START_US: u64 = 300_000_000;
const PATIENCE_US: u64 = 60_000_000;
const ANSWER: Duration = Duration::from_secs(1);

/// An offset at which every port is free now; another first for each seed, so that runs side by side seldom meet.
pub fn free_offset(seed: u64) -> anyhow::Result<i32> {
    let (first, count, apart) = OFFSETS;
    let number =
        |step: u16| ((seed.wrapping_add(u64::from(std::process::id())) + u64::from(step)) % u64::from(count)) as u16;
    let is_free = |offset: &u16| {
        PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", port + offset)).is_ok())
            && UDP_PORTS.iter().all(|port| UdpSocket::bind(("127.0.0.1", port + offset)).is_ok())
    };
    let found = (0..count).map(|step| first + number(step) * apart).find(is_free);
    found.map(i32::from).context("no offset of ports is free")
}

/// Processes by their index in the scenario.
pub struct Processes {
    declared: Vec<Process>,
    running: Vec<Option<Guarded>>,
    /// For what they say: `NAME.log`.
    folder: PathBuf,
}

impl Processes {
    pub fn new(declared: Vec<Process>, folder: PathBuf) -> Self {
        let running = declared.iter().map(|_| None).collect();
        Self { declared, running, folder }
    }

    /// Starts those that others need first, then the others; waits until each is ready.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        for is_first in [true, false] {
            let turn: Vec<usize> =
                (0..self.declared.len()).filter(|process| self.declared[*process].first == is_first).collect();
            turn.iter().try_for_each(|process| self.start(*process))?;
            self.until_ready(&turn)?;
        }
        Ok(())
    }

    fn until_ready(&mut self, processes: &[usize]) -> anyhow::Result<()> {
        let since_us = unix_us();
        for &process in processes {
            while !is_ready(&self.declared[process].ready) {
                self.check()?;
                let name = &self.declared[process].name;
                ensure!(
                    unix_us().saturating_sub(since_us) < START_US,
                    "{name} was not ready in time: see {}",
                    self.log(process).display()
                );
                pause(LOOK);
            }
        }
        Ok(())
    }

    fn start(&mut self, process: usize) -> anyhow::Result<()> {
        let Process { name, command, environment, .. } = &self.declared[process];
        let log = OpenOptions::new().create(true).append(true).open(self.log(process))?;
        let mut program = Command::new(&command[0]);
        program.args(&command[1..]).envs(environment).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Guarded::start(&mut program).with_context(|| format!("starting {name}: {}", command[0]))?;
        self.running[process] = Some(started);
        Ok(())
    }

    fn log(&self, process: usize) -> PathBuf {
        self.folder.join(format!("{}.log", self.declared[process].name))
    }

    /// Begins a fault that signals make; others are not done to processes.
    pub fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Kill => {
                // Dropping it kills it.
                self.running[fault.process] = None;
                Ok(())
            }
            Kind::Hang => self.signal(fault.process, Signal::STOP),
            Kind::Restart => self.stop(fault.process),
            _ => Ok(()),
        }
    }

    /// Ends a fault; the process may take its time to be ready again.
    pub fn recover(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Kill | Kind::Restart => self.start(fault.process),
            Kind::Hang => self.signal(fault.process, Signal::CONT),
            _ => Ok(()),
        }
    }

    /// Fails if one has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for process in 0..self.running.len() {
            let status = self.running[process].as_mut().map(Guarded::ended).transpose()?.flatten();
            if let Some(status) = status {
                let name = &self.declared[process].name;
                bail!("{name} ended by itself with {status}: see {}", self.log(process).display());
            }
        }
        Ok(())
    }

    /// Asks all to stop, and waits for it.
    pub fn stop_all(&mut self) -> anyhow::Result<()> {
        self.check()?;
        (0..self.running.len()).try_for_each(|process| self.stop(process))
    }

    fn signal(&self, process: usize, signal: Signal) -> anyhow::Result<()> {
        let name = &self.declared[process].name;
        let running = self.running[process].as_ref().with_context(|| format!("{name} does not run"))?;
        running.signal(signal).with_context(|| format!("signal to {name}"))
    }

    fn stop(&mut self, process: usize) -> anyhow::Result<()> {
        self.signal(process, Signal::TERM)?;
        if let Some(running) = &mut self.running[process] {
            let ended = until(Duration::from_micros(PATIENCE_US), || running.ended())?;
            ensure!(ended.is_some(), "{} did not stop in time", self.declared[process].name);
        }
        self.running[process] = None;
        Ok(())
    }
}

/// Whether a process answers: a URL with success, an address with a connection.
fn is_ready(ready: &str) -> bool {
    if ready.starts_with("http://") {
        return ureq::get(ready).config().timeout_global(Some(ANSWER)).build().call().is_ok();
    }
    let answers = |address| TcpStream::connect_timeout(&address, ANSWER).is_ok();
    ready.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(answers))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sleeper() -> anyhow::Result<(Processes, tempfile::TempDir, TcpListener)> {
        let (folder, ready) = (tempfile::tempdir()?, TcpListener::bind("127.0.0.1:0")?);
        let command = vec!["sleep".to_owned(), "60".to_owned()];
        let ready_at = ready.local_addr()?.to_string();
        let (environment, first, faults) = (BTreeMap::new(), false, Vec::new());
        let declared = vec![Process { name: "s".into(), command, environment, ready: ready_at, first, faults }];
        let mut processes = Processes::new(declared, folder.path().to_owned());
        processes.start_all()?;
        Ok((processes, folder, ready))
    }

    #[test]
    fn every_fault_ends_with_a_process_that_runs() -> anyhow::Result<()> {
        let (mut processes, _folder, _ready) = sleeper()?;
        for kind in [Kind::Kill, Kind::Hang, Kind::Restart] {
            let fault = Fault { process: 0, kind, peer: None, jump_s: 0, at_us: 0, lasts_us: 0 };
            processes.strike(&fault)?;
            processes.recover(&fault)?;
            processes.check()?;
            assert!(processes.running[0].is_some(), "{kind:?}");
        }
        processes.stop_all()
    }

    #[test]
    fn a_process_that_ends_by_itself_is_told() -> anyhow::Result<()> {
        let (mut processes, _folder, _ready) = sleeper()?;
        processes.signal(0, Signal::KILL)?;
        while processes.check().is_ok() {
            pause(LOOK);
        }
        let told = processes.check().expect_err("it has ended").to_string();
        assert!(told.contains("s ended by itself with signal: 9"), "{told}");
        Ok(())
    }
}
