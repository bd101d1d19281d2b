//! Where everything of a chaos run is: what the placeholders of a scenario stand for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use super::network;
use crate::scenario::{Chaos, Process, Scenario, Target};

/// Host of processes that have no networks of their own.
const LOOPBACK: &str = "127.0.0.1";

/// The run's files and addresses.
pub struct Layout {
    pub target: Target,
    /// The executable that is tried.
    pub drover: PathBuf,
    /// Data of all processes.
    pub data: PathBuf,
    /// The scenario's folder.
    pub here: PathBuf,
    /// Names of the processes by their index.
    pub names: Vec<String>,
    pub has_network: bool,
}

impl Layout {
    /// A text with everything in it replaced: `{at:NAME}`, `{port:N}`, `{drover}`, `{data}`, `{here}`, `{offset}`.
    pub fn fill(&self, text: &str) -> anyhow::Result<String> {
        let mut filled = self.target.expand(text).replace("{offset}", &self.target.port_offset.to_string());
        for (word, path) in [("{drover}", &self.drover), ("{data}", &self.data), ("{here}", &self.here)] {
            filled = filled.replace(word, &path.display().to_string());
        }
        for (index, name) in self.names.iter().enumerate() {
            let host = if self.has_network { network::address(index).to_string() } else { LOOPBACK.to_owned() };
            filled = filled.replace(&format!("{{at:{name}}}"), &host);
        }
        ensure!(!filled.contains("{at:"), "chaos: {{at:NAME}} must name a process, but {text:?} does not");
        Ok(filled)
    }

    /// All words of a command.
    pub fn fill_all(&self, words: &[String]) -> anyhow::Result<Vec<String>> {
        words.iter().map(|word| self.fill(word)).collect()
    }

    /// The folder that is a process's own; `{own}` stands for it.
    pub fn own(&self, process: usize) -> PathBuf {
        self.data.join(&self.names[process])
    }

    /// A process as it is to be started: in its network, with the environment of all and its own.
    pub fn process(&self, index: usize, chaos: &Chaos) -> anyhow::Result<Process> {
        let declared = &chaos.processes[index];
        let fill = |text: &str| self.fill(&text.replace("{own}", &self.own(index).display().to_string()));
        let prefix = self.has_network.then(|| network::prefix(index)).into_iter().flatten();
        let mut command: Vec<String> = prefix.collect();
        for word in &declared.command {
            command.push(fill(word)?);
        }
        let mut environment = BTreeMap::new();
        for (name, value) in chaos.environment.iter().chain(&declared.environment) {
            environment.insert(name.clone(), fill(value)?);
        }
        let ready = fill(&declared.ready)?;
        Ok(Process { command, environment, ready, ..declared.clone() })
    }

    /// Leads devices, readers and the look at metrics to the processes.
    pub fn lead(&self, scenario: &mut Scenario) -> anyhow::Result<()> {
        scenario.target.host = self.fill(&scenario.target.host)?;
        if let Some(metrics) = &mut scenario.target.metrics {
            *metrics = self.fill(metrics)?;
        }
        for fleet in &mut scenario.fleets {
            if let Some(at) = &mut fleet.at {
                *at = self.fill(at)?;
            }
        }
        for reader in &mut scenario.readers {
            reader.command = self.fill_all(&reader.command)?;
        }
        Ok(())
    }
}

/// A path from the root, as processes that run elsewhere need it; as it is where there is nothing.
pub fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(has_network: bool) -> Layout {
        Layout {
            target: Target { port_offset: 100, ..Target::default() },
            drover: "/bin/drover".into(),
            data: "/data".into(),
            here: "/scenarios".into(),
            names: vec!["a".to_owned(), "b".to_owned()],
            has_network,
        }
    }

    #[test]
    fn placeholders_stand_for_files_ports_and_addresses() {
        let text = "{drover} {data} {here} {offset} {port:1883} {at:a} {at:b}";
        let filled = |has_network| layout(has_network).fill(text).expect("known words");
        assert_eq!(filled(false), "/bin/drover /data /scenarios 100 1983 127.0.0.1 127.0.0.1");
        assert_eq!(filled(true), "/bin/drover /data /scenarios 100 1983 10.213.0.2 10.213.1.2");
        let unknown = layout(true).fill("{at:c}").expect_err("no such process").to_string();
        assert_eq!(unknown, "chaos: {at:NAME} must name a process, but \"{at:c}\" does not");
    }

    #[test]
    fn a_process_starts_in_its_network_with_its_folder_and_both_environments() {
        let text = r#"
            title = "t"
            duration = "9s"
            [[fleet]]
            name = "f"
            devices = 1
            device = "d"
            [chaos]
            environment = { A = "all", B = "{at:a}" }
            [[chaos.process]]
            name = "a"
            command = ["a"]
            ready = "{at:a}:1"
            [[chaos.process]]
            name = "b"
            command = ["b", "{own}"]
            environment = { A = "own" }
            ready = "{at:b}:1"
        "#;
        let chaos = Scenario::parse(text).expect("valid").chaos;
        let process = layout(true).process(1, &chaos).expect("known words");
        assert_eq!(process.command, ["nsenter", "--net=/run/netns/process1", "b", "/data/b"]);
        assert_eq!((process.environment["A"].as_str(), process.environment["B"].as_str()), ("own", "10.213.0.2"));
        assert_eq!(
            (process.ready.as_str(), layout(false).process(0, &chaos).expect("known").ready),
            ("10.213.1.2:1", "127.0.0.1:1".to_owned())
        );
    }
}
