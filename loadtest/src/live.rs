//! What is seen while a run goes on: a few lines drawn over and over in a terminal, else one line now and then.

use std::io::{IsTerminal as _, Write as _};

use crate::metrics::Unit;
use crate::scenario::Scenario;
use crate::series::Series;

/// Between two drawings in a terminal, and between two lines elsewhere, in microseconds.
const REDRAW_US: u64 = 500_000;
const LINE_US: u64 = 10_000_000;
/// Cells of the bar.
const BAR: u64 = 40;
/// Seconds that rates are averaged over.
const RATE_SECONDS: usize = 5;

/// The view of one run, on standard error.
pub struct Live {
    is_terminal: bool,
    is_quiet: bool,
    /// Lines drawn last, to be drawn over.
    drawn: usize,
    next_us: u64,
}

impl Live {
    /// A view that suits what standard error is; none at all if `is_quiet`.
    pub fn new(is_quiet: bool) -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), is_quiet, drawn: 0, next_us: 0 }
    }

    /// Shows where the run is at `now_us` of its time, if it is time to.
    pub fn show(&mut self, scenario: &Scenario, series: &Series, now_us: u64) {
        if self.is_quiet || now_us < self.next_us {
            return;
        }
        self.next_us = now_us + if self.is_terminal { REDRAW_US } else { LINE_US };
        let lines = lines(scenario, series, now_us);
        let mut err = std::io::stderr().lock();
        // A view that cannot be drawn is no reason to stop.
        if self.is_terminal {
            let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
            let text: String = lines.iter().map(|line| format!("\x1b[2K{line}\n")).collect();
            write!(err, "{up}{text}").ok();
            self.drawn = lines.len();
        } else {
            writeln!(err, "{}", lines[1..].join(" · ")).ok();
        }
    }
}

fn lines(scenario: &Scenario, series: &Series, now_us: u64) -> Vec<String> {
    let (ends_us, _) = scenario.ends_us();
    let done = (now_us.min(ends_us) * BAR / ends_us.max(1)) as usize;
    let bar = format!("{}{}", "█".repeat(done), "░".repeat(BAR as usize - done));
    let counts = &series.counts;
    let recent = &series.points[series.points.len().saturating_sub(RATE_SECONDS)..];
    let rate = recent.iter().map(|point| point.counts.acknowledged).sum::<u64>() as f64 / recent.len().max(1) as f64;
    let time = |value: Option<f64>| value.map_or("–".to_owned(), |value| Unit::Seconds.show(value));
    let mut lines = vec![
        format!("{bar} {} of {}", Unit::Seconds.show(now_us as f64 / 1e6), scenario.duration),
        format!("{}: {} of {} connected", scenario.title, series.connected_now(), scenario.devices()),
        format!("{} acknowledged ({rate:.0}/s), {} received", counts.acknowledged, counts.received),
        format!("ack p50 {}, p99 {}", time(series.ack.quantile(0.5)), time(series.ack.quantile(0.99))),
    ];
    let errors = series.errors.values().sum::<u64>();
    if errors > 0 {
        let most = series.errors.iter().max_by_key(|(_, count)| **count);
        lines.push(format!("{errors} errors, most: {}", most.map_or("", |(cause, _)| cause.as_str())));
    }
    lines
}
