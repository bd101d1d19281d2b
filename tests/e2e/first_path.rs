//! The first path: a device publishes, a rule filters, a Kafka consumer reads. Here in one process; `separate` takes the
//! same steps through separate ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure};
use drover_tests::{Platform, lines_of, python, read_committed, script, tool};
use serde_json::json;

/// How often a rule is applied until it is in force; each answer waits 5 s for that.
const APPLIES: usize = 12;
/// Lines that are published, of which the rule matches every other.
const LINES: usize = 1_000;

/// A platform as its user has it, in however many processes.
pub trait Site {
    /// Runs the command line against it: what it prints.
    fn cli(&self, arguments: &[&str]) -> anyhow::Result<String>;
    /// Where a port of the contract is.
    fn port(&self, contract: u16) -> u16;
    /// A file of the test's own.
    fn file(&self, name: &str) -> PathBuf;
    /// `bootstrap.servers` of Kafka consumers.
    fn brokers(&self) -> String;
    /// Waits until `state` holds.
    fn until(&mut self, what: &str, state: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()>;
}

impl Site for Platform {
    fn cli(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Platform::cli(self, arguments)
    }

    fn port(&self, contract: u16) -> u16 {
        Platform::port(self, contract)
    }

    fn file(&self, name: &str) -> PathBuf {
        Platform::file(self, name)
    }

    fn brokers(&self) -> String {
        Platform::brokers(self)
    }

    fn until(&mut self, what: &str, mut state: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        Platform::until(self, what, |_| state())
    }
}

/// Applies a rule that writes to the topic of its name; returns when it is in force.
fn apply(site: &impl Site, name: &str, sql: &str) -> anyhow::Result<()> {
    let rule = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": name},
        "spec": {"sql": sql, "actions": [{"kafka": {"topic": name}}]},
    });
    let file = site.file(&format!("{name}.json"));
    std::fs::write(&file, rule.to_string())?;
    let mut told = String::new();
    for _ in 0..APPLIES {
        told = site.cli(&["rule", "apply", "-f", &file.display().to_string()])?;
        if told.ends_with("is applied\n") {
            return Ok(());
        }
    }
    bail!("rule {name} is not in force: {told}")
}

/// What kcat reads of a topic, where there is a kcat: the values in their order.
fn by_kcat(site: &impl Site, topic: &str) -> anyhow::Result<Option<Vec<String>>> {
    let Some(kcat) = tool("kcat") else { return Ok(None) };
    let mut command = Command::new(kcat);
    command.args(["-b", &site.brokers(), "-C", "-t", topic, "-e", "-q", "-X", "isolation.level=read_committed"]);
    Ok(Some(lines_of(&mut command, b"")?))
}

/// A program of paho with a certificate, over TLS, sees its own message; what the rule makes of both of its messages is
/// read by a Kafka consumer and by kcat.
pub fn tls_device_to_kcat(site: &mut impl Site, python: &Path) -> anyhow::Result<()> {
    apply(site, "warm", "SELECT temperature FROM 'sensors/temperature' WHERE temperature > 20")?;
    site.cli(&["device", "create", "thermo-1"])?;
    let keys = site.file("keys");
    site.cli(&["credential", "issue", "thermo-1", "--certificate", "--out", &keys.display().to_string()])?;

    let mut device = Command::new(python);
    device.arg(script("tls_device.py")).args(["127.0.0.1", &site.port(8883).to_string()]);
    device.args([keys.join("ca.pem"), keys.join("device.cert.pem"), keys.join("device.private.key")]);
    let printed = lines_of(&mut device, b"")?;
    ensure!(printed == [r#"received sensors/temperature {"temperature": 22.5, "humidity": 60}"#], "{printed:?}");

    // One PUBLISH rode behind CONNECT, one followed the SUBACK.
    let brokers = site.brokers();
    site.until("through the rule", || Ok(read_committed(&brokers, "warm")?.len() >= 2))?;
    let outputs = read_committed(&brokers, "warm")?;
    assert_eq!(outputs.iter().map(|o| o.value.as_str()).collect::<Vec<_>>(), [r#"{"temperature":22.5}"#; 2]);
    assert_eq!(outputs[0].key, "thermo-1");
    for header in ["id", "rule", "time", "traceparent"] {
        assert!(outputs[0].headers.iter().any(|name| name == header), "{header} in {:?}", outputs[0].headers);
    }
    if let Some(values) = by_kcat(site, "warm")? {
        assert_eq!(values, [r#"{"temperature":22.5}"#; 2]);
    }
    Ok(())
}

/// Publishes a thousand lines by `mosquitto_pub`; returns when the rule's 500 are out.
pub fn publish_a_thousand(site: &mut impl Site, mosquitto_pub: &Path) -> anyhow::Result<()> {
    apply(site, "even", "SELECT n FROM 'lines' WHERE n % 2 = 0")?;
    let lines: String = (0..LINES).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let mut publish = Command::new(mosquitto_pub);
    publish.args(["-h", "127.0.0.1", "-p", &site.port(1883).to_string(), "-t", "lines"]);
    publish.args(["-q", "1", "-i", "liner", "-l"]);
    lines_of(&mut publish, lines.as_bytes())?;
    let brokers = site.brokers();
    site.until("through the rule", || Ok(read_committed(&brokers, "even")?.len() >= LINES / 2))
}

/// After [`publish_a_thousand`], when nothing more can come: there are exactly the 500, in their order.
pub fn exactly_five_hundred(site: &impl Site) -> anyhow::Result<()> {
    let expected: Vec<String> = (0..LINES).step_by(2).map(|n| format!("{{\"n\":{n}}}")).collect();
    let outputs = read_committed(&site.brokers(), "even")?;
    assert_eq!(outputs.into_iter().map(|o| o.value).collect::<Vec<_>>(), expected);
    if let Some(values) = by_kcat(site, "even")? {
        assert_eq!(values, expected);
    }
    Ok(())
}

#[test]
fn a_tls_device_sees_its_own_message_and_kcat_reads_the_rules_output() -> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    tls_device_to_kcat(&mut Platform::start()?, &python)
}

#[test]
fn of_a_thousand_lines_the_rule_matches_exactly_five_hundred() -> anyhow::Result<()> {
    let Some(mosquitto_pub) = tool("mosquitto_pub") else { return Ok(()) };
    let mut platform = Platform::start()?;
    publish_a_thousand(&mut platform, &mosquitto_pub)?;
    assert!(platform.stop()?.success(), "drains and ends well");
    platform.resume()?;
    exactly_five_hundred(&platform)
}
