//! What devices measure, and the text they send of it. No I/O but the CSV files read at the start.
//!
//! Random by seed and device: a run can be repeated.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::scenario::{Failure, Fleet, Value};

const DAY_US: f64 = 86_400e6;
const HOUR_US: f64 = 3_600e6;
/// Rows of a CSV file.
const ROWS_MAX: usize = 1_000_000;
/// Keeps the seeds of neighbouring devices apart (the golden ratio, as splitmix64 has it).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The random numbers of one device.
pub fn random(seed: u64, fleet: usize, device: u32) -> fastrand::Rng {
    let identity = (fleet as u64) << 32 | u64::from(device);
    fastrand::Rng::with_seed(seed ^ identity.wrapping_add(1).wrapping_mul(SPREAD))
}

/// A payload with gaps.
#[derive(Clone, Debug)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The value with this index, in the order of their names.
    Value(usize),
    Device,
    Index,
    Number,
    SentUs,
}

/// What is known of one message.
pub struct Message<'a> {
    pub device: &'a str,
    pub index: u32,
    pub number: u64,
    /// When it was due, in microseconds since 1970.
    pub sent_us: u64,
    pub readings: &'a [Reading],
}

impl Template {
    /// Finds the gaps: `{NAME}`, without spaces; other braces are text, as JSON needs them. The error is the name that
    /// is unknown.
    pub fn new(text: &str, values: &BTreeMap<String, Value>) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find('{') {
            plain.push_str(&rest[..open]);
            rest = &rest[open..];
            let name = rest[1..].find('}').map(|close| &rest[1..=close]);
            let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let Some(name) = name.filter(is_name) else {
                plain.push('{');
                rest = &rest[1..];
                continue;
            };
            let part = match name {
                "device" => Part::Device,
                "i" => Part::Index,
                "n" => Part::Number,
                "sent_us" => Part::SentUs,
                name => Part::Value(values.keys().position(|key| key == name).ok_or_else(|| name.to_owned())?),
            };
            parts.extend([Part::Text(std::mem::take(&mut plain)), part]);
            rest = &rest[name.len() + 2..];
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// Appends the payload of one message.
    pub fn put(&self, message: &Message<'_>, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Device => out.push_str(message.device),
                Part::Value(index) => message.readings[*index].put(out),
                Part::Index => put(out, message.index),
                Part::Number => put(out, message.number),
                Part::SentUs => put(out, message.sent_us),
            }
        }
    }
}

fn put(out: &mut String, value: impl std::fmt::Display) {
    write!(out, "{value}").expect("a string takes all");
}

/// What a value is now, and how it is written.
#[derive(Clone, Debug)]
pub enum Reading {
    Number(f64, u8),
    Text(Arc<str>),
}

impl Reading {
    fn put(&self, out: &mut String) {
        match self {
            Self::Number(number, decimals) => {
                write!(out, "{number:.*}", usize::from(*decimals)).expect("a string takes all");
            }
            Self::Text(text) => out.push_str(text),
        }
    }

    /// The value as a number; a text that is none counts as 0.
    pub fn number(&self) -> f64 {
        match self {
            Self::Number(number, _) => *number,
            Self::Text(text) => text.parse().unwrap_or(0.0),
        }
    }
}

/// The generators of a fleet, shared by its devices.
pub struct Models {
    models: Vec<Model>,
    /// The index of the value that fails.
    failure: Option<(usize, Failure)>,
}

enum Model {
    Walk { start: f64, step: f64, min: f64, max: f64, decimals: u8 },
    Daily { mean: f64, amplitude: f64, noise: f64, peak_us: f64, decimals: u8 },
    Column(Vec<Arc<str>>),
}

/// Where one device's generators are.
pub struct Sensors {
    random: fastrand::Rng,
    /// Of each model: what a walk has come to, or the row of a column.
    states: Box<[f64]>,
    fails: bool,
}

