//! The ledger of a run: the workers' journals and what readers print, put together, and checked for each consumer.
//!
//! Every consumer is promised every message, or those of some fleets. One that is promised each once is told apart from one
//! that may see repeats. A reader of lifecycle events is promised that they do not contradict themselves, and that every client
//! is among them; one of shadows' changes also that no version is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::clock::{unix_us, until};
use crate::guarded::Guarded;
use crate::ledger::{Ledger, Verdict};
use crate::presence::Presence;
use crate::scenario::{Prints, Reader, Scenario};
use crate::versions::Versions;
use crate::worker::Numbered;

/// Consumers of one run: each has books of its own, with every message in them.
pub const CONSUMERS_MAX: usize = 16;
/// Entries of all journals, and lines of all readers: some hundred megabytes.
const ENTRIES_MAX: u64 = 5_000_000;
/// How long a reader may take.
const READER_TIME_MAX: Duration = Duration::from_secs(600);
/// Lines of a reader that wait to be compared.
const LINES_MAX: usize = 1_024;

/// What was found at one consumer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConsumerVerdict {
    pub consumer: String,
    /// Whether a repeat breaks a promise.
    pub exactly_once: bool,
    pub lost: u64,
    pub doubled: u64,
    pub reordered: u64,
    pub unexpected: u64,
    /// Changes of a shadow whose version is not the one after that before.
    #[serde(default)]
    pub misversioned: u64,
    /// All of it in words, with the smallest counter-examples.
    pub statement: String,
}

impl ConsumerVerdict {
    fn new(consumer: &str, exactly_once: bool, verdict: &Verdict) -> Self {
        Self {
            consumer: consumer.to_owned(),
            exactly_once,
            lost: verdict.lost.count,
            doubled: verdict.doubled.count,
            reordered: verdict.reordered.count,
            unexpected: verdict.unexpected.count,
            misversioned: 0,
            statement: verdict.to_string(),
        }
    }

    /// Whether every promise to this consumer was kept.
    pub fn is_kept(&self) -> bool {
        let repeats = if self.exactly_once { self.doubled } else { 0 };
        self.lost + repeats + self.reordered + self.unexpected + self.misversioned == 0
    }
}

/// All books of a run.
#[derive(Default)]
struct Books {
    /// What was sent and acknowledged.
    sent: Ledger,
    /// What each consumer got, in order: device and number.
    received: BTreeMap<String, Vec<(String, u64)>>,
    entries: u64,
}

/// Reads the journals, runs the readers, and compares.
pub fn check(scenario: &Scenario, journals: &[PathBuf]) -> anyhow::Result<Vec<ConsumerVerdict>> {
    let mut books = Books::default();
    for journal in journals {
        books.journal(journal).with_context(|| journal.display().to_string())?;
    }
    let mut verdicts = Vec::new();
    for fleet in scenario.fleets.iter().filter(|fleet| !fleet.subscribe.is_empty()) {
        for consumer in (0..fleet.devices).map(|index| fleet.device_name(index)) {
            // Who got nothing has no entry, and is promised everything all the same.
            let got = books.received.get(&consumer).map_or(&[][..], Vec::as_slice);
            verdicts.push(books.compare(scenario, &fleet.promised, &consumer, false, got));
        }
    }
    for reader in &scenario.readers {
        let judged = match reader.prints {
            Prints::Messages => books.messages(scenario, reader),
            Prints::Presence => books.presence(scenario, reader),
            Prints::Shadows => books.shadows(scenario, reader),
        };
        verdicts.push(judged.with_context(|| format!("reader {}", reader.name))?);
    }
    Ok(verdicts)
}

impl Books {
    fn journal(&mut self, path: &Path) -> anyhow::Result<()> {
        for line in BufReader::new(File::open(path)?).lines() {
            let line = line?;
            self.count()?;
            self.entry(&line).with_context(|| format!("entry {line:?}"))?;
        }
        Ok(())
    }

