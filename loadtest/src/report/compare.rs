//! Two runs side by side.

use std::fmt::Write as _;

use super::Report;
use crate::metrics::METRICS;

/// A table of every metric that one of them has: its values, and the second over the first.
pub fn table(first: &Report, second: &Report) -> String {
    let mut table = format!("{:32} {:>16} {:>16} {:>8}\n", "metric", first.title, second.title, "B / A");
    for (name, unit, _) in METRICS {
        let (a, b) = (first.metrics.get(*name), second.metrics.get(*name));
        if a.is_none() && b.is_none() {
            continue;
        }
        let shown = |value: Option<&f64>| value.map_or("–".to_owned(), |value| unit.show(*value));
        let ratio = a.zip(b).filter(|(a, _)| **a != 0.0).map_or(String::new(), |(a, b)| format!("{:.2}", b / a));
        writeln!(table, "{name:32} {:>16} {:>16} {ratio:>8}", shown(a), shown(b)).expect("a string takes all");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn metrics_of_two_runs_are_side_by_side_with_their_ratio() {
        let (first, mut second) = (report(), report());
        second.metrics.insert("ack_p99".into(), 0.1);
        second.metrics.remove("due");
        let table = table(&first, &second);
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert_eq!(
            row("ack_p99 ").split_whitespace().collect::<Vec<_>>(),
            ["ack_p99", "50.0", "ms", "100.0", "ms", "2.00"]
        );
        assert_eq!(row("due").split_whitespace().collect::<Vec<_>>(), ["due", "20", "–"]);
        assert_eq!(row("received"), "");
    }
}
