//! What a scenario file says: who connects how and when, what they send, what is asked of the outcome.
//!
//! The one format of the file, and of what the controller hands to its workers. Unknown keys are refused by serde,
//! values out of range by `check`; after that the rest of the crate relies on them.

mod chaos;
mod check;
mod fleet;
mod span;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use chaos::{Chaos, Kind, Process};
pub use fleet::{Answer, Arrive, Churn, Failure, Fleet, INDEX, Network, Protocol, Publish, Subscribe, Timing, Value};
pub use span::{NoSpan, Span};

use crate::bound::Bound;
use crate::target::split_port;
use crate::threshold::Threshold;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("could not read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Syntax { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{field} must be {limit}, but is {value}")]
    Value { field: String, limit: String, value: String },
}

/// One scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is called in reports.
    pub title: String,
    /// What it shows, in a sentence or two; printed in the report.
    #[serde(default)]
    pub shows: String,
    /// Of everything random: phases, gaps, values.
    #[serde(default = "one")]
    pub seed: u64,
    /// From the first arrival to the last publish.
    pub duration: Span,
    /// How long to wait for acknowledgements and deliveries after that.
    #[serde(default = "ten_seconds")]
    pub settle: Span,
    /// How many times faster than the clock the devices' own time runs: a scenario of a day fits a minute.
    #[serde(default = "one")]
    pub speed: u64,
    #[serde(default)]
    pub target: Target,
    #[serde(default)]
    pub tls: Tls,
    #[serde(rename = "fleet")]
    pub fleets: Vec<Fleet>,
    #[serde(default, rename = "storm")]
    pub storms: Vec<Storm>,
    /// Whether every message is booked, and the books are checked at the end.
    #[serde(default)]
    pub ledger: bool,
    #[serde(default, rename = "reader")]
    pub readers: Vec<Reader>,
    /// Such as `ack_p99 < 50ms`; one that fails makes the exit code 1.
    #[serde(default)]
    pub thresholds: Vec<Threshold>,
    /// Of the server's own metrics, at `target.metrics`; one that does not hold makes the exit code 1, too.
    #[serde(default, rename = "bound")]
    pub bounds: Vec<Bound>,
    #[serde(default)]
    pub chaos: Chaos,
}

/// Where the broker is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    pub host: String,
    pub mqtt: u16,
    pub mqtts: u16,
    /// HTTP, and MQTT over WebSocket under `/mqtt`.
    pub http: u16,
    pub https: u16,
    /// UDP.
    pub coap: u16,
    /// Added to each of these ports, as `drover up --port-offset` does.
    pub port_offset: i32,
    /// A page in the format of Prometheus with `process_resident_memory_bytes`, `process_cpu_seconds_total` and perhaps
    /// `process_open_fds`; `{port:9464}` is that port with the offset.
    pub metrics: Option<String>,
    /// Connections from one source address, where the host is on loopback; the next ones come from the next of
    /// 127.0.1.1, 127.0.1.2, …: beyond half of the ephemeral ports of one address connect(2) itself becomes slow.
    pub connections_per_source: u32,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            mqtt: 1883,
            mqtts: 8883,
            http: 8080,
            https: 8443,
            coap: 5683,
            port_offset: 0,
            metrics: None,
            connections_per_source: 8_000,
        }
    }
}

impl Target {
    /// The port of a protocol; 0 where the offset makes it none, which is refused for protocols in use.
    pub fn port(&self, protocol: Protocol) -> u16 {
        u16::try_from(self.shifted(protocol)).unwrap_or_default()
    }

    /// Host and port that a fleet connects to.
    pub fn place(&self, fleet: &Fleet) -> (String, u16) {
        let own = fleet.at.as_deref().and_then(split_port);
        let (host, port) = own.unwrap_or_else(|| (self.host.clone(), None));
        (host, port.unwrap_or_else(|| self.port(fleet.protocol)))
    }

    /// `HOST:PORT` of a fleet, an address of IPv6 in brackets.
    pub fn authority(&self, fleet: &Fleet) -> String {
        let (host, port) = self.place(fleet);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The sum of a protocol's port and the offset.
    fn shifted(&self, protocol: Protocol) -> i64 {
        let port = match protocol {
            Protocol::Mqtt => self.mqtt,
            Protocol::Mqtts => self.mqtts,
            Protocol::Ws | Protocol::Http => self.http,
            Protocol::Wss | Protocol::Https => self.https,
            Protocol::Coap => self.coap,
        };
        i64::from(port) + i64::from(self.port_offset)
    }

    /// Replaces each `{port:N}` by N with the offset.
    pub fn expand(&self, text: &str) -> String {
        let mut parts = text.split("{port:");
        let mut expanded = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let port = part.split_once('}').and_then(|(port, rest)| Some((port.parse::<u16>().ok()?, rest)));
            match port {
                Some((port, rest)) => {
                    let shifted = i64::from(port) + i64::from(self.port_offset);
                    expanded.extend([shifted.to_string().as_str(), rest]);
                }
                None => expanded.extend(["{port:", part]),
            }
        }
        expanded
    }
}

/// PEM files for TLS. `{device}` in the latter two makes them each device's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    pub authority: Option<PathBuf>,
    pub certificate: Option<String>,
    pub key: Option<String>,
}

