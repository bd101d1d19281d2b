//! `drover-load run`, `chaos`, `compare`, and the `worker` that a run starts.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use drover_load::chaos::{self, Places, rooms};
use drover_load::controller::WORKERS_MAX;
use drover_load::report::{Report, compare};
use drover_load::scenario::{Scenario, ScenarioError};
use drover_load::session::Session;
use drover_load::worker::{self, Orders};

/// Exit code of what cannot be run as it is asked for; clap has the same.
const BAD_INPUT: u8 = 2;
/// Factors of `--scale`.
const SCALE: (f64, f64) = (1e-6, 1e3);

// What `run` and `chaos` have in common; clap would take a doc comment for the help of both.
#[derive(Args)]
pub struct Arguments {
    /// The scenario's file; `loadtest/scenarios` has ready ones.
    scenario: PathBuf,
    /// Sends everybody to HOST[:PORT]. The port is that of the first fleet; the others are moved by as much.
    #[arg(long, value_name = "HOST[:PORT]")]
    target: Option<String>,
    /// A Prometheus page with the server's memory and processor time, in place of the scenario's.
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Processes that share the devices.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=WORKERS_MAX))]
    workers: u64,
    /// Multiplies the number of devices of every fleet.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// Folder for report.html, report.json and junit.xml.
    #[arg(long, value_name = "DIR", default_value = "./load-report")]
    out: PathBuf,
    /// Show nothing while it runs.
    #[arg(long)]
    quiet: bool,
}

impl Arguments {
    fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let mut scenario = Scenario::load(&self.scenario)?;
        scenario.check_files()?;
        scenario.scale(self.scale, SCALE)?;
        if let Some(target) = &self.target {
            scenario.aim(target)?;
        }
        if self.metrics.is_some() {
            scenario.target.metrics.clone_from(&self.metrics);
        }
        Ok(scenario)
    }

    fn session(&self) -> anyhow::Result<Session> {
        let executable = std::env::current_exe()?;
        Ok(Session { workers: self.workers, executable, folder: self.out.clone(), is_quiet: self.quiet })
    }

    /// Writes and prints a report; the exit code it means.
    fn end(&self, report: &Report) -> anyhow::Result<ExitCode> {
        report.write(&self.out)?;
        print!("{report}");
        println!("report: {}", self.out.join("report.html").display());
        Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Runs the scenario.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let scenario = match self.scenario() {
            Ok(scenario) => scenario,
            Err(error) => return Ok(bad_input(&error)),
        };
        let report = self.session()?.run(&scenario)?;
        self.end(&report)
    }
}

#[derive(Args)]
pub struct Chaos {
    #[command(flatten)]
    arguments: Arguments,
    /// Chooses the faults: the same seed does the same at the same times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The executable to be tried.
    #[arg(long, env = "DROVER_BIN", value_name = "FILE")]
    drover: Option<PathBuf>,
    // Whether this process is in namespaces of its own already.
    #[arg(long, hide = true)]
    inside: bool,
}

/// The name of the flag above.
const INSIDE: &str = "--inside";

impl Chaos {
    /// Starts the processes, runs the scenario, and does the faults meanwhile.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut scenario = match self.arguments.scenario() {
            Ok(scenario) => scenario,
            Err(error) => return Ok(bad_input(&error)),
        };
        if let Err(missing) = rooms::check(&scenario.chaos) {
            return Ok(bad_input(&missing));
        }
        if rooms::are_needed(&scenario.chaos) && !self.inside {
            return Err(rooms::enter(&scenario.chaos, INSIDE));
        }
        let session = self.arguments.session()?;
        let beside = || session.executable.with_file_name("drover");
        let places = Places {
            drover: self.drover.clone().unwrap_or_else(beside),
            scenario_folder: self.arguments.scenario.parent().map(PathBuf::from).unwrap_or_default(),
        };
        match chaos::run(&mut scenario, &session, &places, self.seed) {
            Ok(report) => self.arguments.end(&report),
            Err(error) => match error.downcast_ref::<rooms::Missing>() {
                Some(missing) => Ok(bad_input(missing)),
                None => Err(error),
            },
        }
    }
}

#[derive(Args)]
pub struct Compare {
    /// report.json of a run.
    first: PathBuf,
    /// report.json of another.
    second: PathBuf,
}

impl Compare {
    pub fn run(&self) -> ExitCode {
        match (Report::read(&self.first), Report::read(&self.second)) {
            (Ok(first), Ok(second)) => {
                print!("{}", compare::table(&first, &second));
                ExitCode::SUCCESS
            }
            (Err(error), _) | (_, Err(error)) => bad_input(&error),
        }
    }
}

/// Reads orders from standard input and runs a share of the devices.
pub fn work() -> anyhow::Result<ExitCode> {
    let orders: Orders = serde_json::from_reader(std::io::stdin().lock()).context("orders on standard input")?;
    let mut out = std::io::stdout().lock();
    worker::run(&orders, &mut out)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn bad_input(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("drover-load: {error:#}");
    ExitCode::from(BAD_INPUT)
}