impl Models {
    /// Reads the files that the fleet's values name.
    pub fn new(fleet: &Fleet) -> anyhow::Result<Self> {
        let models = fleet.values.values().map(Model::new).collect::<anyhow::Result<_>>()?;
        let failure = fleet.failure.clone();
        let failure = failure.and_then(|f| Some((fleet.values.keys().position(|name| *name == f.field)?, f)));
        Ok(Self { models, failure })
    }

    /// The generators of one device at their start.
    pub fn sensors(&self, mut random: fastrand::Rng) -> Sensors {
        let fails = self.failure.as_ref().is_some_and(|(_, failure)| random.f64() < failure.share);
        let start = |model: &Model| match model {
            Model::Walk { start, .. } => *start,
            Model::Daily { .. } => 0.0,
            Model::Column(rows) => (random.f64() * rows.len() as f64).floor(),
        };
        let states = self.models.iter().map(start).collect();
        Sensors { random, states, fails }
    }

    /// Measures everything at `time_us` of the devices' own time, since the start of the run.
    pub fn measure(&self, sensors: &mut Sensors, time_us: u64) -> Vec<Reading> {
        let time_us = time_us as f64;
        let Sensors { random, states, fails } = sensors;
        let each = self.models.iter().zip(states.iter_mut());
        let mut readings: Vec<Reading> = each.map(|(model, state)| model.next(state, random, time_us)).collect();
        if let Some((index, failure)) = self.failure.as_ref().filter(|_| *fails)
            && let Reading::Number(number, _) = &mut readings[*index]
            && time_us >= failure.after.us() as f64
        {
            let hours = (time_us - failure.after.us() as f64) / HOUR_US;
            *number = failure.stuck_at.unwrap_or(*number + failure.drift_per_hour * hours);
        }
        readings
    }
}

impl Model {
    fn new(value: &Value) -> anyhow::Result<Self> {
        Ok(match value.clone() {
            Value::Walk { start, step, min, max, decimals } => Self::Walk { start, step, min, max, decimals },
            Value::Daily { mean, amplitude, noise, peak, decimals } => {
                Self::Daily { mean, amplitude, noise, peak_us: peak.us() as f64, decimals }
            }
            Value::Csv { file, column } => {
                let mut reader = csv::Reader::from_path(&file).with_context(|| file.display().to_string())?;
                let at = reader.headers()?.iter().position(|name| name == column);
                let at = at.with_context(|| format!("{} has no column {column:?}", file.display()))?;
                let mut rows = Vec::new();
                for row in reader.records() {
                    rows.push(Arc::from(row?.get(at).unwrap_or_default()));
                    ensure!(rows.len() <= ROWS_MAX, "rows of {} must be from 1 to {ROWS_MAX}", file.display());
                }
                ensure!(!rows.is_empty(), "rows of {} must be from 1 to {ROWS_MAX}, but are 0", file.display());
                Self::Column(rows)
            }
        })
    }

