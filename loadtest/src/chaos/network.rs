//! A network for each process of a chaos run, as a wire to a router where the devices are, and faults on these wires.
//!
//! A process hears on its loopback what is sent to its address, so it may bind to 127.0.0.1 as it does without networks;
//! and 127.0.0.1 of the router is the first process, so that devices of a single one find it there.

use std::net::Ipv4Addr;

use anyhow::Context;

use super::faults::Fault;
use super::rooms::{self, Missing};
use super::tools;
use crate::scenario::Kind;

/// What part of its packets a process loses, each way.
const LOSS: f64 = 0.2;
/// How much later packets come, each way, and how much that varies.
const DELAY: &str = "150ms 50ms";
/// What a narrow link carries, and how long packets queue before they are lost.
const NARROW: &str = "rate 512kbit burst 16kb latency 400ms";

/// The networks of all processes; the kernel removes them with the namespace of this run.
pub struct Network;

impl Network {
    /// Makes them in the namespaces of this process, and finds out whether the kernel can do these faults.
    pub fn make(processes: usize, faults: &[Kind]) -> anyhow::Result<Self> {
        let of_network: Vec<Kind> = faults.iter().copied().filter(|fault| fault.is_of_network()).collect();
        if let Some(&fault) = of_network.first() {
            lay(processes).map_err(|error| rooms::not_allowed(fault, &error))?;
        }
        for fault in of_network {
            Self.try_out(fault)?;
        }
        Ok(Self)
    }

    /// Does a fault to the first process, and ends it, before anything depends on it.
    fn try_out(&self, kind: Kind) -> anyhow::Result<()> {
        let module = match kind {
            Kind::Delay => "sch_netem",
            Kind::Narrow => "sch_tbf",
            Kind::Loss => "xt_statistic",
            _ => "netfilter",
        };
        let fault = Fault { process: 0, kind, peer: None, jump_s: 0, at_us: 0, lasts_us: 0 };
        self.strike(&fault).map_err(|said| Missing::Module { fault: kind, module, said: format!("{said:#}") })?;
        self.recover(&fault)
    }

    /// Begins a fault.
    pub fn strike(&self, fault: &Fault) -> anyhow::Result<()> {
        let process = fault.process;
        let filter = |rule: &str| inside(process, &format!("iptables -w -A {rule}"));
        match fault.kind {
            Kind::Cut => {
                filter("INPUT -i eth0 -j DROP")?;
                filter("OUTPUT -o eth0 -j DROP")
            }
            Kind::Partition => {
                let peer = fault.peer.map_or_else(|| router(process), address);
                filter(&format!("INPUT -s {peer} -j DROP"))?;
                filter(&format!("OUTPUT -d {peer} -j DROP"))
            }
            Kind::Reset => {
                filter("INPUT -i eth0 -p tcp -j REJECT --reject-with tcp-reset")?;
                // The reset itself has to get out.
                filter("OUTPUT -o eth0 -p tcp ! --tcp-flags RST RST -j REJECT --reject-with tcp-reset")
            }
            Kind::Loss => {
                filter(&format!("INPUT -i eth0 -m statistic --mode random --probability {LOSS} -j DROP"))?;
                filter(&format!("OUTPUT -o eth0 -m statistic --mode random --probability {LOSS} -j DROP"))
            }
            Kind::Delay => both_ends(process, &format!("replace dev END root netem delay {DELAY}")),
            Kind::Narrow => both_ends(process, &format!("replace dev END root tbf {NARROW}")),
            Kind::Kill | Kind::Hang | Kind::Restart | Kind::Full | Kind::Slow | Kind::Clock => Ok(()),
        }
    }

    /// Ends a fault.
    pub fn recover(&self, fault: &Fault) -> anyhow::Result<()> {
        if matches!(fault.kind, Kind::Delay | Kind::Narrow) {
            return both_ends(fault.process, "del dev END root");
        }
        inside(fault.process, "iptables -w -F INPUT")?;
        inside(fault.process, "iptables -w -F OUTPUT")
    }
}

/// The address of a process: 10.213.N.2.
pub fn address(process: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, process as u8, 2)
}

/// The router's end of its wire, from where devices speak.
fn router(process: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, process as u8, 1)
}

/// What a command begins with to run in the network of a process.
pub fn prefix(process: usize) -> [String; 2] {
    ["nsenter".to_owned(), format!("--net=/run/netns/process{process}")]
}

fn inside(process: usize, line: &str) -> anyhow::Result<()> {
    tools::run(&format!("{} {line}", prefix(process).join(" "))).map(drop)
}

/// Runs `tc qdisc` at both ends of a wire; `END` stands for the end.
fn both_ends(process: usize, line: &str) -> anyhow::Result<()> {
    let (near, far) = (line.replace("END", "eth0"), line.replace("END", &format!("wire{process}")));
    inside(process, &format!("tc qdisc {near}"))?;
    tools::run(&format!("tc qdisc {far}")).map(drop)
}

/// Makes the router, and a network for each process.
fn lay(processes: usize) -> anyhow::Result<()> {
    rooms::furnish()?;
    for process in 0..processes {
        wire(process).with_context(|| format!("network of process {process}"))?;
    }
    let first = address(0);
    tools::run(&format!("iptables -w -t nat -A OUTPUT -d 127.0.0.1 -j DNAT --to-destination {first}"))?;
    // Who spoke from loopback is answered at the router's end of the wire.
    tools::run("iptables -w -t nat -A POSTROUTING -o wire0 -s 127.0.0.0/8 -j MASQUERADE").map(drop)
}

/// Makes the network of a process, and the wire to it.
fn wire(process: usize) -> anyhow::Result<()> {
    let (name, end) = (format!("process{process}"), format!("wire{process}"));
    let (own, gate) = (address(process), router(process));
    tools::run(&format!("ip netns add {name}"))?;
    tools::run(&format!("ip link add {end} type veth peer name eth0 netns {name}"))?;
    tools::run(&format!("ip address add {gate}/30 dev {end}"))?;
    tools::run(&format!("ip link set {end} up"))?;
    for line in [
        format!("address add {own}/30 dev eth0"),
        "link set eth0 up".to_owned(),
        "link set lo up".to_owned(),
        format!("route add default via {gate}"),
    ] {
        tools::run(&format!("ip -n {name} {line}"))?;
    }
    // What is sent to its address, by others or by itself, comes to its loopback.
    let forwarding = "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet";
    let [enter, net] = prefix(process);
    tools::run_words(&[&enter, &net, "sh", "-c", forwarding])?;
    inside(process, "iptables -w -t nat -A PREROUTING -i eth0 -j DNAT --to-destination 127.0.0.1")?;
    inside(process, &format!("iptables -w -t nat -A OUTPUT -d {own} -j DNAT --to-destination 127.0.0.1"))
}
