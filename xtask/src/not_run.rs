//! What did not run, by the lines `NOT RUN: …` that tests print where they miss something: told at the end, where it is seen.
//!
//! With `DROVER_TEST_COMPLETE` a line that is not among the optional ones fails the run, or whole layers could go untested
//! unnoticed.

use std::collections::BTreeMap;

/// How a test says that it could not run; what follows names the missing part.
const MARK: &str = "NOT RUN: ";
/// Set by who expects all but [`OPTIONAL`] to run.
const COMPLETE: &str = "DROVER_TEST_COMPLETE";
/// How the lines begin that a good machine may say: no layer of the platform is tested by these alone.
const OPTIONAL: [&str; 20] = [
    // Minutes of building, or a cluster of one's own.
    "a real API server",
    "a real Kubernetes node",
    "what needs an API server of its own",
    // Commands of their own: cargo xtask test tls, cargo xtask bench ingress.
    "TLS and passwords to ",
    "what a message costs one to four ingress processes",
    // Clients and brokers of others, beside our own ones that test the same.
    "mosquitto is missing",
    "mosquitto_pub is missing",
    "/usr/bin/mosquitto_pub is not installed",
    "kcat is missing",
    "kcat is not installed",
    "coap-client is not installed",
    "no coap-client with DTLS is installed",
    "aiocoap is not installed",
    // Not in Debian, and no part of the platform: the chart is rendered by it.
    "helm is missing",
    // Root, modules of the kernel and libfaketime: for faults of networks, disks and clocks, beside kills and stops without.
    "drover-load: chaos.faults with ",
    // Rights of who runs the tests.
    "a directory without permission",
    "a small disk cannot be mounted here",
    "a full disk at the start",
    "the executable in the image's root",
    "chroot is missing",
];

/// Lines that were said, and how often.
#[derive(Default)]
pub struct NotRun(BTreeMap<String, usize>);

impl NotRun {
    /// Takes the lines out of what a suite has said.
    pub fn note(&mut self, said: &str) {
        for line in said.lines().filter_map(|line| line.strip_prefix(MARK)) {
            *self.0.entry(line.to_owned()).or_default() += 1;
        }
    }

    /// Prints all of them; an error that names those that had to run here.
    pub fn tell(&self) -> anyhow::Result<()> {
        for (line, times) in &self.0 {
            println!("{times:3} × {MARK}{line}");
        }
        println!(
            "{}",
            if self.0.is_empty() { "every test that there is has run" } else { "all tests but these have run" }
        );
        let left_out = self.obligatory();
        let is_complete = std::env::var_os(COMPLETE).is_some_and(|set| !set.is_empty());
        anyhow::ensure!(
            left_out.is_empty() || !is_complete,
            "with {COMPLETE} these have to run:\n  {}",
            left_out.join("\n  ")
        );
        Ok(())
    }

    /// Lines of what has to run.
    pub fn obligatory(&self) -> Vec<&str> {
        let is_optional = |line: &str| OPTIONAL.iter().any(|optional| line.starts_with(optional));
        self.0.keys().map(String::as_str).filter(|line| !is_optional(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_did_not_run_is_told_from_a_client_that_a_machine_may_miss() {
        let mut not_run = NotRun::default();
        not_run.note("test a ... ok\nNOT RUN: helm is missing\nNOT RUN: kcat is not installed\nnot NOT RUN: this\n");
        assert_eq!((not_run.0.len(), not_run.obligatory()), (2, Vec::new()));
        not_run.note("NOT RUN: mvn is not installed\nNOT RUN: cassandra: java is not installed\n");
        not_run.note("NOT RUN: mvn is not installed\n");
        assert_eq!(not_run.0["mvn is not installed"], 2);
        assert_eq!(not_run.obligatory(), ["cassandra: java is not installed", "mvn is not installed"]);
    }

    #[test]
    fn every_optional_line_is_one_that_a_test_says() {
        let mut sources = String::new();
        let mut folders: Vec<_> =
            ["crates", "loadtest", "services", "tests"].map(|name| crate::root().join(name)).into();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") {
                    sources += &std::fs::read_to_string(path).expect("text");
                }
            }
        }
        for line in OPTIONAL {
            // Lines about a program are put together of its name.
            let words =
                line.strip_suffix(" is missing").or_else(|| line.strip_suffix(" is not installed")).unwrap_or(line);
            assert!(sources.contains(words), "no test says {line:?}");
        }
    }
}
