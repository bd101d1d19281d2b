//! `cargo xtask bench mqtt`: what a connection and a message cost the server, with mosquitto in the same run.
//!
//! `drover up --only ingress,registry` as shipped: embedded log, durable acknowledgements, presence events; and the whole of
//! `drover up` besides. CPU time and resident memory of the server process are read from /proc, so another load on the
//! machine disturbs less than it does rates. Fails where ours is over a ceiling of the project, and says how far a goal is.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::figures::{Bounds, Figures};
use super::generator::Generator;
use super::server::{LIKE_BROKERS, Server, TLS_PORT, pause};
use super::{Options, folder};

/// Idle connections of the three waves: to warm up, and between which memory is compared.
pub const WAVES: [usize; 3] = [2_000, 4_000, 12_000];
/// The same over TLS, where both ends compute for a millisecond or more.
const WAVES_TLS: [usize; 3] = [500, 1_000, 4_000];
/// Bytes of an idle connection, and µs of a connect.
const IDLE: Bounds = Bounds { ceiling: 1_200.0, goal: 735.0 };
const IDLE_TLS: Bounds = Bounds { ceiling: 20.0 * 1024.0, goal: 12.0 * 1024.0 };
const CONNECT: Bounds = Bounds { ceiling: 30.0, goal: 13.0 };
/// Between the last connect and a look at memory: logs are synced and stores flushed within it.
const QUIET: Duration = Duration::from_secs(30);
/// Who publishes in a load, and what, in bytes.
pub const CLIENTS: &str = "500";
pub const PAYLOAD: &str = "128";

/// One load: its name, arguments of the generator, and what a message may cost, in µs of server CPU.
pub struct Load {
    pub name: &'static str,
    pub arguments: [&'static str; 8],
    bounds: Bounds,
}

pub const LOADS: [Load; 3] = [
    Load {
        name: "QoS 1, window 10",
        arguments: ["--qos", "1", "--window", "10", "--clients", CLIENTS, "--payload", PAYLOAD],
        bounds: Bounds { ceiling: 3.5, goal: 1.4 },
    },
    Load {
        name: "QoS 1, window 1",
        arguments: ["--qos", "1", "--window", "1", "--clients", CLIENTS, "--payload", PAYLOAD],
        bounds: Bounds { ceiling: 9.0, goal: 5.5 },
    },
    Load {
        name: "QoS 0",
        arguments: ["--qos", "0", "--window", "10", "--clients", CLIENTS, "--payload", PAYLOAD],
        bounds: Bounds { ceiling: 2.5, goal: 1.1 },
    },
];
/// Everything to one subscriber.
const EVERYTHING: [&str; 10] =
    ["--qos", "1", "--window", "10", "--clients", "100", "--payload", PAYLOAD, "--subscribers", "1"];
/// Messages a second at which a server is calm, and the load that is so many.
const CALM: [&str; 10] = ["--qos", "1", "--window", "10", "--clients", "50", "--payload", PAYLOAD, "--rate", "500"];
/// How often a disk is asked to keep something, to learn what that takes.
const SYNCS: usize = 200;

/// Measures ours, mosquitto if it is there, and the whole platform; fails at the end if ours is over a ceiling.
pub fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let (mut over, seconds) = (Vec::new(), options.seconds);
    for round in 1..=options.runs {
        println!("\nround {round}");
        let folder = folder(round);
        over.extend(measure("drover", true, &Server::drover(binaries, &folder, &LIKE_BROKERS)?, binaries, seconds)?);
        tell_disk(&folder)?;
        let server = Server::drover(binaries, &folder, &LIKE_BROKERS)?;
        over.extend(over_tls("drover", &server, &folder.join("pki/ca.pem"), binaries)?);
        drop(server);
        std::fs::remove_dir_all(&folder)?;
        // What a peer cannot do is no fault of ours.
        if let Err(error) = beside(binaries, seconds) {
            println!("NOT MEASURED: mosquitto: {error:#}");
        }
        let [_, _, set, connections] = LIKE_BROKERS;
        let platform = Server::drover(binaries, &folder, &[set, connections])?;
        drop(measure("platform", false, &platform, binaries, seconds)?);
        drop(platform);
        std::fs::remove_dir_all(&folder)?;
    }
    ensure!(over.is_empty(), "{}", over.join("; "));
    Ok(())
}

/// What a message of a load has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Server CPU a message, in microseconds.
    pub cpu_us: f64,
    /// Acknowledged messages a second.
    pub rate: f64,
    /// Publish to acknowledgement, in microseconds; 0 at QoS 0.
    pub p50_us: f64,
    pub p99_us: f64,
}

/// What a connection costs that does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Memory as the slope between two numbers of connections, in bytes.
    pub bytes: f64,
    /// Server CPU of a connect, in microseconds.
    pub connect_us: f64,
}

