//! `cargo xtask bench mqtt`: what a connection and a message cost the server, with mosquitto in the same run.
//!
//! `drover up --only ingress,registry` as shipped: embedded log, durable acknowledgements, presence events. CPU time and
//! resident memory of the server process are read from /proc, so another load on the machine disturbs less than it does
//! rates. Prints figures beside the ceilings and goals of the project; judges none.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::{LOOK, Server, cpu_seconds, pause, resident_mib};

/// Idle connections of the three waves: to warm up, and between which memory is compared.
const WAVES: [usize; 3] = [2_000, 4_000, 12_000];
/// How long a wave is held: connecting takes a part of it.
const HOLD_SECONDS: u64 = 40;
/// Longest wait for a wave to be connected, in looks.
const LOOKS_MAX: usize = 12_000;

/// One load: its name, arguments of the generator, ceiling and goal in µs of server CPU a message.
const LOADS: [(&str, [&str; 4], f64, f64); 3] = [
    ("QoS 1, window 10", ["--qos", "1", "--window", "10"], 3.5, 1.4),
    ("QoS 1, window 1", ["--qos", "1", "--window", "1"], 9.0, 5.5),
    ("QoS 0", ["--qos", "0", "--window", "10"], 2.5, 1.1),
];

/// Measures one server.
pub fn measure(name: &str, server: &Server, binaries: &Path, seconds: u64) -> anyhow::Result<()> {
    idle(name, server, binaries)?;
    for (load, arguments, ceiling, goal) in LOADS {
        let before = cpu_seconds(server.child.id())?;
        let mut generator = super::generator(binaries, server, seconds);
        generator.args(["--clients", "500", "--payload", "128"]).args(arguments);
        let report = super::reported(&mut generator).context(load)?;
        let number = |field: &str| report[field].as_f64().unwrap_or_default();
        let cost = (cpu_seconds(server.child.id())? - before) * 1e6 / number("acknowledged").max(1.0);
        println!(
            "{name:10} {load:17} {cost:6.2} µs a message (ceiling {ceiling}, goal {goal}), {:.0} msg/s, p50 {:.0} µs",
            number("messages_per_second"),
            number("ack_p50_us"),
        );
    }
    Ok(())
}

/// Memory of an idle connection as the slope between two numbers of them, and CPU time of a connect.
fn idle(name: &str, server: &Server, binaries: &Path) -> anyhow::Result<()> {
    let pid = server.child.id();
    let [warm, few, more] = WAVES;
    drop(Wave::start("warm", server, binaries, warm)?);
    let _few = Wave::start("few", server, binaries, few)?;
    let (memory, cpu) = (resident_mib(pid)?, cpu_seconds(pid)?);
    let _more = Wave::start("more", server, binaries, more)?;
    let cost = (cpu_seconds(pid)? - cpu) * 1e6 / more as f64;
    let bytes = (resident_mib(pid)? - memory) * 1024.0 * 1024.0 / more as f64;
    println!(
        "{name:10} idle              {bytes:6.0} B a connection between {few} and {} (ceiling 1200, goal 735)",
        few + more
    );
    println!("{name:10} connect           {cost:6.1} µs (ceiling 30)");
    Ok(())
}

/// Idle connections, closed when dropped.
struct Wave(Child);

impl Wave {
    /// Connects, and returns when the server holds all of them.
    fn start(prefix: &str, server: &Server, binaries: &Path, count: usize) -> anyhow::Result<Self> {
        let before = descriptors(server)?;
        let mut generator = Command::new(binaries.join("drover-load"));
        generator.args(["bench", "--url", &server.url, "--clients", "0", "--idle", &count.to_string()]);
        generator.args(["--client-id", &format!("{prefix}-{{i}}"), "--seconds", &HOLD_SECONDS.to_string()]);
        let wave = Self(generator.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        for _ in 0..LOOKS_MAX {
            if descriptors(server)? >= before + count {
                super::pause(super::SETTLE);
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
        pause(super::SETTLE);
    }
}

fn descriptors(server: &Server) -> anyhow::Result<usize> {
    let directory = format!("/proc/{}/fd", server.child.id());
    Ok(std::fs::read_dir(directory).context("descriptors of the server")?.count())
}
