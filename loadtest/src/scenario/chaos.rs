//! What `drover-load chaos` starts, and what it may do to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Span;

/// What `drover-load chaos` starts and does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Chaos {
    /// What faults are done to; none: `drover up`.
    #[serde(rename = "process")]
    pub processes: Vec<Process>,
    /// Of every process.
    pub environment: BTreeMap<String, String>,
    /// Commands before the processes start.
    pub before: Vec<Vec<String>>,
    /// Commands before the load begins, such as `["{drover}", "rule", "apply", "-f", "rule.yaml"]`.
    pub setup: Vec<Vec<String>>,
    /// Where the commands of `setup` find the server.
    pub server: String,
    /// What may be done to a process that has no faults of its own.
    pub faults: Vec<Kind>,
    /// Mean time between two faults.
    pub every: Span,
    /// Longest time that a fault lasts.
    pub longest: Span,
    /// Size of the file system that a process has for itself where its disk fails, in MiB.
    pub disk_mib: u32,
}

impl Default for Chaos {
    fn default() -> Self {
        Self {
            processes: Vec::new(),
            environment: BTreeMap::new(),
            before: Vec::new(),
            setup: Vec::new(),
            server: "http://127.0.0.1:{port:8080}".to_owned(),
            faults: vec![Kind::Kill, Kind::Hang, Kind::Restart],
            every: Span::from_secs(8),
            longest: Span::from_secs(5),
            disk_mib: 1_024,
        }
    }
}

impl Chaos {
    /// What may be done to a process.
    pub fn faults_of<'a>(&'a self, process: &'a Process) -> &'a [Kind] {
        if process.faults.is_empty() { &self.faults } else { &process.faults }
    }

    /// Everything that may be done to anybody, each once.
    pub fn all_faults(&self) -> Vec<Kind> {
        let own = self.processes.iter().flat_map(|process| self.faults_of(process).to_vec());
        let mut all: Vec<Kind> = if self.processes.is_empty() { self.faults.clone() } else { own.collect() };
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A process that chaos starts, and nobody else's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub name: String,
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// `HOST:PORT` that accepts connections once it is ready, or a URL that answers with success.
    pub ready: String,
    /// Whether the others start only when it is ready.
    #[serde(default)]
    pub first: bool,
    /// What may be done to it; absent: what `chaos.faults` says.
    #[serde(default)]
    pub faults: Vec<Kind>,
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Hang,
    /// SIGTERM, and a new start when it has ended.
    Restart,
    /// No packet reaches it or leaves it.
    Cut,
    /// No packet passes between it and one other, or the devices.
    Partition,
    /// Its connections are reset, and new ones are refused.
    Reset,
    /// Packets to and from it are lost at random.
    Loss,
    /// Packets to and from it come later (netem).
    Delay,
    /// Its link carries little; packets queue, and are lost beyond that (tbf).
    Narrow,
    /// Its file system has no room.
    Full,
    /// Its file system stands still most of the time.
    Slow,
    /// Its clock is set forward or back (libfaketime).
    Clock,
}

impl Kind {
    pub fn is_of_network(self) -> bool {
        matches!(self, Self::Cut | Self::Partition | Self::Reset | Self::Loss | Self::Delay | Self::Narrow)
    }

    pub fn is_of_disk(self) -> bool {
        matches!(self, Self::Full | Self::Slow)
    }
}

impl fmt::Display for Kind {
    /// As scenario files write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Restart => "restart",
            Self::Cut => "cut",
            Self::Partition => "partition",
            Self::Reset => "reset",
            Self::Loss => "loss",
            Self::Delay => "delay",
            Self::Narrow => "narrow",
            Self::Full => "full",
            Self::Slow => "slow",
            Self::Clock => "clock",
        })
    }
}
