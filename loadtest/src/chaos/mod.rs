//! A scenario while its server suffers faults by seed; the ledger says afterwards what came of it.
//!
//! Only what this run has started or made itself is touched: `processes`, and in namespaces of the run's own (`rooms`) the
//! networks and disks of these processes.

mod disk;
mod faults;
mod jumps;
mod layout;
mod network;
mod processes;
pub mod rooms;
mod stage;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

pub use self::faults::{Fault, schedule};
use self::layout::{Layout, absolute};
pub use self::processes::free_offset;
use self::stage::Stage;
use crate::clock::{LOOK, pause, unix_us};
use crate::report::Report;
use crate::scenario::{Process, Scenario};
use crate::session::Session;

/// The name of what is started where a scenario names no processes.
const DROVER: &str = "drover";
/// How often a command before the load is tried: services may not be ready for it.
const SETUP_TRIES: usize = 60;
const SETUP_PAUSE: Duration = Duration::from_millis(500);

/// Where tokens of an administrator lie in the folder of data: of `drover init` there, and of `drover up`.
const TOKENS: [&str; 2] = ["admin.token", "drover/admin.token"];

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// What `{drover}` stands for.
    pub drover: PathBuf,
    /// Where commands before the load run, so that they find the scenario's files.
    pub scenario_folder: PathBuf,
}

/// Runs the whole: start, prepare, load with faults, check, stop. Faults of networks and disks need [`rooms::enter`].
pub fn run(scenario: &mut Scenario, session: &Session, places: &Places, seed: u64) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&session.folder).with_context(|| session.folder.display().to_string())?;
    // Processes run elsewhere than this one.
    let folder = session.folder.canonicalize()?;
    let data = tempfile::Builder::new().prefix("data-").tempdir_in(&folder)?;
    let has_network = rooms::has_network(&scenario.chaos);
    if scenario.chaos.processes.is_empty() {
        if !has_network {
            scenario.target.port_offset = processes::free_offset(seed)?;
        }
        scenario.target.metrics.get_or_insert_with(|| "http://127.0.0.1:{port:9464}/metrics".to_owned());
        scenario.chaos.processes.push(drover_up());
    }
    let layout = Layout {
        target: scenario.target.clone(),
        // Where it is absent, the first process that names it says so.
        drover: absolute(&places.drover),
        data: data.path().to_owned(),
        here: absolute(&places.scenario_folder),
        names: scenario.chaos.processes.iter().map(|process| process.name.clone()).collect(),
        has_network,
    };
    layout.lead(scenario)?;
    let faults = schedule(seed, scenario);
    let names: Vec<&str> = layout.names.iter().map(String::as_str).collect();
    let told: Vec<String> = faults.iter().map(|fault| fault.tell(&names)).collect();
    println!("seed {seed}: {} faults\n{}", faults.len(), told.join("\n"));

    let mut stage = Stage::set(&layout, &scenario.chaos, folder)?;
    for command in &scenario.chaos.before {
        prepare(&layout.fill_all(command)?, &layout, &[], 1)?;
    }
    stage.processes.start_all()?;
    let token = TOKENS.iter().find_map(|name| std::fs::read_to_string(data.path().join(name)).ok());
    let token = token.unwrap_or_default();
    let server = layout.fill(&scenario.chaos.server)?;
    for command in &scenario.chaos.setup {
        let environment = [("DROVER_SERVER", server.as_str()), ("DROVER_TOKEN", token.trim())];
        prepare(&layout.fill_all(command)?, &layout, &environment, SETUP_TRIES)?;
    }

    let is_over = AtomicBool::new(false);
    let (report, suffered) = std::thread::scope(|scope| {
        let suffering = scope.spawn(|| suffer(&mut stage, &faults, &is_over));
        let report = session.run(scenario);
        is_over.store(true, Ordering::Relaxed);
        (report, suffering.join())
    });
    let mut report = report?;
    suffered.map_err(|_| anyhow::anyhow!("the thread of faults panicked"))??;
    stage.processes.stop_all()?;
    report.faults = told;
    Ok(report)
}

fn drover_up() -> Process {
    let command = ["{drover}", "up", "--data", "{own}", "--port-offset", "{offset}"];
    Process {
        name: DROVER.to_owned(),
        command: command.map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        ready: "http://127.0.0.1:{port:9464}/readyz".to_owned(),
        first: false,
        faults: Vec::new(),
    }
}

/// Runs a command before the load, until it succeeds.
fn prepare(command: &[String], layout: &Layout, environment: &[(&str, &str)], tries: usize) -> anyhow::Result<()> {
    let mut said = String::new();
    for _ in 0..tries {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).envs(environment.iter().copied()).stdin(Stdio::null());
        process.current_dir(&layout.here);
        let output = process.output().with_context(|| format!("starting {}", command[0]))?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        pause(SETUP_PAUSE);
    }
    anyhow::bail!("{} did not succeed, tries {tries}: {said}", command.join(" "))
}

/// Does the faults at their times, and ends each; fails if a process ends by itself.
fn suffer(stage: &mut Stage, faults: &[Fault], is_over: &AtomicBool) -> anyhow::Result<()> {
    let start_us = unix_us();
    let mut waiting = faults.iter().copied().peekable();
    let mut under_way: Vec<Fault> = Vec::new();
    while (waiting.peek().is_some() || !under_way.is_empty()) && !is_over.load(Ordering::Relaxed) {
        pause(LOOK);
        let now_us = unix_us().saturating_sub(start_us);
        for fault in under_way.extract_if(.., |fault| fault.ends_us() <= now_us) {
            stage.recover(&fault)?;
        }
        if let Some(fault) = waiting.next_if(|fault| fault.at_us <= now_us) {
            stage.strike(&fault)?;
            under_way.push(fault);
        }
        stage.processes.check()?;
    }
    for fault in under_way {
        stage.recover(&fault)?;
    }
    ensure!(waiting.peek().is_none(), "the run was over before all faults were done");
    Ok(())
}
