//! Six ingress processes of one platform hold as many connections at once as the descriptors of a machine allow: what each of
//! them takes, and what a million would take.
//!
//! `DROVER_CONNECTIONS=110000` is the full form, which `cargo xtask bench connections` runs over the release build.

use std::time::Duration;

use anyhow::{Context, ensure};
use drover_tests::{Backends, Idle, Processes, number, raise_descriptors};
use tokio::time::Instant;

const NODES: [&str; 6] = ["ingress-0", "ingress-1", "ingress-2", "ingress-3", "ingress-4", "ingress-5"];
/// MQTT port of the first node, as configured; the others' follow it.
const PORT: u16 = 1883;
/// Connections of all nodes together.
const CONNECTIONS: usize = 600;
/// Most connections of a node: a process has 20,000 descriptors on the machines this is run on.
const PER_NODE: usize = 19_000;
/// What a connection may take, in bytes, where each node gets at least [`MANY`] of them, so that its other memory does not matter.
const CEILING_BYTES: f64 = 1_200.0;
const MANY: usize = 10_000;
/// The same of fewer: each node may take some 9 MiB for other things between the two numbers that are compared. Buffers of a
/// usual size for each connection are more.
const LOOSE_CEILING_BYTES: f64 = 128.0 * 1024.0;
/// How long all may take to connect: so long, and so much more for each thousand of them.
const PATIENCE: Duration = Duration::from_secs(120);
const PER_THOUSAND: Duration = Duration::from_secs(10);
/// Quiet time before memory is read, and how long all connections are held then.
const SETTLE: Duration = Duration::from_secs(3);
const HOLD: Duration = Duration::from_secs(10);
/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(500);
const MILLION: f64 = 1e6;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

#[allow(clippy::disallowed_methods, reason = "no runtime here: this looks at other processes")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// Memory, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    /// Of all ingress processes.
    resident: f64,
    /// Of the kernel's own objects, sockets among them (`Slab` of `/proc/meminfo`).
    kernel: f64,
}

impl Memory {
    fn now(processes: &Processes) -> anyhow::Result<Self> {
        wait(SETTLE);
        let resident = NODES.iter().map(|node| processes.resident_mib(node)).sum::<anyhow::Result<f64>>()?;
        let all = std::fs::read_to_string("/proc/meminfo")?;
        let slab = all.lines().find_map(|line| line.strip_prefix("Slab:")).context("Slab in /proc/meminfo")?;
        let slab_kib: f64 = slab.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Self { resident: resident * 1024.0 * 1024.0, kernel: slab_kib * 1024.0 })
    }

    /// What each of `count` connections has added since `before`.
    fn each(self, before: Self, count: usize) -> Self {
        let count = count as f64;
        Self { resident: (self.resident - before.resident) / count, kernel: (self.kernel - before.kernel) / count }
    }
}

/// Registry and nodes, ready, on a Kafka and a Cassandra. `None` where one cannot be had.
fn start() -> anyhow::Result<Option<(Backends, Processes)>> {
    let Some(backends) = Backends::start()? else { return Ok(None) };
    let mut environment = backends.environment();
    let settings = [
        ("DROVER_INGRESS__LIMITS__CONNECTIONS", PER_NODE.to_string()),
        // All come at once, and each is written down by the one Cassandra of this machine.
        ("DROVER_INGRESS__TIMEOUTS__CONNECT", "60s".to_owned()),
        ("DROVER_INGRESS__TIMEOUTS__OWNERSHIP", "15s".to_owned()),
        ("DROVER_CASSANDRA__REQUEST_TIMEOUT", "10s".to_owned()),
    ];
    environment.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    let mut processes = Processes::prepare_nodes(environment, u16::try_from(NODES.len())?)?;
    // The first makes the tables that all of them use.
    for some in [["registry", NODES[0]].as_slice(), &NODES[1..]] {
        some.iter().try_for_each(|name| processes.start(name))?;
        processes.until_ready()?;
    }
    Ok(Some((backends, processes)))
}

