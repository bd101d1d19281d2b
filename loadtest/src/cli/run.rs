//! `drover-load run`, `chaos`, `compare`, the `worker` of a run, and a run for `kubernetes`.

use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::Args;
use drover_load::chaos::{self, Places, rooms};
use drover_load::controller::WORKERS_MAX;
use drover_load::guarded::Guarded;
use drover_load::kubernetes::Jobs;
use drover_load::remote;
use drover_load::report::{Report, compare};
use drover_load::scenario::{Scenario, ScenarioError};
use drover_load::session::Session;
use drover_load::worker::{self, Orders};

/// Exit code of what cannot be run as it is asked for; clap has the same.
const BAD_INPUT: u8 = 2;
/// Runs of `--runs`.
const RUNS_MAX: u64 = 10_000;
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

    fn session(&self, listen: Option<SocketAddr>) -> anyhow::Result<Session> {
        let executable = std::env::current_exe()?;
        Ok(Session { workers: self.workers, listen, executable, folder: self.out.clone(), is_quiet: self.quiet })
    }

    /// Writes and prints a report; the exit code it means.
    fn end(&self, report: &Report) -> anyhow::Result<ExitCode> {
        report.write(&self.out)?;
        print!("{report}");
        println!("report: {}", self.out.join("report.html").display());
        Ok(if report.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    arguments: Arguments,
    /// Wait here for workers that are started elsewhere (`drover-load worker --controller`), and start none. For trusted networks.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

impl Run {
    /// Runs the scenario.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let scenario = match self.arguments.scenario() {
            Ok(scenario) => scenario,
            Err(error) => return Ok(bad_input(&error)),
        };
        if self.listen.is_some() && scenario.ledger {
            let limit = "absent with --listen, as each worker keeps its books in a file of its own machine".to_owned();
            let field = "ledger".to_owned();
            return Ok(bad_input(&ScenarioError::Value { field, limit, value: "true".to_owned() }));
        }
        let report = self.arguments.session(self.listen)?.run(&scenario)?;
        self.arguments.end(&report)
    }
}

#[derive(Args)]
pub struct Chaos {
    #[command(flatten)]
    arguments: Arguments,
    /// Chooses the faults: the same seed does the same at the same times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many runs one after the other, each with the next seed, whose reports lie in seed-N below --out.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX))]
    runs: u64,
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
        if self.runs > 1 {
            return self.by_seeds();
        }
        if rooms::are_needed(&scenario.chaos) && !self.inside {
            return Err(rooms::enter(&scenario.chaos, INSIDE));
        }
        let session = self.arguments.session(None)?;
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

    /// One run for each seed, as a process of its own: what one leaves behind meets no other. A run that fails stops none
    /// of the others, one that cannot be made all of them.
    fn by_seeds(&self) -> anyhow::Result<ExitCode> {
        let mut failed = Vec::new();
        for seed in (0..self.runs).map(|number| self.seed.wrapping_add(number)) {
            let folder = self.arguments.out.join(format!("seed-{seed}"));
            let status = Guarded::start(&mut self.again(seed, &folder)?).context("starting a run")?.wait()?;
            match status.code() {
                Some(0) => {}
                Some(code) if code == i32::from(BAD_INPUT) => return Ok(ExitCode::from(BAD_INPUT)),
                _ => failed.push(format!("seed {seed} FAILED ({status}): {}", folder.display())),
            }
        }
        failed.iter().for_each(|told| println!("{told}"));
        println!("{} of {} runs failed", failed.len(), self.runs);
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// This command for one seed.
    fn again(&self, seed: u64, folder: &Path) -> anyhow::Result<Command> {
        let Arguments { scenario, target, metrics, workers, scale, out: _, quiet } = &self.arguments;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("chaos").arg(scenario).args(["--seed", &seed.to_string(), "--workers", &workers.to_string()]);
        command.args(["--scale", &scale.to_string()]).arg("--out").arg(folder);
        for (name, value) in [("--target", target), ("--metrics", metrics)] {
            command.args(value.iter().flat_map(|value| [name, value.as_str()]));
        }
        command.args(self.drover.iter().flat_map(|drover| [Path::new("--drover"), drover.as_path()]));
        if *quiet {
            command.arg("--quiet");
        }
        Ok(command)
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

#[derive(Args)]
pub struct Work {
    /// Where the controller waits; without it, orders are on standard input.
    #[arg(long, value_name = "HOST:PORT")]
    controller: Option<String>,
}

impl Work {
    /// Gets orders and runs a share of the devices.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if let Some(controller) = &self.controller {
            let (orders, stream) = remote::join(controller)?;
            return work(&orders, BufWriter::new(stream));
        }
        let orders: Orders = serde_json::from_reader(std::io::stdin().lock()).context("orders on standard input")?;
        work(&orders, std::io::stdout().lock())
    }
}

fn work(orders: &Orders, mut told: impl Write) -> anyhow::Result<ExitCode> {
    worker::run(orders, &mut told)?;
    told.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub struct Kubernetes {
    /// The scenario's file; what it names beside itself comes from --secret.
    scenario: PathBuf,
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=WORKERS_MAX))]
    workers: u64,
    /// Name of all objects, `-controller` and `-worker` added to those of the Jobs.
    #[arg(long, default_value = "drover-load")]
    name: String,
    /// An image with drover-load as its entry point.
    #[arg(long, default_value = concat!("localhost/drover-load:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// A Secret whose keys are files beside the scenario, such as tokens.
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// Further arguments of `run`, such as --target.
    #[arg(last = true)]
    arguments: Vec<String>,
}

impl Kubernetes {
    /// Prints the objects.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        if let Err(error) = Scenario::load(&self.scenario) {
            return Ok(bad_input(&error));
        }
        let text = std::fs::read_to_string(&self.scenario)?;
        let file = self.scenario.file_name().and_then(|name| name.to_str()).context("the scenario's file name")?;
        let jobs = Jobs {
            name: &self.name,
            image: &self.image,
            workers: self.workers,
            file,
            text: &text,
            secret: self.secret.as_deref(),
            arguments: &self.arguments,
        };
        match jobs.list() {
            Ok(list) => {
                println!("{list:#}");
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => Ok(bad_input(&error)),
        }
    }
}

fn bad_input(error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("drover-load: {error:#}");
    ExitCode::from(BAD_INPUT)
}
