//! `cargo xtask bench`: start, idle memory and durable QoS 1 throughput of the release build, mosquitto in the same run.
//!
//! Prints figures and judges none: what they are worth depends on the machine and on what else it does. `bench page` writes
//! them down with the machine and its conditions.

mod chart;
mod machine;
mod mqtt;
mod page;
mod server;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use self::server::Server;

/// What starts mosquitto.
const MOSQUITTO: &str = "mosquitto -p {port}";
/// `drover up` as a broker alone: the embedded log, durable acknowledgements, presence events.
const BROKER: [&str; 4] = ["--only", "ingress,registry", "--set", "ingress.limits.connections=19000"];

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Where built executables lie; without it a release build is made.
    #[arg(long, global = true)]
    binaries: Option<PathBuf>,
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Unacknowledged messages of each client.
    #[arg(long, default_value_t = 10)]
    window: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each server is measured; figures of all runs are printed, of a page their medians.
    #[arg(long, default_value_t = 2)]
    runs: usize,
}

#[derive(Subcommand)]
enum What {
    /// What a connection and a message cost: idle memory, connect, QoS 0 and 1.
    Mqtt,
    /// Measure everything that this machine can, and write docs/benchmarks.md.
    Page(page::Options),
}

/// Builds in release, measures, prints.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = match &options.binaries {
        Some(binaries) => binaries.clone(),
        None => build(root)?,
    };
    if let Some(What::Page(page)) = &options.what {
        return page::write(root, &binaries, options, page);
    }
    println!("load before    {}", machine::load());
    for round in 1..=options.runs {
        println!("\nround {round}");
        let folder = std::env::temp_dir().join(format!("drover-bench-{}-{round}", std::process::id()));
        let arguments: &[&str] = if options.what.is_some() { &BROKER } else { &[] };
        measure_one("drover", &Server::drover(&binaries, &folder, arguments)?, &binaries, options)?;
        fs::remove_dir_all(&folder)?;
        match Server::peer(MOSQUITTO)? {
            Some(server) => measure_one("mosquitto", &server, &binaries, options)?,
            None => println!("NOT RUN: mosquitto is missing"),
        }
    }
    Ok(())
}

/// Builds in release; where the executables are.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let built = ["build", "--release", "--package", "drover", "--package", "drover-load"];
    let status = Command::new("cargo").args(built).current_dir(root).status()?;
    ensure!(status.success(), "cargo {} failed", built.join(" "));
    Ok(target(root)?.join("release"))
}

fn measure_one(name: &str, server: &Server, binaries: &Path, options: &Options) -> anyhow::Result<()> {
    match options.what {
        Some(What::Mqtt) => mqtt::measure(name, server, binaries, options.seconds),
        None | Some(What::Page(_)) => measure(name, server, binaries, options),
    }
}

/// The target directory.
pub fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = Command::new("cargo").args(arguments).current_dir(root).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names the target directory")?.into())
}

fn measure(name: &str, server: &Server, binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let before = server.cpu_seconds()?;
    let mut load = generator(binaries, server, options.seconds);
    load.args(["--qos", "1"]);
    load.args(["--clients", &options.clients.to_string(), "--window", &options.window.to_string()]);
    let report = reported(&mut load)?;
    let number = |field: &str| report[field].as_f64().unwrap_or_default();
    let cpu = (server.cpu_seconds()? - before) * 1e6 / number("acknowledged").max(1.0);
    println!(
        "{name:14} {:.0} msg/s acknowledged, p50 {:.1} ms, p99 {:.1} ms, server CPU {cpu:.1} µs a message, generator \
         {:.1}, memory {:.1} MiB",
        number("messages_per_second"),
        number("ack_p50_us") / 1e3,
        number("ack_p99_us") / 1e3,
        number("generator_us_per_message"),
        server.resident_mib()?
    );
    Ok(())
}

/// The generator against a server, for so long.
fn generator(binaries: &Path, server: &Server, seconds: u64) -> Command {
    let mut load = Command::new(binaries.join("drover-load"));
    load.args(["bench", "--json", "--url", &server.url, "--seconds", &seconds.to_string()]);
    load
}

/// Runs the generator; its report, or why it failed: what it says, and else what it has reported.
fn reported(load: &mut Command) -> anyhow::Result<Value> {
    let Output { status, stdout, stderr } = load.output().context("starting drover-load")?;
    let (report, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(status.success(), "drover-load ended with {status}: {}{}", said.trim_end(), report.trim_end());
    serde_json::from_str(&report).with_context(|| format!("the report of drover-load: {report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_fails_is_told_with_its_status_what_it_said_and_what_it_reported() {
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"errors\":{\"no answer\":3}}'; exit 1"]);
        let told = reported(&mut load).expect_err("it fails").to_string();
        assert_eq!(told, "drover-load ended with exit status: 1: {\"errors\":{\"no answer\":3}}");
        let mut load = Command::new("sh");
        load.args(["-c", "echo '{\"sent\":3}'"]);
        assert_eq!(reported(&mut load).expect("it ends well")["sent"], 3);
    }
}
