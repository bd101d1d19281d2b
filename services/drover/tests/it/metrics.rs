//! Metrics: the dashboard and `docs/metrics.md` name those that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::process::Up;

/// Where metrics are registered: the part of the platform that is in their names, and the file.
const SOURCES: [(&str, &str); 14] = [
    ("bus", "crates/host/src/bus_metrics.rs"),
    ("gateway", "services/gateway/src/telemetry.rs"),
    ("ingress", "services/ingress/src/server/coap/telemetry.rs"),
    ("ingress", "services/ingress/src/server/http/telemetry.rs"),
    ("ingress", "services/ingress/src/telemetry.rs"),
    ("kafka", "crates/kafka-listener/src/metrics.rs"),
    ("network", "crates/host/src/remote.rs"),
    ("operator", "services/operator/src/telemetry.rs"),
    ("process", "crates/host/src/process.rs"),
    ("registry", "services/registry/src/telemetry.rs"),
    ("rules", "services/rules/src/telemetry.rs"),
    ("shadow", "services/shadow/src/telemetry.rs"),
    ("storage", "services/storage/src/telemetry.rs"),
    ("trace", "crates/host/src/collector.rs"),
];
/// Calls there whose first argument is a name, with the part in front or without.
const CALLS: [&str; 6] = ["register(", "register_with_unit(", "counter(", "add(", "gauge(", "encode_descriptor("];
/// What a registered name gets in front of its type: nothing, or the unit it was registered with.
const UNITS: [&str; 3] = ["", "_bytes", "_seconds"];
/// Fewest names in the sources and in the dashboard; with fewer they are not read as they are written.
const REGISTERED_MIN: usize = 80;
const DASHBOARD_MIN: usize = 30;

/// A file of the repository.
fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).expect(file)
}

/// Names in the sources, without units. A platform shows not all of them: one with labels only when it has counted
/// something, those of Kafka's client only without an embedded log.
fn registered() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (part, file) in SOURCES {
        let text = read(file);
        let arguments = CALLS.into_iter().flat_map(|call| text.split(call).skip(1));
        let literals = arguments.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
        names.extend(literals.map(|name| match name.starts_with("drover_") || name.starts_with("process_") {
            true => name.to_owned(),
            false => format!("drover_{part}_{name}"),
        }));
    }
    assert!(names.len() >= REGISTERED_MIN, "only {names:?}");
    names
}

/// Whether a name that is shown is this one.
fn is_shown_as(registered: &str, shown: &str) -> bool {
    shown.strip_prefix(registered).is_some_and(|unit| UNITS.contains(&unit))
}

/// Names that a new platform shows, and their types.
fn scraped() -> BTreeMap<String, String> {
    let up = Up::start(&["--ephemeral"]);
    let (_, text) = up.admin("/metrics");
    assert!(up.stop().success());
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// Names in the document, and their types; it has counters as queries want them.
fn documented() -> BTreeMap<String, String> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let metrics = rows.map(|(name, rest)| match rest.split(' ').next().unwrap_or_default() {
        "counter" => {
            let name = name.strip_suffix("_total").unwrap_or_else(|| panic!("counter {name} is shown as {name}_total"));
            (name.to_owned(), "counter".to_owned())
        }
        kind => (name.to_owned(), kind.to_owned()),
    });
    metrics.collect()
}

#[test]
fn the_document_names_exactly_the_metrics_that_exist() {
    let (documented, scraped, registered) = (documented(), scraped(), registered());
    let unnamed = registered.iter().filter(|name| !documented.keys().any(|shown| is_shown_as(name, shown)));
    let missing: BTreeSet<&String> =
        scraped.keys().filter(|name| !documented.contains_key(*name)).chain(unnamed).collect();
    let exists = |name: &String| scraped.contains_key(name) || registered.iter().any(|known| is_shown_as(known, name));
    let superfluous: Vec<&String> = documented.keys().filter(|name| !exists(name)).collect();
    assert!(
        missing.is_empty() && superfluous.is_empty(),
        "docs/metrics.md does not name {missing:?}; it names {superfluous:?}, which nobody registers"
    );
    for (name, kind) in &scraped {
        assert_eq!(&documented[name], kind, "the type of {name}");
    }
}

/// A word of PromQL that looks like the name of one of our metrics, without the suffix that a query adds.
fn metric(word: &str) -> Option<&str> {
    let ours = word.starts_with("drover_") || word.starts_with("process_");
    let suffix = ["_bucket", "_count", "_sum", "_total"].into_iter().find(|suffix| word.ends_with(suffix));
    ours.then(|| word.trim_end_matches(suffix.unwrap_or_default()))
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboards/drover.json")).expect("JSON");
    let (scraped, registered) = (scraped(), registered());
    let panels = dashboard["panels"].as_array().expect("panels");
    let expressions = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut named = 0;
    for expression in expressions.map(|target| target["expr"].as_str().expect("an expression")) {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter_map(metric) {
            let exists = scraped.contains_key(name) || registered.iter().any(|known| is_shown_as(known, name));
            assert!(exists, "{name} in {expression} is neither among {:?} nor registered", scraped.keys());
            named += 1;
        }
    }
    assert!(named >= DASHBOARD_MIN, "{named} names found: the panels are not read as they are written");
}
