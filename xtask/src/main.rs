//! House tasks: `cargo xtask gen | tidy | check | bench`.
//!
//! A task only lists and runs; what it knows lives in its module.

mod bench;
mod check;
mod generated;
mod links;
mod tidy;

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
    /// Measure start, idle memory and durable throughput of the release build, with mosquitto in the same run.
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Gen => generated::write(&root()),
        Task::Tidy => tidy::report(&root()),
        Task::Check => check::run(&root()),
        Task::Bench(options) => bench::run(&root(), &options),
    }
}

/// The workspace's directory.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace").to_path_buf()
}
