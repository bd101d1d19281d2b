//! What a scenario asks of its outcome: `ack_p99 < 50ms`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::metrics::{Unit, unit};
use crate::scenario::Span;

/// Units of sizes, in bytes.
const SIZES: [(&str, f64); 4] = [("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("B", 1.0)];

/// Longer ones first, or `<` would be found in `<=`.
const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtMost,
    AtLeast,
    Equal,
    Less,
    More,
}

/// One demand on a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    metric: String,
    comparison: Comparison,
    /// In the metric's base unit.
    limit: f64,
}

/// How a demand was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The demand as the scenario has it.
    pub threshold: String,
    pub is_met: bool,
    /// What was measured, with its unit; "not measured" where nothing was.
    pub measured: String,
}

/// Why a text is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoThreshold {
    #[error("threshold {0:?} must be METRIC COMPARISON VALUE with one of <, <=, ==, >=, >")]
    Form(String),
    #[error("threshold {text:?}: metric must be one of {known}, but is {metric:?}")]
    Metric { text: String, metric: String, known: String },
    #[error("threshold {text:?}: value must be {wanted}, but is {value:?}")]
    Value { text: String, wanted: &'static str, value: String },
}

impl Threshold {
    /// Whether `measured`, in base units, meets it.
    pub fn judge(&self, measured: &BTreeMap<String, f64>) -> Outcome {
        let value = measured.get(&self.metric).copied();
        let meets = |value: f64| match self.comparison {
            Comparison::AtMost => value <= self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Equal => (value - self.limit).abs() < f64::EPSILON,
            Comparison::Less => value < self.limit,
            Comparison::More => value > self.limit,
        };
        let shown = |value: f64| unit(&self.metric).unwrap_or(Unit::Count).show(value);
        Outcome {
            threshold: self.text.clone(),
            is_met: value.is_some_and(meets),
            measured: value.map_or_else(|| "not measured".to_owned(), shown),
        }
    }
}

impl FromStr for Threshold {
    type Err = NoThreshold;

    fn from_str(text: &str) -> Result<Self, NoThreshold> {
        let form = || NoThreshold::Form(text.to_owned());
        let found = COMPARISONS.iter().find_map(|(sign, comparison)| Some((text.split_once(*sign)?, *comparison)));
        let ((metric, value), comparison) = found.ok_or_else(form)?;
        let (metric, value) = (metric.trim(), value.trim());
        let unit = unit(metric).ok_or_else(|| NoThreshold::Metric {
            text: text.to_owned(),
            metric: metric.to_owned(),
            known: crate::metrics::names().join(", "),
        })?;
        let (limit, wanted) = match unit {
            Unit::Seconds => (value.parse::<Span>().ok().map(Span::seconds), "a time such as 50ms"),
            Unit::Bytes => (size(value), "a size such as 300B or 2GiB"),
            Unit::Count | Unit::PerSecond | Unit::Share | Unit::Cores => (value.parse().ok(), "a number"),
        };
        let limit = limit.filter(|limit: &f64| limit.is_finite());
        let limit =
            limit.ok_or_else(|| NoThreshold::Value { text: text.to_owned(), wanted, value: value.to_owned() })?;
        Ok(Self { text: text.to_owned(), metric: metric.to_owned(), comparison, limit })
    }
}

fn size(text: &str) -> Option<f64> {
    let (number, factor) = SIZES.iter().find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, *factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str, metric: &str, value: f64) -> bool {
        let threshold: Threshold = text.parse().expect("a threshold");
        threshold.judge(&BTreeMap::from([(metric.to_owned(), value)])).is_met
    }

    #[test]
    fn a_threshold_is_met_at_its_limit_only_where_it_says_so() {
        assert!(judge("ack_p99 <= 50ms", "ack_p99", 0.05) && !judge("ack_p99 < 50ms", "ack_p99", 0.05));
        assert!(judge("server_memory_max < 2GiB", "server_memory_max", 1e9));
        assert!(judge("acknowledged_share >= 0.999", "acknowledged_share", 1.0));
        assert!(judge("errors == 0", "errors", 0.0) && !judge("errors == 0", "errors", 1.0));
    }

    #[test]
    fn what_was_not_measured_does_not_pass() {
        let outcome = "ack_p99 < 1s".parse::<Threshold>().expect("valid").judge(&BTreeMap::new());
        assert_eq!((outcome.is_met, outcome.measured.as_str()), (false, "not measured"));
    }

    #[test]
    fn what_is_no_threshold_says_why() {
        let why = |text: &str| text.parse::<Threshold>().expect_err("wrong").to_string();
        assert!(why("ack_p99").contains("METRIC COMPARISON VALUE"));
        assert!(why("ack_p98 < 1s").contains("but is \"ack_p98\""));
        assert!(why("ack_p99 < 1").contains("a time such as 50ms, but is \"1\""));
        assert!(why("errors < many").contains("a number"));
    }
}
