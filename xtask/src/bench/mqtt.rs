//! `cargo xtask bench mqtt`: what a connection and a message cost the server, with mosquitto in the same run.
//!
//! `drover up --only ingress,registry` as shipped: embedded log, durable acknowledgements, presence events. CPU time and
//! resident memory of the server process are read from /proc, so another load on the machine disturbs less than it does
//! rates. Prints figures beside the ceilings and goals of the project; judges none.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::server::{LOOK, SETTLE, Server, pause};

/// Idle connections of the three waves: to warm up, and between which memory is compared.
const WAVES: [usize; 3] = [2_000, 4_000, 12_000];
/// How long a wave is held: connecting takes a part of it.
const HOLD_SECONDS: u64 = 40;
/// Longest wait for a wave to be connected, in looks.
const LOOKS_MAX: usize = 12_000;
/// Who publishes, and what, in bytes.
pub const CLIENTS: &str = "500";
pub const PAYLOAD: &str = "128";

/// One load: its name, arguments of the generator, ceiling and goal in µs of server CPU a message.
pub struct Load {
    pub name: &'static str,
    arguments: [&'static str; 4],
    ceiling: f64,
    goal: f64,
}

pub const LOADS: [Load; 3] = [
    Load { name: "QoS 1, window 10", arguments: ["--qos", "1", "--window", "10"], ceiling: 3.5, goal: 1.4 },
    Load { name: "QoS 1, window 1", arguments: ["--qos", "1", "--window", "1"], ceiling: 9.0, goal: 5.5 },
    Load { name: "QoS 0", arguments: ["--qos", "0", "--window", "10"], ceiling: 2.5, goal: 1.1 },
];

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

/// Measures one server.
pub fn measure(name: &str, server: &Server, binaries: &Path, seconds: u64) -> anyhow::Result<()> {
    let [_, few, more] = WAVES;
    let Idle { bytes, connect_us } = idle(server, binaries)?;
    println!(
        "{name:10} idle              {bytes:6.0} B a connection between {few} and {} (ceiling 1200, goal 735)",
        few + more
    );
    println!("{name:10} connect           {connect_us:6.1} µs (ceiling 30)");
    for load in &LOADS {
        let Load { name: what, ceiling, goal, .. } = load;
        let Cost { cpu_us, rate, p50_us, .. } = cost(load, server, binaries, seconds)?;
        println!(
            "{name:10} {what:17} {cpu_us:6.2} µs a message (ceiling {ceiling}, goal {goal}), {rate:.0} msg/s, p50 {p50_us:.0} µs"
        );
    }
    Ok(())
}

/// What a message of a load costs a server.
pub fn cost(load: &Load, server: &Server, binaries: &Path, seconds: u64) -> anyhow::Result<Cost> {
    let before = server.cpu_seconds()?;
    let mut generator = super::generator(binaries, server, seconds);
    generator.args(["--clients", CLIENTS, "--payload", PAYLOAD]).args(load.arguments);
    let report = super::reported(&mut generator).context(load.name)?;
    let number = |field: &str| report[field].as_f64().unwrap_or_default();
    Ok(Cost {
        cpu_us: (server.cpu_seconds()? - before) * 1e6 / number("acknowledged").max(1.0),
        rate: number("messages_per_second"),
        p50_us: number("ack_p50_us"),
        p99_us: number("ack_p99_us"),
    })
}

/// Memory of an idle connection as the slope between two numbers of them, and CPU time of a connect.
pub fn idle(server: &Server, binaries: &Path) -> anyhow::Result<Idle> {
    let [warm, few, more] = WAVES;
    drop(Wave::start("warm", server, binaries, warm)?);
    let _few = Wave::start("few", server, binaries, few)?;
    let (memory, cpu) = (server.resident_mib()?, server.cpu_seconds()?);
    let _more = Wave::start("more", server, binaries, more)?;
    let connect_us = (server.cpu_seconds()? - cpu) * 1e6 / more as f64;
    let bytes = (server.resident_mib()? - memory) * 1024.0 * 1024.0 / more as f64;
    Ok(Idle { bytes, connect_us })
}

/// Idle connections, closed when dropped.
pub struct Wave(Child);

impl Wave {
    /// Connects, and returns when the server holds all of them.
    pub fn start(prefix: &str, server: &Server, binaries: &Path, count: usize) -> anyhow::Result<Self> {
        let before = server.descriptors()?;
        let mut generator = Command::new(binaries.join("drover-load"));
        generator.args(["bench", "--url", &server.url, "--clients", "0", "--idle", &count.to_string()]);
        generator.args(["--client-id", &format!("{prefix}-{{i}}"), "--seconds", &HOLD_SECONDS.to_string()]);
        let wave = Self(generator.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        for _ in 0..LOOKS_MAX {
            if server.descriptors()? >= before + count {
                pause(SETTLE);
                return Ok(wave);
            }
            pause(LOOK);
        }
        anyhow::bail!("{count} connections were not there in time");
    }
}

impl Drop for Wave {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        pause(SETTLE);
    }
}
