//! A fleet of a scenario: devices of one model, how they connect, and what they send.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Span;

/// What takes the place of a device's number.
pub const INDEX: &str = "{i}";

/// Devices of one model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    pub name: String,
    pub devices: u32,
    /// Client identifier; `{i}` is the device's number within the fleet.
    pub device: String,
    #[serde(default)]
    pub protocol: Protocol,
    /// `HOST[:PORT]` that these devices connect to, instead of the target's.
    pub at: Option<String>,
    /// MQTT 5 instead of 3.1.1.
    #[serde(default)]
    pub v5: bool,
    /// Clean start; a session that is not clean lives as long as `session_expiry` says in MQTT 5.
    #[serde(default = "yes")]
    pub clean: bool,
    #[serde(default = "one_hour")]
    pub session_expiry: Span,
    /// Longest silence; a ping is sent after two thirds of it. `0s`: none.
    #[serde(default = "five_minutes")]
    pub keep_alive: Span,
    /// MQTT user name; `{device}` and `{i}` are replaced. Absent with a password: the device.
    pub user: Option<String>,
    /// File with the password of all devices, or with the token that HTTP shows.
    pub password_file: Option<PathBuf>,
    #[serde(default)]
    pub arrive: Arrive,
    #[serde(default)]
    pub subscribe: Vec<Subscribe>,
    /// Under a ledger: names of the fleets whose messages its subscribers are promised; none: all.
    #[serde(default)]
    pub promised: Vec<String>,
    #[serde(default)]
    pub answer: Vec<Answer>,
    pub publish: Option<Publish>,
    /// Generators by the names that the payload calls them by.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    pub failure: Option<Failure>,
    pub churn: Option<Churn>,
    /// What the network does to what devices write.
    pub network: Option<Network>,
    /// Pause before a lost connection is tried again: the first, doubled each time up to the last.
    #[serde(default = "reconnect")]
    pub reconnect: [Span; 2],
}

impl Fleet {
    /// The name of a device by its number.
    pub fn device_name(&self, index: u32) -> String {
        self.device.replace(INDEX, &index.to_string())
    }
}

/// How devices reach the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Mqtt,
    Mqtts,
    /// MQTT over WebSocket.
    Ws,
    Wss,
    /// `POST /v1/topics/…`, or `/v1/batch`.
    Http,
    Https,
    /// `POST /t/…` over UDP.
    Coap,
}

impl Protocol {
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Mqtts | Self::Wss | Self::Https)
    }

    pub fn is_web_socket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    pub fn is_mqtt(self) -> bool {
        matches!(self, Self::Mqtt | Self::Mqtts | Self::Ws | Self::Wss)
    }
}

/// When devices connect: evenly over `over`, the first after `after`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Arrive {
    pub after: Span,
    pub over: Span,
}

/// One subscription of each device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// `{device}` and `{i}` are replaced.
    pub filter: String,
    #[serde(default = "qos_one")]
    pub qos: u8,
}

/// What a device does about a message it gets: commands, wishes of its shadow.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Subscribed to, at QoS 1.
    pub filter: String,
    /// End of the message's topic, and what the answer's has in its place.
    pub ending: [String; 2],
    /// `{state}` is the field of that name of the message, as it is written there.
    pub payload: String,
}

/// What a device sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// `{device}` and `{i}` are replaced; of a batch, the topic of each row.
    pub topic: String,
    #[serde(default = "qos_one")]
    pub qos: u8,
    /// Of the devices' own time, as all below.
    pub every: Span,
    #[serde(default)]
    pub timing: Timing,
    /// The first is due when the device arrives, instead of at a time of its own within `every`.
    #[serde(default)]
    pub at_arrival: bool,
    /// With `timing = "change"` or `"batch"`: the value looked at, and by how much it has to differ from what was sent
    /// last.
    pub field: Option<String>,
    #[serde(default)]
    pub by: f64,
    /// With `field`: sent at the latest after this.
    pub at_most: Option<Span>,
    /// With `timing = "batch"`: what was measured goes out as one upload this often.
    pub upload: Option<Span>,
    /// Unacknowledged messages; what is due beyond them waits, and its latency counts from when it was due.
    #[serde(default = "window")]
    pub window: u16,
    /// `{NAME}` is a value, `{device}` and `{i}` the device, `{n}` the message's number, `{sent_us}` when it was due,
    /// in microseconds since 1970. A subscriber measures the time from end to end by a field called `sent_us`.
    pub payload: String,
    /// Bytes that the payload is filled up to with spaces.
    #[serde(default)]
    pub pad: usize,
}

/// When messages are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Every so often, each device with a phase of its own.
    #[default]
    Fixed,
    /// At random, every so often on average.
    Poisson,
    /// Measured every so often, sent when it has changed.
    Change,
    /// Measured every so often, what has changed uploaded together: `POST /v1/batch`.
    Batch,
}

/// How a value goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Value {
    /// Up or down by at most `step` each time, within the bounds.
    Walk {
        start: f64,
        step: f64,
        min: f64,
        max: f64,
        #[serde(default = "decimals")]
        decimals: u8,
    },
    /// A sine over the day, highest at `peak`, with noise; time of day counts from the start of the run.
    Daily {
        mean: f64,
        amplitude: f64,
        #[serde(default)]
        noise: f64,
        #[serde(default)]
        peak: Span,
        #[serde(default = "decimals")]
        decimals: u8,
    },
    /// Rows of a CSV file's column, as they are written there, over and over; each device begins elsewhere.
    Csv { file: PathBuf, column: String },
}

/// What breaks, at some of the devices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Which part of the fleet, from 0 to 1.
    pub share: f64,
    /// Since the start of the run; of the devices' own time.
    pub after: Span,
    /// The value that fails.
    pub field: String,
    /// Drifts by so much an hour of the devices' own time.
    #[serde(default)]
    pub drift_per_hour: f64,
    /// Stays at this instead.
    pub stuck_at: Option<f64>,
}

/// A network that is slow and loses packets, on the way from a device to its server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What a device writes comes so much later, at least and at most: round trips take so much longer.
    #[serde(default)]
    pub lag: [Span; 2],
    /// Which part of its packets is lost: datagrams are gone, what is written to a stream comes a second later.
    #[serde(default)]
    pub loss: f64,
}

/// Devices that come and go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Mean length of a connection.
    pub stay: Span,
    /// Until the next one.
    pub away: Span,
    /// Whether they say goodbye.
    #[serde(default = "yes")]
    pub goodbye: bool,
}

const fn yes() -> bool {
    true
}

const fn one_hour() -> Span {
    Span::from_secs(3_600)
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

const fn reconnect() -> [Span; 2] {
    [Span::from_us(500_000), Span::from_secs(15)]
}

const fn qos_one() -> u8 {
    1
}

const fn window() -> u16 {
    20
}

const fn decimals() -> u8 {
    1
}
