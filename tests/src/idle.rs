//! Connections that stay silent, held by the generator as a process of its own: their descriptors are not the test's.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::platform::beside;

/// Connections from one local address; more make connect(2) slow, which looks for a free port among those taken.
const PER_SOURCE: usize = 8_000;
/// How long the generator holds them if nobody ends it, in seconds.
const HOLD_SECONDS: u32 = 3_600;
/// How long a client may take to connect, in seconds: many come at once to servers that share a machine.
const PATIENCE_SECONDS: u32 = 120;

/// Clients without credentials that have a clean session and want nothing; gone when dropped.
pub struct Idle(Child);

impl Idle {
    /// Begins to connect `PREFIX-0` and so on, `count` of them, to the MQTT listener at `port`. `net` and `part`, at least 1,
    /// say which local addresses they come from: two that run at the same time have others.
    pub fn start(port: u16, prefix: &str, count: usize, net: u8, part: u8) -> anyhow::Result<Self> {
        let mut generator = Command::new(generator()?);
        generator.args(["bench", "--url", &format!("mqtt://127.0.0.1:{port}"), "--clients", "0"]);
        generator.args(["--idle", &count.to_string(), "--client-id", &format!("{prefix}-{{i}}")]);
        generator.args(["--seconds", &HOLD_SECONDS.to_string(), "--patience", &PATIENCE_SECONDS.to_string()]);
        for source in 1..=count.div_ceil(PER_SOURCE) {
            generator.args(["--source", &format!("127.{net}.{part}.{source}")]);
        }
        Ok(Self(generator.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    }

    /// Fails if the generator has ended: then some of its clients could not connect, or were closed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let ended = self.0.try_wait()?;
        ensure!(ended.is_none(), "the generator has ended: {ended:?}");
        Ok(())
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.0.kill().expect("our own child can be killed");
        self.0.wait().expect("our own child ends");
    }
}

/// Gives this process, and those it starts from now on, as many descriptors as the system allows; how many those are.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The generator that `DROVER_LOAD_BIN` names, or the one beside this test.
pub fn generator() -> anyhow::Result<PathBuf> {
    match std::env::var_os("DROVER_LOAD_BIN") {
        Some(named) => Ok(named.into()),
        None => beside("drover-load"),
    }
}
