//! `cargo xtask bench kafka`: what a message costs the ingress over a real Kafka (acks=all, idempotent) on this machine.
//!
//! Processor time of the process is told apart by thread: librdkafka names its own `rdk:…`. The registry is in the process as
//! well and has nothing to do meanwhile.

use std::path::Path;

use anyhow::{Context, ensure};
use drover_backends::kafka::Kafka;

use super::figures::{Bounds, Figures};
use super::generator::Generator;
use super::mqtt::{LOADS, calm};
use super::server::{LIKE_BROKERS, Server, cpu_of};
use super::{Options, folder};

/// µs of ingress CPU a message of the first load: QoS 1 in a window of 10.
const MESSAGE: Bounds = Bounds { ceiling: 12.0, goal: 12.0 };
/// There is one broker.
const REPLICAS: &str = "bus.kafka.replication_factor=1";
const IN_SYNC: &str = "bus.kafka.min_insync_replicas=1";
/// How the names of librdkafka's threads begin.
const LIBRDKAFKA: &str = "rdk:";

/// Processor time so far, in seconds.
#[derive(Clone, Copy)]
struct Cpu {
    ours: f64,
    librdkafka: f64,
}

impl Cpu {
    /// Of all threads of a process (proc(5), `/proc/PID/task`). One that ends takes its time along; those of a service stay.
    fn of(server: &Server) -> anyhow::Result<Self> {
        let mut cpu = Self { ours: 0.0, librdkafka: 0.0 };
        for thread in std::fs::read_dir(server.proc("task"))? {
            let folder = thread?.path();
            let [name, stat] = ["comm", "stat"].map(|file| std::fs::read_to_string(folder.join(file)));
            let (Ok(name), Ok(stat)) = (name, stat) else { continue }; // it has ended
            let seconds = cpu_of(&stat)?;
            let share = if name.starts_with(LIBRDKAFKA) { &mut cpu.librdkafka } else { &mut cpu.ours };
            *share += seconds;
        }
        Ok(cpu)
    }

    /// µs of each of `count` messages since `before`.
    fn each(self, before: Self, count: f64) -> Self {
        let each = |now: f64, before: f64| (now - before) * 1e6 / count.max(1.0);
        Self { ours: each(self.ours, before.ours), librdkafka: each(self.librdkafka, before.librdkafka) }
    }
}

/// Measures an ingress over a Kafka of each round's own; a broker that cannot be had is said in one line.
pub fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let mut over = Vec::new();
    for round in 1..=options.runs {
        println!("\nround {round}");
        let Some(kafka) = Kafka::start()? else { return Ok(()) };
        let brokers = format!("bus.kafka.brokers={}", kafka.brokers());
        let mut arguments = LIKE_BROKERS.to_vec();
        for setting in ["bus.kind=kafka", brokers.as_str(), REPLICAS, IN_SYNC] {
            arguments.extend(["--set", setting]);
        }
        let folder = folder(round);
        let server = Server::drover(binaries, &folder, &arguments)?;
        over.extend(measure(&server, binaries, options.seconds)?);
        drop(server);
        std::fs::remove_dir_all(&folder)?;
    }
    ensure!(over.is_empty(), "{}", over.join("; "));
    Ok(())
}

/// What is not as it has to be.
fn measure(server: &Server, binaries: &Path, seconds: u64) -> anyhow::Result<Vec<String>> {
    let generator = Generator::new(binaries, server);
    let mut figures = Figures::new("kafka", true);
    for (number, load) in LOADS.iter().enumerate() {
        let before = Cpu::of(server)?;
        let report = generator.load(&load.arguments, seconds).context(load.name)?;
        let Cpu { ours, librdkafka } = Cpu::of(server)?.each(before, report.number("acknowledged"));
        let (rate, p50) = (report.number("messages_per_second"), report.number("ack_p50_us"));
        let besides = format!("ours {ours:.2}, librdkafka {librdkafka:.2}; {rate:.0} msg/s, p50 {p50:.0} µs");
        let whole = ours + librdkafka;
        match number {
            0 => figures.judge(load.name, whole, "µs a message", MESSAGE, &besides),
            _ => figures.tell(load.name, &format!("{whole:7.2} µs a message; {besides}")),
        }
    }
    calm(&figures, &generator, seconds)?;
    figures.tell("", "which waits for the linger of 1 ms and for Kafka's answer to acks=all");
    Ok(figures.over())
}
