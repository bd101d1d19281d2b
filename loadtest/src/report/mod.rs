//! What a run leaves: figures, judgement, curves; as JSON, JUnit and a page.

pub mod compare;
mod html;
mod junit;
mod plot;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::books::ConsumerVerdict;
use crate::controller::Gathered;
use crate::metrics::{METRICS, Unit};
use crate::scenario::Scenario;
use crate::series::Point;
use crate::tally::Latency;
use crate::threshold::Outcome;

/// Quantiles of the latency curves.
const QUANTILES: [f64; 12] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];

/// One run, told to others. The JSON of it is what `compare` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub title: String,
    pub shows: String,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    pub target: String,
    pub seed: u64,
    pub workers: u64,
    /// By the names of `metrics::METRICS`, in base units.
    pub metrics: BTreeMap<String, f64>,
    /// And bounds.
    pub thresholds: Vec<Outcome>,
    pub ledger: Vec<ConsumerVerdict>,
    pub errors: BTreeMap<String, u64>,
    /// What chaos has done, in words.
    pub faults: Vec<String>,
    /// Quantile and seconds.
    pub ack_quantiles: Vec<(f64, f64)>,
    pub end_to_end_quantiles: Vec<(f64, f64)>,
    pub points: Vec<Point>,
}

impl Report {
    /// Judges what was gathered.
    pub fn new(scenario: &Scenario, gathered: &Gathered, workers: u64, ledger: Vec<ConsumerVerdict>) -> Self {
        let series = &gathered.series;
        let mut metrics = series.metrics(scenario.devices(), &scenario.storms);
        if scenario.ledger {
            let sum = |count: fn(&ConsumerVerdict) -> u64| ledger.iter().map(count).sum::<u64>() as f64;
            let doubled = |verdict: &ConsumerVerdict| if verdict.exactly_once { verdict.doubled } else { 0 };
            metrics.insert("ledger_lost".to_owned(), sum(|verdict| verdict.lost));
            metrics.insert("ledger_doubled".to_owned(), sum(doubled));
            metrics.insert("ledger_reordered".to_owned(), sum(|verdict| verdict.reordered));
            metrics.insert("ledger_unexpected".to_owned(), sum(|verdict| verdict.unexpected));
            metrics.insert("ledger_misversioned".to_owned(), sum(|verdict| verdict.misversioned));
        }
        let first = scenario.fleets.first().map(|fleet| scenario.target.authority(fleet));
        let quantiles = |latency: &Latency| {
            QUANTILES.iter().filter_map(|quantile| Some((*quantile, latency.quantile(*quantile)?))).collect()
        };
        let highest = |bound: usize| series.highest.get(bound).copied().flatten();
        let bounds = scenario.bounds.iter().enumerate().map(|(index, bound)| bound.judge(highest(index)));
        Self {
            title: scenario.title.clone(),
            shows: scenario.shows.trim().to_owned(),
            started_ms: gathered.start_unix_us / 1_000,
            target: first.unwrap_or_default(),
            seed: scenario.seed,
            workers,
            thresholds: scenario.thresholds.iter().map(|threshold| threshold.judge(&metrics)).chain(bounds).collect(),
            metrics,
            ledger,
            errors: series.errors.clone(),
            faults: Vec::new(),
            ack_quantiles: quantiles(&series.ack),
            end_to_end_quantiles: quantiles(&series.end_to_end),
            points: series.points.clone(),
        }
    }

    /// Whether every threshold is met, every bound holds, and the ledger is clean.
    pub fn passes(&self) -> bool {
        self.thresholds.iter().all(|outcome| outcome.is_met) && self.ledger.iter().all(ConsumerVerdict::is_kept)
    }

    /// Writes `report.html`, `report.json` and `junit.xml` into a folder.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let put = |name: &str, text: String| {
            let file = folder.join(name);
            std::fs::write(&file, text).with_context(|| file.display().to_string())
        };
        put("report.json", serde_json::to_string_pretty(self)?)?;
        put("junit.xml", junit::page(self))?;
        put("report.html", html::page(self))
    }

    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report of drover-load", file.display()))
    }

    /// The metrics there are, as people read them: name, value, meaning.
    fn shown(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> + '_ {
        let value = |name: &str, unit: Unit| Some(unit.show(*self.metrics.get(name)?));
        METRICS.iter().filter_map(move |&(name, unit, meaning)| Some((name, value(name, unit)?, meaning)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} at {}", self.title, self.target)?;
        for (name, value, _) in self.shown() {
            writeln!(f, "  {name:32} {value}")?;
        }
        for (error, count) in &self.errors {
            writeln!(f, "  {count} × {error}")?;
        }
        for verdict in &self.ledger {
            let word = if verdict.is_kept() { "clean" } else { "BROKEN" };
            writeln!(f, "ledger {}: {word}: {}", verdict.consumer, verdict.statement)?;
        }
        for outcome in &self.thresholds {
            let word = if outcome.is_met { "met   " } else { "FAILED" };
            writeln!(f, "{word} {} ({})", outcome.threshold, outcome.measured)?;
        }
        Ok(())
    }
}

/// Text as HTML and XML have it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run of two seconds with a failed threshold.
    pub fn report() -> Report {
        let point = |second, p99| Point { second, connected: 10, ack_p99: Some(p99), ..Point::default() };
        Report {
            title: "a <run> & more".into(),
            shows: "what it shows".into(),
            started_ms: 0,
            target: "127.0.0.1:1883".into(),
            seed: 1,
            workers: 2,
            metrics: [("ack_p99".to_owned(), 0.05), ("due".to_owned(), 20.0)].into(),
            thresholds: vec![
                Outcome { threshold: "ack_p99 < 1ms".into(), is_met: false, measured: "50.0 ms".into() },
                Outcome { threshold: "due > 0".into(), is_met: true, measured: "20".into() },
            ],
            ledger: Vec::new(),
            errors: [("connection <closed>".to_owned(), 3)].into(),
            faults: Vec::new(),
            ack_quantiles: vec![(0.5, 0.01), (1.0, 0.05)],
            end_to_end_quantiles: Vec::new(),
            points: vec![point(0, 0.01), point(1, 0.05)],
        }
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() -> anyhow::Result<()> {
        let (report, folder) = (report(), tempfile::tempdir()?);
        report.write(folder.path())?;
        let read = Report::read(&folder.path().join("report.json"))?;
        assert_eq!((read.to_string(), read.passes()), (report.to_string(), false));
        assert!(report.to_string().contains("FAILED ack_p99 < 1ms (50.0 ms)"));
        Ok(())
    }

    #[test]
    fn junit_has_a_case_for_each_threshold_and_the_page_no_text_that_is_markup() {
        let (xml, html) = (junit::page(&report()), html::page(&report()));
        assert!(xml.contains(r#"tests="2" failures="1""#) && xml.contains("ack_p99 &lt; 1ms"), "{xml}");
        for page in [&xml, &html] {
            assert!(page.contains("a &lt;run&gt; &amp; more") && !page.contains("<closed>"));
        }
        assert!(html.contains("<svg") && html.contains("prefers-color-scheme: dark") && !html.contains("http://"));
    }
}
