//! `cargo xtask bench`: start, idle memory and durable QoS 1 throughput of the release build, mosquitto in the same run.
//!
//! Prints figures beside what the project promises, and judges none of these: what they are worth depends on the machine and on
//! what else it does. `bench mqtt` and `bench kafka` are about what the server itself spends, and fail where that is over a
//! ceiling of the project. `bench page` writes figures down with the machine and its conditions.

mod chart;
mod figures;
mod generator;
mod kafka;
mod machine;
mod mqtt;
mod page;
mod server;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use self::generator::Generator;
use self::server::Server;
use super::release::Binaries;
use super::whole;

/// What is promised of Drover: durable QoS 1 messages a second from 200 clients with a window of 10 on 2 cores.
const MESSAGES_PER_SECOND_MIN: f64 = 40_000.0;

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    binaries: Binaries,
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
    /// What a connection and a message cost: idle memory, connect, QoS 0 and 1, a subscriber to everything, TLS.
    Mqtt,
    /// What a message costs over a real Kafka: processor time of ours and of librdkafka's, rate, latency.
    Kafka,
    /// Six ingress processes hold as many connections as there are descriptors for; what a million would take.
    Connections {
        /// Of all processes together.
        #[arg(long, default_value_t = 110_000)]
        connections: usize,
    },
    /// What a message costs one to four ingress processes over a real Kafka, for `--seconds` each.
    Ingress,
    /// From a revocation to the closed socket at three ingress nodes, in calm and while Kafka hangs.
    Revoke {
        /// Of all nodes together.
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Devices revoked in each of the two parts.
        #[arg(long, default_value_t = 300)]
        revocations: usize,
    },
    /// Measure everything that this machine can, and write docs/benchmarks.md.
    Page(page::Options),
}

/// Builds in release, measures, prints.
pub fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    let binaries = options.binaries.find(root)?;
    println!("cores          {}", machine::cores());
    println!("load before    {}", machine::load());
    match &options.what {
        None => durable(&binaries, options),
        Some(What::Mqtt) => mqtt::run(&binaries, options),
        Some(What::Kafka) => kafka::run(&binaries, options),
        Some(What::Connections { connections }) => {
            let sizes = [("DROVER_CONNECTIONS", connections.to_string())];
            whole::run(root, &binaries, "e2e", &["connections::"], &sizes)
        }
        Some(What::Ingress) => {
            let seconds = [("DROVER_SCALING_SECONDS", options.seconds.to_string())];
            whole::run(root, &binaries, "e2e", &["scaling::"], &seconds)
        }
        Some(What::Revoke { connections, revocations }) => {
            let sizes = [("DROVER_REVOCATIONS_CONNECTIONS", connections), ("DROVER_REVOCATIONS", revocations)];
            whole::run(root, &binaries, "e2e", &["revocations::"], &sizes.map(|(name, size)| (name, size.to_string())))
        }
        Some(What::Page(page)) => page::write(root, &binaries, options, page),
    }
}

/// Start, idle memory and durable throughput of the whole platform, beside mosquitto.
fn durable(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    for round in 1..=options.runs {
        println!("\nround {round}");
        let folder = folder(round);
        measure("drover", &Server::drover(binaries, &folder, &[])?, binaries, options)?;
        fs::remove_dir_all(&folder)?;
        if let Some(server) = Server::mosquitto()? {
            measure("mosquitto", &server, binaries, options)?;
        }
    }
    Ok(())
}

/// Where a server keeps what it has, for one round.
fn folder(round: usize) -> PathBuf {
    std::env::temp_dir().join(format!("drover-bench-{}-{round}", std::process::id()))
}

fn measure(name: &str, server: &Server, binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let (clients, window) = (options.clients.to_string(), options.window.to_string());
    let before = server.cpu_seconds()?;
    let arguments = ["--qos", "1", "--clients", &clients, "--window", &window];
    let report = Generator::new(binaries, server).load(&arguments, options.seconds)?;
    let cpu = (server.cpu_seconds()? - before) * 1e6 / report.number("acknowledged").max(1.0);
    let promised = match name {
        "drover" => format!(" (promised: {MESSAGES_PER_SECOND_MIN} from 200 clients, window 10, 2 cores)"),
        _ => String::new(),
    };
    println!(
        "{name:14} {:.0} msg/s acknowledged{promised}, p50 {:.1} ms, p99 {:.1} ms, server CPU {cpu:.1} µs a message, generator \
         {:.1}, memory {:.1} MiB",
        report.number("messages_per_second"),
        report.number("ack_p50_us") / 1e3,
        report.number("ack_p99_us") / 1e3,
        report.number("generator_us_per_message"),
        server.resident_mib()?
    );
    Ok(())
}
