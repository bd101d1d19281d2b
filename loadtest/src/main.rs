//! `drover-load`: command line of the load generator. Reads arguments and prints; the work is in the library.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulated fleets, load and proof for MQTT brokers.
#[derive(Parser)]
#[command(name = "drover-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario; exit code 1 if one of its thresholds fails, 2 if it cannot be run as it is.
    Run(cli::run::Run),
    /// Run a scenario against processes started here, and do faults to them by seed meanwhile.
    Chaos(cli::run::Chaos),
    /// Print the figures of two runs side by side.
    Compare(cli::run::Compare),
    /// Publish as fast as the windows allow, or hold idle connections.
    Bench(cli::bench::Bench),
    /// A share of a run: started by it, or elsewhere with --controller.
    Worker(cli::run::Work),
    /// Print a run as objects of Kubernetes: `drover-load kubernetes SCENARIO | kubectl apply -f -`.
    Kubernetes(cli::run::Kubernetes),
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Chaos(chaos) => chaos.run(),
        Command::Compare(compare) => Ok(compare.run()),
        Command::Bench(bench) => bench.run(),
        Command::Worker(work) => work.run(),
        Command::Kubernetes(kubernetes) => kubernetes.run(),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("drover-load: {error:#}");
        ExitCode::FAILURE
    })
}