    fn next(&self, state: &mut f64, random: &mut fastrand::Rng, time_us: f64) -> Reading {
        let mut either_way = || random.f64() * 2.0 - 1.0;
        match self {
            Self::Walk { step, min, max, decimals, .. } => {
                *state = (*state + step * either_way()).clamp(*min, *max);
                Reading::Number(*state, *decimals)
            }
            Self::Daily { mean, amplitude, noise, peak_us, decimals } => {
                let turn = (time_us - peak_us) / DAY_US * std::f64::consts::TAU;
                Reading::Number(mean + amplitude * turn.cos() + noise * either_way(), *decimals)
            }
            Self::Column(rows) => {
                let row = *state as usize % rows.len();
                *state = (row + 1) as f64;
                Reading::Text(rows[row].clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    fn walk(start: f64) -> Value {
        Value::Walk { start, step: 0.5, min: 0.0, max: 40.0, decimals: 2 }
    }

    #[test]
    fn gaps_of_a_json_payload_are_filled_and_its_braces_kept() {
        let values = BTreeMap::from([("celsius".to_owned(), walk(20.0))]);
        let text = r#"{"d": "{device}", "v": {"c": {celsius}}, "n": {n}, "at": {sent_us}, "i": {i}, "empty": {}}"#;
        let template = Template::new(text, &values).expect("known names");
        let readings = [Reading::Number(20.126, 2)];
        let message = Message { device: "d-7", index: 7, number: 3, sent_us: 99, readings: &readings };
        let mut out = String::new();
        template.put(&message, &mut out);
        assert_eq!(out, r#"{"d": "d-7", "v": {"c": 20.13}, "n": 3, "at": 99, "i": 7, "empty": {}}"#);
        assert_eq!(Template::new("{nobody}", &values).map(|_| ()), Err("nobody".to_owned()));
    }

    fn models(value: Value, failure: Option<Failure>) -> Models {
        let failure = failure.map(|failure| (0, failure));
        Models { models: vec![Model::new(&value).expect("valid")], failure }
    }

    #[test]
    fn a_walk_keeps_its_bounds_and_its_steps_and_a_seed_repeats_it() {
        let models = models(walk(39.9), None);
        let run = |seed| {
            let mut sensors = models.sensors(random(seed, 0, 1));
            (0..500).map(|_| models.measure(&mut sensors, 0)[0].number()).collect::<Vec<_>>()
        };
        let walked = run(1);
        assert!(walked.iter().all(|value| (0.0..=40.0).contains(value)));
        assert!(walked.windows(2).all(|pair| (pair[0] - pair[1]).abs() <= 0.5));
        assert_eq!((run(1) == walked, run(2) == walked), (true, false));
    }

    #[test]
    fn a_day_has_its_highest_value_at_its_peak() {
        let peak = Span::from_secs(14 * 3_600);
        let models = models(Value::Daily { mean: 10.0, amplitude: 5.0, noise: 0.0, peak, decimals: 1 }, None);
        let mut sensors = models.sensors(random(1, 0, 0));
        let mut at = |hours: u64| models.measure(&mut sensors, hours * 3_600_000_000)[0].number();
        assert!((at(14) - 15.0).abs() < 1e-9 && (at(2) - 5.0).abs() < 1e-9 && (at(38) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_share_of_the_devices_fails_after_a_while() {
        let failure = Failure {
            share: 0.3,
            after: Span::from_secs(3_600),
            field: "v".into(),
            drift_per_hour: 0.0,
            stuck_at: Some(-1.0),
        };
        let models = models(walk(20.0), Some(failure));
        let failing = |time_us| {
            let is_stuck = |device: &u32| {
                let mut sensors = models.sensors(random(5, 0, *device));
                models.measure(&mut sensors, time_us)[0].number() < 0.0
            };
            (0..1_000).filter(is_stuck).count()
        };
        assert_eq!(failing(3_599_000_000), 0);
        let failed = failing(3_600_000_000);
        assert!((240..360).contains(&failed), "{failed} of 1,000 failed, 300 should");
    }

    #[test]
    fn rows_of_a_file_are_replayed_as_they_are_written() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("rows.csv");
        std::fs::write(&file, "time,kwh\n1,0.50\n2,0.75\n")?;
        let models = models(Value::Csv { file: file.clone(), column: "kwh".into() }, None);
        let mut sensors = models.sensors(random(1, 0, 0));
        let mut seen = String::new();
        (0..4).for_each(|_| models.measure(&mut sensors, 0)[0].put(&mut seen));
        assert!(["0.500.750.500.75", "0.750.500.750.50"].contains(&seen.as_str()), "{seen}");
        let missing = Model::new(&Value::Csv { file, column: "volt".into() }).map(|_| ());
        assert!(missing.is_err_and(|error| error.to_string().contains("no column \"volt\"")));
        Ok(())
    }
}