/// Measures one server; `judged`: it is ours, alone and as shipped. What is not as it has to be.
fn measure(name: &str, judged: bool, server: &Server, binaries: &Path, seconds: u64) -> anyhow::Result<Vec<String>> {
    let generator = Generator::new(binaries, server);
    let mut figures = Figures::new(name, judged);
    let Idle { bytes, connect_us } = idle(server, &generator, WAVES)?;
    figures.judge("idle", bytes, "B a connection", IDLE, &between(WAVES));
    figures.judge("connect", connect_us, "µs", CONNECT, "");
    for load in &LOADS {
        let Cost { cpu_us, rate, p50_us, .. } = cost(load, server, &generator, seconds)?;
        figures.judge(load.name, cpu_us, "µs a message", load.bounds, &format!("{rate:.0} msg/s, p50 {p50_us:.0} µs"));
    }
    everything(&mut figures, server, &generator, seconds)?;
    calm(&figures, &generator, seconds)?;
    Ok(figures.over())
}

/// The same of mosquitto, if it is there.
fn beside(binaries: &Path, seconds: u64) -> anyhow::Result<()> {
    let Some(server) = Server::mosquitto()? else { return Ok(()) };
    measure("mosquitto", false, &server, binaries, seconds).map(drop)
}

/// Memory of an idle connection of ours over TLS.
fn over_tls(name: &str, server: &Server, authority: &Path, binaries: &Path) -> anyhow::Result<Vec<String>> {
    let url = format!("mqtts://127.0.0.1:{TLS_PORT}");
    let generator = Generator { binaries, url: &url, authority: Some(authority) };
    let mut figures = Figures::new(name, true);
    let Idle { bytes, connect_us } = idle(server, &generator, WAVES_TLS)?;
    figures.judge("idle over TLS", bytes, "B a connection", IDLE_TLS, &between(WAVES_TLS));
    figures.tell("connect over TLS", &format!("{connect_us:7.1} µs, the handshake with it"));
    Ok(figures.over())
}

fn between([_, few, more]: [usize; 3]) -> String {
    format!("between {few} and {} connections", few + more)
}

/// What a connection costs, by waves of them. Memory is read when a wave has been quiet for a while: what connecting has taken
/// for a moment is given back by then.
pub fn idle(server: &Server, generator: &Generator<'_>, [warm, few, more]: [usize; 3]) -> anyhow::Result<Idle> {
    drop(generator.wave(server, 1, warm)?);
    let _few = generator.wave(server, 2, few)?;
    pause(QUIET);
    let (memory, cpu) = (server.resident_mib()?, server.cpu_seconds()?);
    let _more = generator.wave(server, 3, more)?;
    let connect_us = (server.cpu_seconds()? - cpu) * 1e6 / more as f64;
    pause(QUIET);
    let bytes = (server.resident_mib()? - memory) * 1024.0 * 1024.0 / more as f64;
    Ok(Idle { bytes, connect_us })
}

/// What a message of a load costs a server.
pub fn cost(load: &Load, server: &Server, generator: &Generator<'_>, seconds: u64) -> anyhow::Result<Cost> {
    let before = server.cpu_seconds()?;
    let report = generator.load(&load.arguments, seconds).context(load.name)?;
    Ok(Cost {
        cpu_us: (server.cpu_seconds()? - before) * 1e6 / report.number("acknowledged").max(1.0),
        rate: report.number("messages_per_second"),
        p50_us: report.number("ack_p50_us"),
        p99_us: report.number("ack_p99_us"),
    })
}

/// What one subscriber to everything gets, while publishers wait for nobody but the server.
fn everything(
    figures: &mut Figures<'_>,
    server: &Server,
    generator: &Generator<'_>,
    seconds: u64,
) -> anyhow::Result<()> {
    let before = server.cpu_seconds()?;
    let report = generator.load(&EVERYTHING, seconds)?;
    let (acknowledged, delivered) = (report.number("acknowledged"), report.number("delivered"));
    let cost = (server.cpu_seconds()? - before) * 1e6 / delivered.max(1.0);
    let missing = acknowledged - delivered;
    let rate = report.number("delivered_per_second");
    let figure = format!("{rate:.0} delivered/s, {missing:.0} of {acknowledged:.0} missing, {cost:.2} µs each");
    figures.tell("one # subscriber", &figure);
    figures.demand(missing == 0.0 && delivered > 0.0, &format!("{missing:.0} messages did not reach the subscriber"));
    Ok(())
}

/// How long an acknowledgement takes of a server that is not busy.
pub fn calm(figures: &Figures<'_>, generator: &Generator<'_>, seconds: u64) -> anyhow::Result<()> {
    let report = generator.load(&CALM, seconds)?;
    let at = |quantile: &str| report.number(&format!("ack_{quantile}_us"));
    let rate = report.number("messages_per_second");
    let figure =
        format!("p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs at {rate:.0} msg/s", at("p50"), at("p99"), at("max"));
    figures.tell("PUBACK in calm", &figure);
    Ok(())
}

/// Prints what a disk takes to keep a few bytes: no durable acknowledgement is faster.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
fn tell_disk(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = std::time::Instant::now();
        file.write_all(&[0; 256])?;
        file.sync_data()?;
        took.push(began.elapsed().as_micros());
    }
    std::fs::remove_file(path)?;
    took.sort_unstable();
    println!("disk       fdatasync              p50 {} µs, p99 {} µs", took[SYNCS / 2], took[SYNCS * 99 / 100]);
    Ok(())
}
