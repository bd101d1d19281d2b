//! Everything that faults are done to: processes, their networks, disks and clocks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

use super::disk::Disk;
use super::faults::Fault;
use super::jumps::Jumps;
use super::layout::Layout;
use super::network::Network;
use super::processes::Processes;
use crate::scenario::{Chaos, Kind, Process};

/// What a fault meets, by the index of its process. Processes are gone before what they use.
pub struct Stage {
    pub processes: Processes,
    network: Option<Network>,
    disks: BTreeMap<usize, Disk>,
    jumps: BTreeMap<usize, Jumps>,
}

impl Stage {
    /// Makes networks, disks and clocks as far as there are faults for them; starts nothing yet.
    pub fn set(layout: &Layout, chaos: &Chaos, logs: PathBuf) -> anyhow::Result<Self> {
        let network = layout.has_network.then(|| Network::make(chaos.processes.len(), &chaos.all_faults()));
        let network = network.transpose()?;
        let (mut declared, mut disks, mut jumps) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (index, process) in chaos.processes.iter().enumerate() {
            let faults = chaos.faults_of(process);
            let mut filled: Process = layout.process(index, chaos)?;
            let beside = |ending: &str| layout.data.join(format!("{}.{ending}", process.name));
            std::fs::create_dir_all(layout.own(index)).with_context(|| layout.own(index).display().to_string())?;
            if let Some(&fault) = faults.iter().find(|fault| fault.is_of_disk()) {
                let disk = Disk::make(fault, &beside("image"), &layout.own(index), chaos.disk_mib)
                    .with_context(|| format!("the disk of {}", process.name))?;
                disks.insert(index, disk);
            }
            if faults.contains(&Kind::Clock) {
                let clock = Jumps::make(&beside("clock"))?;
                filled.environment.extend(clock.environment()?);
                jumps.insert(index, clock);
            }
            declared.push(filled);
        }
        Ok(Self { processes: Processes::new(declared, logs), network, disks, jumps })
    }

    /// Begins a fault.
    pub fn strike(&mut self, fault: &Fault) -> anyhow::Result<()> {
        if fault.kind.is_of_network() {
            return self.network.as_ref().map_or(Ok(()), |network| network.strike(fault));
        }
        if fault.kind.is_of_disk() {
            return self.disks.get_mut(&fault.process).map_or(Ok(()), |disk| disk.strike(fault.kind));
        }
        if fault.kind == Kind::Clock {
            return self.jumps.get(&fault.process).map_or(Ok(()), |clock| clock.set(fault.jump_s));
        }
        self.processes.strike(fault)
    }

    /// Ends a fault.
    pub fn recover(&mut self, fault: &Fault) -> anyhow::Result<()> {
        if fault.kind.is_of_network() {
            return self.network.as_ref().map_or(Ok(()), |network| network.recover(fault));
        }
        if fault.kind.is_of_disk() {
            return self.disks.get_mut(&fault.process).map_or(Ok(()), |disk| disk.recover(fault.kind));
        }
        if fault.kind == Kind::Clock {
            return self.jumps.get(&fault.process).map_or(Ok(()), |clock| clock.set(0));
        }
        self.processes.recover(fault)
    }
}
