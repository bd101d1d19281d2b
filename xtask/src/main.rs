//! House tasks: `cargo xtask gen | tidy | check | test | bench | costs | backends | ledger | hang | kubernetes`.
//!
//! A task only lists and runs; what it knows lives in its module.

mod backends;
mod bench;
mod cargo;
mod check;
mod costs;
mod generated;
mod hang;
mod kubernetes;
mod ledger;
mod links;
mod not_run;
mod release;
mod suite;
mod test;
mod tidy;
mod tls;
mod whole;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "House tasks of Drover")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Write all generated files.
    Gen,
    /// Check the house rules and print the longest files and functions.
    Tidy,
    /// Run all that the gate runs besides the tests: formatting, lints, house rules, generated files.
    Check,
    /// Run all tests, suites side by side; `test tls`: those of TLS to Kafka and Cassandra.
    Test(test::Options),
    /// Measure the release build: start, idle memory and durable throughput, with mosquitto in the same run; or one of the
    /// subcommands.
    Bench(bench::Options),
    /// Measure what a message costs: latency to the output and processor time, in one process and with Kafka.
    Costs(costs::Options),
    /// Run Kafka and Cassandra for `deploy/local/run` until Ctrl-C.
    Backends(backends::Options),
    /// Try the operator and the chart of the release build on a real API server, and on a real node.
    Kubernetes(kubernetes::Options),
    /// Kill and hang every process under a fleet, and compare what was acknowledged with what came out.
    Ledger(ledger::Options),
    /// Hang Kafka for a minute under load: nothing is acknowledged, nothing grows, and afterwards all is there.
    Hang(hang::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Gen => generated::write(&root()),
        Task::Tidy => tidy::report(&root()),
        Task::Check => check::run(&root()),
        Task::Test(options) => test::run(&root(), &options),
        Task::Bench(options) => bench::run(&root(), &options),
        Task::Costs(options) => costs::run(&root(), &options),
        Task::Backends(options) => backends::run(&options),
        Task::Kubernetes(options) => kubernetes::run(&root(), &options),
        Task::Ledger(options) => ledger::run(&root(), &options),
        Task::Hang(options) => hang::run(&root(), &options),
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace").to_path_buf()
}