/// Connects `count` clients more to each node, which has `before`; returns when all have them.
fn connect(processes: &mut Processes, wave: u8, before: usize, count: usize) -> anyhow::Result<Vec<Idle>> {
    let (began, expected) = (Instant::now(), vec![before + count; NODES.len()]);
    let patience = PATIENCE + PER_THOUSAND * u32::try_from(count * NODES.len() / 1_000)?;
    let start = |(node, number): (&str, u8)| {
        let port = processes.port(PORT + u16::from(number));
        Idle::start(port, &format!("{node}-wave-{wave}"), count, wave, number + 1)
    };
    let mut idle = NODES.into_iter().zip(0..).map(start).collect::<anyhow::Result<Vec<Idle>>>()?;
    loop {
        // One that is too busy to tell is asked again.
        let held = processes.connections(&NODES).unwrap_or_default();
        if held == expected {
            println!("{} connections more after {:.1} s", count * NODES.len(), began.elapsed().as_secs_f64());
            return Ok(idle);
        }
        let ended = processes.ended()?;
        ensure!(ended.is_none(), "{ended:?} has ended:\n{}", processes.log_ends());
        idle.iter_mut().try_for_each(Idle::check)?;
        ensure!(began.elapsed() < patience, "{held:?} of {expected:?} connections after {patience:?}");
        wait(LOOK);
    }
}

/// Connections that a node has closed so far, for whatever reason.
fn closed(processes: &Processes, node: &str) -> anyhow::Result<f64> {
    let text = processes.metrics(node)?;
    let lines = text.lines().filter(|line| line.starts_with("drover_ingress_closes_total{"));
    let counts = lines.filter_map(|line| line.rsplit(' ').next());
    counts.map(|count| Ok(count.parse::<f64>()?)).sum()
}

#[test]
fn six_ingress_processes_hold_all_connections_at_once_and_each_takes_little() -> anyhow::Result<()> {
    let all = number("DROVER_CONNECTIONS", CONNECTIONS)?;
    let share = all.div_ceil(NODES.len());
    ensure!(
        (4..=PER_NODE).contains(&share),
        "DROVER_CONNECTIONS is {all}, 24 to {} are allowed",
        PER_NODE * NODES.len()
    );
    let descriptors = raise_descriptors();
    ensure!(share as u64 + 500 < descriptors, "{share} connections a node, a process has {descriptors} descriptors");
    let Some((_backends, mut processes)) = start()? else { return Ok(()) };

    // Memory is compared between two numbers of connections: what a process takes once is not theirs.
    let (few, more) = (share / 4, share - share / 4);
    let alone = Memory::now(&processes)?;
    let mut idle = connect(&mut processes, 1, 0, few)?;
    let with_few = Memory::now(&processes)?;
    idle.extend(connect(&mut processes, 2, few, more)?);
    let with_all = Memory::now(&processes)?;

    wait(HOLD);
    let held: usize = processes.connections(&NODES)?.iter().sum();
    idle.iter_mut().try_for_each(Idle::check)?;
    for node in NODES {
        let closed = closed(&processes, node)?;
        ensure!(closed == 0.0, "{node} has closed {closed} connections");
    }
    ensure!(held == share * NODES.len(), "{held} of {} connections are held", share * NODES.len());

    let (count, nodes) = (more * NODES.len(), NODES.len() as f64);
    let (slope, whole) = (with_all.each(with_few, count), with_all.each(alone, held));
    println!("connections: {held} at once in {} ingress processes, none closed in {HOLD:?}", NODES.len());
    println!(
        "connections: {:.0} B each between {few} and {share} a process (from none on: {:.0} B), and {:.0} B of the kernel's \
         for both ends",
        slope.resident, whole.resident, slope.kernel
    );
    let (processes_needed, base) = ((MILLION / PER_NODE as f64).ceil(), alone.resident / nodes);
    println!(
        "connections: projection to 1,000,000: {:.2} GiB in connections, {:.2} GiB in the {processes_needed} processes \
         that {PER_NODE} descriptors a process make necessary ({:.1} MiB each without any), {:.2} GiB of the kernel's for \
         the servers' ends",
        slope.resident * MILLION / GIB,
        processes_needed * base / GIB,
        base / 1024.0 / 1024.0,
        slope.kernel / 2.0 * MILLION / GIB
    );
    println!(
        "connections: the projection assumes that the slope stays, both ends cost the kernel the same, clients are elsewhere, \
         have clean sessions without subscriptions, no TLS, and send nothing"
    );
    let ceiling = if more < MANY { LOOSE_CEILING_BYTES } else { CEILING_BYTES };
    ensure!(slope.resident <= ceiling, "{:.0} B a connection, limit {ceiling}", slope.resident);
    Ok(())
}
