//! The state of a group and the watermark of a partition as bytes: Protocol Buffers, so that a later version may add
//! fields. A change that an old reader would misunderstand gets a new [`STATE_VERSION`].
//!
//! Numbers are decimal texts, which keep their 34 digits; values are JSON; a sketch has the format that DDSketch's
//! authors publish.

use prost::Message as _;
use sketches_ddsketch::DDSketch;

use super::total::{Sample, Total};
use super::watermark::Watermark;
use crate::error::EvalError;
use crate::number::Number;

/// Version of the bytes, in each of them.
pub const STATE_VERSION: u32 = 1;

/// What a rule knows of one group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// In order of their start.
    pub panes: Vec<Pane>,
    /// Windows that end up to here have been closed, milliseconds since the Unix epoch.
    pub closed_to_ms: u64,
    /// The last value of CHANGED, as JSON.
    pub value: Option<String>,
    /// Whether the condition of an edge holds; where it does not, it is as if nothing were known.
    pub high: bool,
    /// When a pattern heard of the group last, to the day so that what is as it was is not written for each message;
    /// milliseconds since the Unix epoch. 0: not known.
    pub heard_ms: u64,
}

/// What came in one piece of time: a hop of a window, or a session.
#[derive(Clone, Debug)]
pub(crate) struct Pane {
    pub start_ms: u64,
    /// Time of its last message, in a session.
    pub last_ms: u64,
    /// Most republishings that a message of it has behind it.
    pub hops: u32,
    /// One for each aggregate of the rule.
    pub totals: Vec<Total>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GroupBytes {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, repeated, tag = "2")]
    panes: Vec<PaneBytes>,
    #[prost(uint64, tag = "3")]
    closed_to_ms: u64,
    #[prost(string, optional, tag = "4")]
    value: Option<String>,
    #[prost(bool, optional, tag = "5")]
    high: Option<bool>,
    /// Of all panes, where they have none of their own.
    #[prost(uint32, tag = "6")]
    hops: u32,
    #[prost(uint64, tag = "7")]
    heard_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PaneBytes {
    #[prost(uint64, tag = "1")]
    start_ms: u64,
    /// Milliseconds from its start to its last message.
    #[prost(uint64, tag = "2")]
    length_ms: u64,
    #[prost(message, repeated, tag = "3")]
    totals: Vec<TotalBytes>,
    #[prost(uint32, tag = "4")]
    hops: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TotalBytes {
    #[prost(uint64, tag = "1")]
    count: u64,
    #[prost(string, optional, tag = "2")]
    number: Option<String>,
    #[prost(string, optional, tag = "3")]
    squares: Option<String>,
    #[prost(bytes = "vec", optional, tag = "4")]
    sketch: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    samples: Vec<SampleBytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SampleBytes {
    #[prost(uint64, tag = "1")]
    time_ms: u64,
    #[prost(uint64, tag = "2")]
    order: u64,
    #[prost(string, tag = "3")]
    json: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatermarkBytes {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint64, tag = "2")]
    time_ms: u64,
    #[prost(uint64, tag = "3")]
    clock_ms: u64,
}

impl Group {
    /// Whether nothing has to be kept.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty() && self.value.is_none() && !self.high
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = GroupBytes {
            version: STATE_VERSION,
            panes: self.panes.iter().map(Pane::to_wire).collect(),
            closed_to_ms: self.closed_to_ms,
            value: self.value.clone(),
            high: self.high.then_some(true),
            hops: 0,
            heard_ms: self.heard_ms,
        };
        wire.encode_to_vec()
    }

    pub fn read(bytes: &[u8]) -> Result<Self, EvalError> {
        let wire = GroupBytes::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
        known(wire.version)?;
        let GroupBytes { closed_to_ms, value, high, hops, heard_ms, .. } = wire;
        let pane = |wire| Pane::of_wire(wire).map(|pane| Pane { hops: pane.hops.max(hops), ..pane });
        let panes = wire.panes.into_iter().map(pane).collect::<Result<_, _>>()?;
        Ok(Self { panes, closed_to_ms, value, high: high == Some(true), heard_ms })
    }
}

impl Pane {
    fn to_wire(&self) -> PaneBytes {
        let totals = self.totals.iter().map(Total::to_wire).collect();
        PaneBytes { start_ms: self.start_ms, length_ms: self.last_ms - self.start_ms, totals, hops: self.hops }
    }

