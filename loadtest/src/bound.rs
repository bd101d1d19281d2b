//! What a gauge of the server may be at most: its queues have bounds, and a run shows whether they hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::threshold::Outcome;

/// One bound of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// As the server's page of metrics has it: `NAME`, or `NAME{LABEL="VALUE",…}`. Series that have these labels, and perhaps
    /// others, are added up.
    pub metric: String,
    /// In the unit of the metric.
    pub at_most: f64,
}

impl Bound {
    /// Whether the metric is written as it has to be.
    pub fn is_readable(&self) -> bool {
        Sample::read(&self.metric).is_some_and(|metric| metric.rest.is_empty())
    }

    /// The metric's value on a page in the format of Prometheus; `None`: it is not there.
    pub fn value(&self, page: &str) -> Option<f64> {
        let wanted = Sample::read(&self.metric)?;
        let values = page.lines().filter(|line| line.starts_with(wanted.name)).filter_map(|line| {
            let found = Sample::read(line)?;
            let is_it = found.name == wanted.name && wanted.labels.iter().all(|label| found.labels.contains(label));
            let value: f64 = found.rest.split_whitespace().next()?.parse().ok()?;
            (is_it && !value.is_nan()).then_some(value)
        });
        values.reduce(|sum, value| sum + value)
    }

    /// How it held; `highest` is the highest value seen, `None` if none was.
    pub fn judge(&self, highest: Option<f64>) -> Outcome {
        Outcome {
            threshold: self.to_string(),
            is_met: highest.is_some_and(|highest| highest <= self.at_most),
            measured: highest.map_or_else(|| "not measured".to_owned(), |highest| format!("highest {highest}")),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <= {}", self.metric, self.at_most)
    }
}

/// A line of such a page. Values of labels are as they are written there, with their backslashes.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    /// What stands behind: the value, and perhaps a time.
    rest: &'a str,
}

impl<'a> Sample<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let end = line.find(|c: char| !is_of_name(c)).unwrap_or(line.len());
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let end = closing_quote(after)?;
                labels.push((label.trim(), &after[..end]));
                let after = &after[end + 1..];
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = &rest[1..];
        }
        (!name.is_empty()).then_some(Self { name, labels, rest })
    }
}

/// Where the first quote without a backslash of its own is.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.find(|c: char| {
        let is_closing = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_closing
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# TYPE q gauge
q_max 90
q{queue="a",of="x} \" y"} 3 1795000000
q{queue="b"} 1.5
q{queue="c"} NaN
z 0
"#;

    fn bound(metric: &str, at_most: f64) -> Bound {
        Bound { metric: metric.to_owned(), at_most }
    }

    #[test]
    fn series_with_the_labels_that_are_named_are_added_up() {
        let value = |metric: &str| bound(metric, 0.0).value(PAGE);
        assert_eq!((value("q"), value("q{queue=\"a\"}"), value("q{queue=\"b\"}")), (Some(4.5), Some(3.0), Some(1.5)));
        assert_eq!((value("q{of=\"x} \\\" y\", queue=\"a\"}"), value("z")), (Some(3.0), Some(0.0)));
        for absent in ["q{queue=\"c\"}", "q{queue=\"d\"}", "q{kind=\"a\"}", "q_m", "y"] {
            assert_eq!(value(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_bound_holds_at_its_number_and_not_where_nothing_was_measured() {
        let judged = |highest| bound("q{queue=\"a\"}", 3.0).judge(highest);
        let at = judged(Some(3.0));
        assert_eq!((at.threshold, at.measured, at.is_met), ("q{queue=\"a\"} <= 3".into(), "highest 3".into(), true));
        assert!(!judged(Some(3.5)).is_met);
        let nothing = judged(None);
        assert_eq!((nothing.measured.as_str(), nothing.is_met), ("not measured", false));
    }

    #[test]
    fn what_is_no_metric_is_not_readable() {
        for (metric, is_readable) in
            [("q", true), ("q{a=\"b\"}", true), ("", false), ("q 1", false), ("q{a=b}", false), ("q{a=\"b\"", false)]
        {
            assert_eq!(bound(metric, 1.0).is_readable(), is_readable, "{metric}");
        }
    }
}
