//! Networks and file systems of its own for a chaos run: this process starts itself again in namespaces that the kernel
//! removes, with all that was made in them, when the last process in them has ended, however that came.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::tools;
use crate::scenario::{Chaos, Kind};

/// Where `ip netns` keeps names. The folder that is seen here is this run's alone.
const NAMES: &str = "/run/netns";
/// Where distributions keep the library that sets a process's clock.
const FAKETIME: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];
/// Names the library where it lies elsewhere.
const FAKETIME_VARIABLE: &str = "DROVER_LOAD_FAKETIME";

/// Why faults cannot be done here.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("chaos.faults with {fault} needs root, but this process is run by user {user}")]
    Root { fault: Kind, user: u32 },
    #[error("chaos.faults with {fault} needs the program {tool}, which is not installed")]
    Tool { fault: Kind, tool: &'static str },
    #[error("chaos.faults with {fault} needs libfaketime, which is not installed ({FAKETIME_VARIABLE} may name it)")]
    Library { fault: Kind },
    #[error("chaos.faults with {fault} needs rights that this process has not: {said}")]
    Rights { fault: Kind, said: String },
    #[error("chaos.faults with {fault} needs the kernel's {module}, which it has not: {said}")]
    Module { fault: Kind, module: &'static str, said: String },
}

/// Programs that a fault needs beside signals.
fn tools_of(fault: Kind) -> &'static [&'static str] {
    match fault {
        Kind::Kill | Kind::Hang | Kind::Restart | Kind::Clock => &[],
        Kind::Cut | Kind::Partition | Kind::Reset | Kind::Loss => &["unshare", "nsenter", "mount", "ip", "iptables"],
        Kind::Delay | Kind::Narrow => &["unshare", "nsenter", "mount", "ip", "iptables", "tc"],
        Kind::Full => &["unshare", "mount", "umount", "mkfs.ext4"],
        Kind::Slow => &["unshare", "mount", "umount", "mkfs.ext4", "fsfreeze", "timeout"],
    }
}

fn needs_namespaces(fault: Kind) -> bool {
    fault.is_of_network() || fault.is_of_disk()
}

/// Whether there are faults that need namespaces.
pub fn are_needed(chaos: &Chaos) -> bool {
    chaos.all_faults().into_iter().any(needs_namespaces)
}

/// Whether there are faults for which processes have networks of their own.
pub fn has_network(chaos: &Chaos) -> bool {
    chaos.all_faults().into_iter().any(Kind::is_of_network)
}

/// Says what is missing for a fault, if anything is.
pub fn check(chaos: &Chaos) -> Result<(), Missing> {
    let user = rustix::process::geteuid();
    for fault in chaos.all_faults() {
        if needs_namespaces(fault) && !user.is_root() {
            return Err(Missing::Root { fault, user: user.as_raw() });
        }
        if let Some(tool) = tools_of(fault).iter().copied().find(|tool| tools::find(tool).is_none()) {
            return Err(Missing::Tool { fault, tool });
        }
        if fault == Kind::Clock && faketime().is_none() {
            return Err(Missing::Library { fault });
        }
    }
    match chaos.all_faults().into_iter().find(|fault| needs_namespaces(*fault)) {
        Some(fault) => {
            let mut words = vec!["unshare"];
            words.extend_from_slice(namespaces(chaos));
            words.push("true");
            tools::run_words(&words).map(drop).map_err(|error| not_allowed(fault, &error))
        }
        None => Ok(()),
    }
}

/// What a step for a fault has said that the system does not let this process do; root of a container has few rights.
pub fn not_allowed(fault: Kind, error: &anyhow::Error) -> Missing {
    Missing::Rights { fault, said: format!("{error:#}") }
}

/// What `unshare` is told to make for these faults.
fn namespaces(chaos: &Chaos) -> &'static [&'static str] {
    if has_network(chaos) { &["--mount", "--net"] } else { &["--mount"] }
}

/// The library that sets a process's clock; `None`: it is not there.
pub fn faketime() -> Option<PathBuf> {
    let named = std::env::var_os(FAKETIME_VARIABLE).map(PathBuf::from);
    let known = FAKETIME.iter().map(PathBuf::from);
    named.into_iter().chain(known).find(|file| file.is_file())
}

/// Starts this program again in namespaces of its own, in place of this process, with `argument` after its own; returns
/// only where that fails.
pub fn enter(chaos: &Chaos, argument: &str) -> anyhow::Error {
    let mut command = Command::new("unshare");
    command.args(namespaces(chaos));
    let executable = match std::env::current_exe() {
        Ok(executable) => executable,
        Err(error) => return error.into(),
    };
    command.arg("--").arg(executable).args(std::env::args_os().skip(1)).arg(argument);
    anyhow::Error::new(command.exec()).context("starting unshare")
}

/// Makes what networks need in namespaces that were just entered: a place for names, and a loopback that is up.
pub fn furnish() -> anyhow::Result<()> {
    std::fs::create_dir_all(NAMES).context(NAMES)?;
    tools::run(&format!("mount -t tmpfs tmpfs {NAMES}"))?;
    tools::run("ip link set lo up")?;
    // What comes over loopback may go on to a process's network, and from one process's network to another's.
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").context("route_localnet")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")
}