    fn of_wire(wire: PaneBytes) -> Result<Self, EvalError> {
        let last_ms = wire.start_ms.checked_add(wire.length_ms).ok_or_else(|| unreadable("a pane has no end"))?;
        let totals = wire.totals.into_iter().map(Total::of_wire).collect::<Result<_, _>>()?;
        Ok(Self { start_ms: wire.start_ms, last_ms, hops: wire.hops, totals })
    }
}

impl Total {
    fn to_wire(&self) -> TotalBytes {
        let text = |number: &Option<Number>| number.map(|number| number.to_string());
        let sample = |sample: &Sample| {
            let Sample { time_ms, order, json } = sample.clone();
            SampleBytes { time_ms, order, json }
        };
        TotalBytes {
            count: self.count,
            number: text(&self.number),
            squares: text(&self.squares),
            sketch: self.sketch.as_ref().map(DDSketch::to_java_bytes),
            samples: self.samples.iter().map(sample).collect(),
        }
    }

    fn of_wire(wire: TotalBytes) -> Result<Self, EvalError> {
        let number = |text: String| Number::parse(&text).ok_or_else(|| unreadable("a number is none"));
        let sketch = |bytes: Vec<u8>| DDSketch::from_java_bytes(&bytes).map_err(|error| unreadable(error.to_string()));
        let sample = |SampleBytes { time_ms, order, json }| Sample { time_ms, order, json };
        Ok(Self {
            count: wire.count,
            number: wire.number.map(number).transpose()?,
            squares: wire.squares.map(number).transpose()?,
            sketch: wire.sketch.map(sketch).transpose()?,
            samples: wire.samples.into_iter().map(sample).collect(),
        })
    }
}

impl Watermark {
    pub fn to_bytes(self) -> Vec<u8> {
        let (version, Watermark { time_ms, clock_ms }) = (STATE_VERSION, self);
        WatermarkBytes { version, time_ms, clock_ms }.encode_to_vec()
    }

    pub fn read(bytes: &[u8]) -> Result<Self, EvalError> {
        let wire = WatermarkBytes::decode(bytes).map_err(|error| unreadable(error.to_string()))?;
        known(wire.version)?;
        Ok(Self { time_ms: wire.time_ms, clock_ms: wire.clock_ms })
    }
}

fn known(version: u32) -> Result<(), EvalError> {
    match version {
        STATE_VERSION => Ok(()),
        newer if newer > STATE_VERSION => Err(EvalError::NewerState { version }),
        none => Err(unreadable(format!("its version is {none}"))),
    }
}

pub(super) fn unreadable(reason: impl Into<String>) -> EvalError {
    EvalError::State { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_version_1_are_read_by_every_later_version() {
        let golden = [
            0x08, 0x01, 0x12, 0x1f, 0x08, 0xe8, 0x07, 0x10, 0x05, 0x1a, 0x18, 0x08, 0x02, 0x12, 0x04, b'1', b'.', b'5',
            b'0', 0x2a, 0x0e, 0x08, 0xe8, 0x07, 0x10, 0x07, 0x1a, 0x07, b'"', b'h', b'a', b'l', b'l', b'o', b'"', 0x18,
            0x64, 0x22, 0x01, b'7', 0x28, 0x01, 0x30, 0x02,
        ];
        let group = Group::read(&golden).expect("readable");
        let pane = &group.panes[0];
        assert_eq!((pane.start_ms, pane.last_ms, pane.totals[0].count), (1_000, 1_005, 2));
        assert_eq!(pane.totals[0].number.map(|number| number.to_string()).as_deref(), Some("1.5"));
        let sample = &pane.totals[0].samples[0];
        assert_eq!((sample.time_ms, sample.order, sample.json.as_str()), (1_000, 7, "\"hallo\""));
        assert_eq!((group.closed_to_ms, group.value.as_deref(), group.high, pane.hops), (100, Some("7"), true, 2));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_says_why() {
        let told = |bytes: &[u8]| Group::read(bytes).expect_err("unreadable").to_string();
        assert_eq!(told(&[0x08, 0x02]), "state of the group cannot be read: its version is 2");
        assert!(told(&[0xff]).starts_with("state of the group cannot be read: "));
        assert_eq!(Group::read(&[0x08, 0x02]).err(), Some(EvalError::NewerState { version: 2 }));
    }
}