/// All at once lose their connections, without a goodbye, and come back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// Since the start.
    pub at: Span,
    /// How long the network is away.
    pub away: Span,
    /// They come back within this time, the first at its begin.
    #[serde(default)]
    pub over: Span,
    /// Whether the server is not told: its ends of the connections stay open (half-open), until the run ends.
    #[serde(default)]
    pub half_open: bool,
    /// Names of the fleets; none: all.
    #[serde(default)]
    pub fleets: Vec<String>,
}

/// A program that prints what a consumer gets, one payload a line: of the log, of a rule's output, of lifecycle events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    pub name: String,
    /// Run at the end; it has to end by itself. `{port:9092}` is that port with the offset.
    pub command: Vec<String>,
    #[serde(default)]
    pub prints: Prints,
    /// Names of the fleets whose messages it is promised; none: all.
    #[serde(default)]
    pub promised: Vec<String>,
    /// Whether a message that comes twice breaks a promise.
    #[serde(default)]
    pub exactly_once: bool,
}

/// What a reader's lines are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prints {
    /// Numbered messages.
    #[default]
    Messages,
    /// Lifecycle events of clients, as `drover.events` has them, from the first on.
    Presence,
    /// Changes of shadows, as `drover.shadow.changes` has them, whose reported state is a numbered message.
    Shadows,
}

/// Whether a command begins with a file, or with a name on the path.
fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    if name.contains('/') { Path::new(name).is_file() } else { places.any(|file| file.is_file()) }
}

const fn one() -> u64 {
    1
}

const fn ten_seconds() -> Span {
    Span::from_secs(10)
}

impl Scenario {
    /// Reads and checks a file. Paths in it are relative to the folder it lies in.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let mut scenario: Self = toml::from_str(&text)
            .map_err(|source| ScenarioError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        scenario.resolve(path.parent().unwrap_or(Path::new(".")));
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads and checks a text.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)
            .map_err(|source| ScenarioError::Syntax { path: "scenario".into(), source: Box::new(source) })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Sends everybody to `HOST[:PORT]`, an address of IPv6 in brackets; the port is that of the first fleet, the others are
    /// moved by as much. The page of metrics is of another server then, and is left out.
    pub fn aim(&mut self, target: &str) -> Result<(), ScenarioError> {
        let wrong = || ScenarioError::Value {
            field: "target".to_owned(),
            limit: "HOST or HOST:PORT".to_owned(),
            value: target.to_owned(),
        };
        let (host, port) = split_port(target).ok_or_else(wrong)?;
        self.target.host = host;
        self.target.metrics = None;
        self.fleets.iter_mut().for_each(|fleet| fleet.at = None);
        if let Some(port) = port {
            self.target.port_offset = 0;
            let first = self.fleets.first().map_or(self.target.mqtt, |fleet| self.target.port(fleet.protocol));
            self.target.port_offset = i32::from(port) - i32::from(first);
        }
        self.check()
    }

    /// Multiplies the devices of every fleet, which has at least one; the factor lies within `bounds`.
    pub fn scale(&mut self, factor: f64, bounds: (f64, f64)) -> Result<(), ScenarioError> {
        if !(bounds.0..=bounds.1).contains(&factor) {
            let limit = format!("from {} to {}", bounds.0, bounds.1);
            return Err(ScenarioError::Value { field: "scale".to_owned(), limit, value: factor.to_string() });
        }
        for fleet in &mut self.fleets {
            fleet.devices = (f64::from(fleet.devices) * factor).round().max(1.0) as u32;
        }
        self.check()
    }

    fn resolve(&mut self, folder: &Path) {
        let within = |path: &mut PathBuf| *path = folder.join(&*path);
        self.tls.authority.iter_mut().for_each(within);
        for text in [&mut self.tls.certificate, &mut self.tls.key].into_iter().flatten() {
            *text = folder.join(&*text).display().to_string();
        }
        for fleet in &mut self.fleets {
            fleet.password_file.iter_mut().for_each(within);
            for value in fleet.values.values_mut() {
                if let Value::Csv { file, .. } = value {
                    within(file);
                }
            }
        }
    }

    /// Says which file or reader's program that the scenario names is not there.
    pub fn check_files(&self) -> Result<(), ScenarioError> {
        let own = self.fleets.iter().flat_map(|fleet| {
            let csv = fleet.values.values().filter_map(|value| match value {
                Value::Csv { file, .. } => Some(file.clone()),
                Value::Walk { .. } | Value::Daily { .. } => None,
            });
            csv.chain(fleet.password_file.clone())
        });
        for path in own.chain(self.tls.authority.clone()) {
            std::fs::metadata(&path).map_err(|source| ScenarioError::Read { path, source })?;
        }
        for reader in &self.readers {
            if !is_program(&reader.command[0]) {
                return Err(ScenarioError::Value {
                    field: format!("reader {}: command", reader.name),
                    limit: "a program that is there".to_owned(),
                    value: reader.command[0].clone(),
                });
            }
        }
        Ok(())
    }

    /// When the last message is due, and when everything is over, in microseconds since the start.
    pub fn ends_us(&self) -> (u64, u64) {
        (self.duration.us(), self.duration.us() + self.settle.us())
    }

    /// How many devices there are.
    pub fn devices(&self) -> u64 {
        self.fleets.iter().map(|fleet| u64::from(fleet.devices)).sum()
    }

    /// A time of the devices, in microseconds of the clock.
    pub fn hurried_us(&self, span: Span) -> u64 {
        span.us() / self.speed
    }
}