    fn entry(&mut self, line: &str) -> anyhow::Result<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["S", device, number] => {
                let (number, expected) = (number.parse::<u64>()?, self.sent.sent(device));
                ensure!(number == expected, "the number must be {expected}, but is {number}");
            }
            ["A", device, number] => {
                let number = number.parse()?;
                ensure!(self.sent.was_sent(device, number), "it was acknowledged, but not sent");
                self.sent.acknowledged(device, number);
            }
            ["R", consumer, device, number] => {
                let got = (device.to_owned(), number.parse()?);
                self.received.entry(consumer.to_owned()).or_default().push(got);
            }
            _ => bail!("it is none of S, A and R with its fields"),
        }
        Ok(())
    }

    /// What is said to a reader of messages.
    fn messages(&mut self, scenario: &Scenario, reader: &Reader) -> anyhow::Result<ConsumerVerdict> {
        let mut got = Vec::new();
        self.read(scenario, reader, READER_TIME_MAX, |line| {
            if let Ok(Numbered { device, n }) = serde_json::from_str(line) {
                got.push((device, n));
            }
        })?;
        Ok(self.judge(scenario, reader, got))
    }

    /// What is said to a reader of shadows' changes.
    fn shadows(&mut self, scenario: &Scenario, reader: &Reader) -> anyhow::Result<ConsumerVerdict> {
        let (mut versions, mut got) = (Versions::default(), Vec::new());
        self.read(scenario, reader, READER_TIME_MAX, |line| got.extend(versions.take(line)))?;
        Ok(versions.judge(self.judge(scenario, reader, got)))
    }

    /// What is said to a reader of the messages that it got.
    fn judge(&self, scenario: &Scenario, reader: &Reader, mut got: Vec<(String, u64)>) -> ConsumerVerdict {
        // Others may have written there as well.
        got.retain(|(device, _)| self.sent.knows(device));
        self.compare(scenario, &reader.promised, &reader.name, reader.exactly_once, &got)
    }

    /// Compares what a consumer got with what the fleets have sent whose messages it is promised; none named: all. What it got of
    /// other fleets is passed by.
    fn compare(
        &self,
        scenario: &Scenario,
        promised: &[String],
        consumer: &str,
        exactly_once: bool,
        got: &[(String, u64)],
    ) -> ConsumerVerdict {
        let fleets = scenario.fleets.iter().filter(|fleet| promised.contains(&fleet.name));
        let devices = fleets.flat_map(|fleet| (0..fleet.devices).map(move |index| fleet.device_name(index)));
        let devices: BTreeSet<String> = devices.collect();
        let mut ledger = self.sent.only(|device| promised.is_empty() || devices.contains(device));
        for (device, number) in got {
            if ledger.knows(device) || !self.sent.knows(device) {
                ledger.received(consumer, device, *number);
            }
        }
        ConsumerVerdict::new(consumer, exactly_once, &ledger.check())
    }

    /// What is said to a reader of lifecycle events.
    fn presence(&mut self, scenario: &Scenario, reader: &Reader) -> anyhow::Result<ConsumerVerdict> {
        let mut presence = Presence::default();
        self.read(scenario, reader, READER_TIME_MAX, |line| presence.take(line))?;
        let is_promised = |name: &String| reader.promised.is_empty() || reader.promised.contains(name);
        let fleets = scenario.fleets.iter().filter(|fleet| fleet.protocol.is_mqtt() && is_promised(&fleet.name));
        let clients = fleets.flat_map(|fleet| (0..fleet.devices).map(move |index| fleet.device_name(index)));
        // Of others nobody knows whether they ever were connected.
        let clients: Vec<String> = clients.filter(|client| self.sent.has_acknowledged(client)).collect();
        Ok(presence.verdict(&reader.name, reader.exactly_once, &clients))
    }

    /// Runs a reader to its end and hands out the lines that it prints. One that does not end in time is killed.
    fn read(
        &mut self,
        scenario: &Scenario,
        reader: &Reader,
        most: Duration,
        mut take: impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let command: Vec<String> = reader.command.iter().map(|part| scenario.target.expand(part)).collect();
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Guarded::start(&mut process).with_context(|| format!("starting {}", command[0]))?;
        let stdout = running.stdout().context("stdout is piped")?;
        let (lines, printed) = sync_channel(LINES_MAX);
        std::thread::spawn(move || BufReader::new(stdout).lines().try_for_each(|line| lines.send(line)));
        let late_us = unix_us() + most.as_micros() as u64;
        let left = || Duration::from_micros(late_us.saturating_sub(unix_us()));
        let late = || format!("{} must end within {most:?}, but did not", command[0]);
        loop {
            let left = left();
            ensure!(!left.is_zero(), late());
            let line = match printed.recv_timeout(left) {
                Ok(line) => line?,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.count()?;
            take(&line);
        }
        let status = until(left(), || running.ended())?.with_context(late)?;
        ensure!(status.success(), "{} ended with {status}", command[0]);
        Ok(())
    }

    fn count(&mut self) -> anyhow::Result<()> {
        self.entries += 1;
        ensure!(self.entries <= ENTRIES_MAX, "entries of the ledger must be at most {ENTRIES_MAX}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Fleet;

    fn scenario(reader: &str) -> Scenario {
        let text = r##"
            title = "t"
            duration = "1s"
            ledger = true
            [[fleet]]
            name = "ear"
            devices = 1
            device = "ear"
            subscribe = [{ filter = "out/#" }]
            [[reader]]
            name = "log"
            exactly_once = true
        "##;
        Scenario::parse(&format!("{text}\ncommand = [\"printf\", '{reader}']")).expect("valid")
    }

    fn checked(journal: &str, reader: &str) -> anyhow::Result<Vec<ConsumerVerdict>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ledger-0.tsv");
        std::fs::write(&file, journal)?;
        check(&scenario(reader), &[file])
    }

    const JOURNAL: &str = "S\td\t0\nS\td\t1\nA\td\t0\nA\td\t1\nR\tear\td\t0\nR\tear\td\t0\nR\tear\td\t1\n";

    #[test]
    fn repeats_break_no_promise_to_a_subscriber_but_one_to_a_reader_of_what_comes_once() -> anyhow::Result<()> {
        let twice = r#"{"device":"d","n":0}\n{"device":"d","n":1}\n{"device":"d","n":1}\n"#;
        let verdicts = checked(JOURNAL, twice)?;
        assert_eq!(verdicts.iter().map(ConsumerVerdict::is_kept).collect::<Vec<_>>(), [true, false]);
        assert!(verdicts[1].statement.contains("1 doubled, smallest: d #1"), "{}", verdicts[1].statement);
        Ok(())
    }

    #[test]
    fn what_is_lost_and_out_of_order_is_named_and_other_messages_are_passed_by() -> anyhow::Result<()> {
        let verdicts = checked(JOURNAL, r#"{"device":"other","n":7}\nno json\n{"device":"d","n":1}\n"#)?;
        assert_eq!((verdicts[1].lost, verdicts[1].unexpected), (1, 0));
        assert!(verdicts[1].statement.contains("1 lost, smallest: d #0"));
        let backwards = JOURNAL.replace("R\tear\td\t0\nR\tear\td\t0\nR\tear\td\t1\n", "R\tear\td\t1\nR\tear\td\t0\n");
        assert_eq!(checked(&backwards, "")?[0].reordered, 1);
        Ok(())
    }

    #[test]
    fn who_is_promised_the_messages_of_one_fleet_misses_nothing_of_another() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ledger-0.tsv");
        std::fs::write(&file, "S\td\t0\nS\te\t0\nA\td\t0\nA\te\t0\nR\tear\td\t0\nR\tear\te\t0\n")?;
        let mut scenario = scenario(r#"{"device":"e","n":0}\n"#);
        for name in ["d", "e"] {
            let fleet = scenario.fleets[0].clone();
            let (name, device) = (name.to_owned(), name.to_owned());
            scenario.fleets.push(Fleet { name, device, subscribe: Vec::new(), ..fleet });
        }
        scenario.fleets[0].promised = vec!["d".to_owned()];
        scenario.readers[0].promised = vec!["e".to_owned()];
        for verdict in check(&scenario, std::slice::from_ref(&file))? {
            assert!(verdict.is_kept(), "{}", verdict.statement);
            assert_eq!(verdict.statement, "1 sent, 1 acknowledged, 1 received");
        }
        scenario.readers[0].promised.clear();
        assert_eq!(check(&scenario, &[file])?[1].lost, 1, "it is promised all");
        Ok(())
    }

    #[test]
    fn a_reader_of_shadows_is_promised_each_message_and_each_version() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ledger-0.tsv");
        std::fs::write(&file, JOURNAL)?;
        for (version, misversioned) in [(2, 0), (3, 1)] {
            let change = |n: u64, version: u64| {
                format!(r#"{{"state":{{"reported":{{"device":"d","n":{n}}}}},"version":{version}}}\n"#)
            };
            let mut scenario = scenario(&format!("{}{}", change(0, 1), change(1, version)));
            scenario.readers[0].prints = Prints::Shadows;
            let verdict = check(&scenario, std::slice::from_ref(&file))?.remove(1);
            assert_eq!((verdict.lost, verdict.misversioned), (0, misversioned), "{}", verdict.statement);
            assert_eq!(verdict.is_kept(), misversioned == 0);
        }
        Ok(())
    }

    #[test]
    fn a_reader_of_lifecycle_events_is_promised_that_they_alternate_and_name_each_client() -> anyhow::Result<()> {
        let told = |event_type: &str, epoch: u64| {
            format!(r#"{{"eventType":"{event_type}","tenant":"default","clientId":"d","epoch":{epoch}}}\n"#)
        };
        let judged = |journal: &str, printed: &str| {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("ledger-0.tsv");
            std::fs::write(&file, journal)?;
            let mut scenario = scenario(printed);
            scenario.readers[0].prints = Prints::Presence;
            let fleet = scenario.fleets[0].clone();
            scenario.fleets.push(Fleet { device: "d".to_owned(), subscribe: Vec::new(), ..fleet });
            Ok::<_, anyhow::Error>(check(&scenario, &[file])?.remove(1))
        };
        let good = judged(JOURNAL, &format!("{}{}", told("connected", 1), told("disconnected", 1)))?;
        assert!(good.is_kept() && good.statement == "2 events of 1 clients", "{}", good.statement);
        let twice = judged(JOURNAL, &told("connected", 1).repeat(2))?;
        assert_eq!((twice.doubled, twice.is_kept()), (1, false));
        assert_eq!(judged(JOURNAL, "")?.statement, "0 events of 0 clients; 1 lost, first: d never connected");
        Ok(())
    }

    #[test]
    fn a_reader_that_does_not_end_is_ended_and_one_that_is_missing_is_told_before_the_run() -> anyhow::Result<()> {
        let mut scenario = scenario("");
        scenario.readers[0].command = ["sleep", "60"].map(str::to_owned).to_vec();
        scenario.check_files()?;
        let reader = scenario.readers[0].clone();
        let late = Books::default().read(&scenario, &reader, Duration::from_millis(200), |_| {});
        let told = late.expect_err("it is too slow").to_string();
        assert_eq!(told, "sleep must end within 200ms, but did not");
        scenario.readers[0].command = vec!["no-such-program".to_owned()];
        let told = scenario.check_files().expect_err("it is missing").to_string();
        assert_eq!(told, "reader log: command must be a program that is there, but is no-such-program");
        Ok(())
    }

    #[test]
    fn a_subscriber_that_got_nothing_has_lost_everything_and_wrong_books_are_refused() -> anyhow::Result<()> {
        assert_eq!(checked("S\td\t0\nA\td\t0\n", "")?[0].lost, 1);
        for wrong in ["S\td\t1\n", "A\td\t0\n", "X\n", "S\td\tx\n"] {
            assert!(checked(wrong, "").is_err(), "{wrong:?}");
        }
        Ok(())
    }
}
