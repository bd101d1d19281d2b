//! A scenario while its server is killed, stopped and restarted by seed; the ledger says afterwards what came of it.
//!
//! Only processes that this run has started itself are touched.

mod faults;
mod processes;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

pub use self::faults::{Fault, Kind, schedule};
use self::processes::Processes;
use crate::clock::{LOOK, pause, unix_us};
use crate::report::Report;
use crate::scenario::{Process, Scenario};
use crate::session::Session;

/// The name of what is started where a scenario names no processes.
const DROVER: &str = "drover";
/// How often a command before the load is tried: services may not be ready for it.
const SETUP_TRIES: usize = 60;
const SETUP_PAUSE: Duration = Duration::from_millis(500);

/// Where things are.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What `{drover}` stands for.
    pub drover: PathBuf,
    /// Where commands before the load run, so that they find the scenario's files.
    pub scenario_folder: PathBuf,
}

/// Runs the whole: start, prepare, load with faults, check, stop.
pub fn run(scenario: &mut Scenario, session: &Session, stage: &Stage, seed: u64) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&session.folder).with_context(|| session.folder.display().to_string())?;
    // Processes run elsewhere than this one.
    let folder = session.folder.canonicalize()?;
    let data = tempfile::Builder::new().prefix("data-").tempdir_in(&folder)?;
    if scenario.chaos.processes.is_empty() {
        scenario.target.port_offset = processes::free_offset(seed)?;
        scenario.target.metrics.get_or_insert_with(|| "http://127.0.0.1:{port:9464}/metrics".to_owned());
        scenario.chaos.processes.push(drover_up());
    }
    // Where it is absent, the first process that names it says so.
    let drover = stage.drover.canonicalize().unwrap_or_else(|_| stage.drover.clone());
    let fill = |text: &str| {
        let text = scenario.target.expand(text).replace("{drover}", &drover.display().to_string());
        let offset = scenario.target.port_offset.to_string();
        text.replace("{data}", &data.path().display().to_string()).replace("{offset}", &offset)
    };
    let filled = |process: &Process| Process {
        name: process.name.clone(),
        command: process.command.iter().map(|part| fill(part)).collect(),
        ready: fill(&process.ready),
    };
    let faults = schedule(seed, scenario);
    let names: Vec<&str> = scenario.chaos.processes.iter().map(|process| process.name.as_str()).collect();
    let told: Vec<String> = faults.iter().map(|fault| fault.tell(names[fault.process])).collect();
    println!("seed {seed}: {} faults\n{}", faults.len(), told.join("\n"));

    let mut processes = Processes::new(scenario.chaos.processes.iter().map(filled).collect(), folder);
    processes.start_all()?;
    let token = std::fs::read_to_string(data.path().join("admin.token")).unwrap_or_default();
    let server = fill("http://127.0.0.1:{port:8080}");
    for command in &scenario.chaos.setup {
        let command: Vec<String> = command.iter().map(|part| fill(part)).collect();
        prepare(&command, stage, &[("DROVER_SERVER", server.as_str()), ("DROVER_TOKEN", token.trim())])?;
    }

    let is_over = AtomicBool::new(false);
    let (report, suffered) = std::thread::scope(|scope| {
        let suffering = scope.spawn(|| suffer(&mut processes, &faults, &is_over));
        let report = session.run(scenario);
        is_over.store(true, Ordering::Relaxed);
        (report, suffering.join())
    });
    let mut report = report?;
    suffered.map_err(|_| anyhow::anyhow!("the thread of faults panicked"))??;
    processes.stop_all()?;
    report.faults = told;
    Ok(report)
}

fn drover_up() -> Process {
    let command = ["{drover}", "up", "--data", "{data}", "--port-offset", "{offset}"];
    Process {
        name: DROVER.to_owned(),
        command: command.map(str::to_owned).to_vec(),
        ready: "http://127.0.0.1:{port:9464}/readyz".to_owned(),
    }
}

/// Runs a command before the load, until it succeeds.
fn prepare(command: &[String], stage: &Stage, environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut said = String::new();
    for _ in 0..SETUP_TRIES {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).envs(environment.iter().copied()).stdin(Stdio::null());
        if !stage.scenario_folder.as_os_str().is_empty() {
            process.current_dir(&stage.scenario_folder);
        }
        let output = process.output().with_context(|| format!("starting {}", command[0]))?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        pause(SETUP_PAUSE);
    }
    anyhow::bail!("{} did not succeed in {SETUP_TRIES} tries: {said}", command.join(" "))
}

/// Does the faults at their times, and ends each; fails if a process ends by itself.
fn suffer(processes: &mut Processes, faults: &[Fault], is_over: &AtomicBool) -> anyhow::Result<()> {
    let start_us = unix_us();
    let mut waiting = faults.iter().copied().peekable();
    let mut under_way: Vec<Fault> = Vec::new();
    while (waiting.peek().is_some() || !under_way.is_empty()) && !is_over.load(Ordering::Relaxed) {
        pause(LOOK);
        let now_us = unix_us().saturating_sub(start_us);
        for fault in under_way.extract_if(.., |fault| fault.ends_us() <= now_us) {
            processes.recover(&fault)?;
        }
        if let Some(fault) = waiting.next_if(|fault| fault.at_us <= now_us) {
            processes.strike(&fault)?;
            under_way.push(fault);
        }
        processes.check()?;
    }
    for fault in under_way {
        processes.recover(&fault)?;
    }
    ensure!(waiting.peek().is_none(), "the run was over before all faults were done");
    Ok(())
}
