//! A run for those who read tests: a case for each threshold and each consumer of the ledger.

use std::fmt::Write as _;

use super::{Report, escaped};

/// The page in the form that CI systems read (JUnit's XML).
pub fn page(report: &Report) -> String {
    let thresholds = report.thresholds.iter().map(|outcome| {
        (outcome.threshold.clone(), (!outcome.is_met).then(|| format!("measured: {}", outcome.measured)))
    });
    let consumers = report.ledger.iter().map(|verdict| {
        let failure = (!verdict.is_kept()).then(|| verdict.statement.clone());
        (format!("ledger of {}", verdict.consumer), failure)
    });
    let cases: Vec<(String, Option<String>)> = thresholds.chain(consumers).collect();
    let failures = cases.iter().filter(|(_, failure)| failure.is_some()).count();
    let suite = escaped(&report.title);
    let mut page = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failures}\">\n",
        cases.len()
    );
    for (name, failure) in cases {
        let name = escaped(&name);
        match failure {
            None => writeln!(page, "  <testcase classname=\"drover-load\" name=\"{name}\"/>"),
            Some(why) => writeln!(
                page,
                "  <testcase classname=\"drover-load\" name=\"{name}\"><failure message=\"{}\"/></testcase>",
                escaped(&why)
            ),
        }
        .expect("a string takes all");
    }
    page.push_str("</testsuite>\n");
    page
}
