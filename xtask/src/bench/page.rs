//! `cargo xtask bench page`: measures everything that this machine can, and writes it down with the machine and its
//! conditions: docs/benchmarks.md, and drawings in docs/benchmarks.
//!
//! A measurement that fails or cannot be made here is named with its reason, and the others go on. Each chapter is written
//! down when it is measured.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::chart::short;
use super::generator::{Generator, HOLD_SECONDS};
use super::machine;
use super::mqtt::{self, CLIENTS, Cost, Idle, LOADS, PAYLOAD, WAVES};
use super::server::{LIKE_BROKERS, MOSQUITTO, PORT_OFFSET, SETTLE, Server, mosquitto_version, pause};
use super::sheet::Page;
use crate::whole::printed;

/// What else may run side by side, where `--peer` says how.
const PEERS: [&str; 6] = ["mosquitto", "rumqttd", "rmqtt", "mochi", "aedes", "HiveMQ CE"];
const PEER_COLUMNS: [&str; 6] = ["Broker", "What", "Cost to the server", "Messages/s", "Ack p50", "Ack p99"];
/// Idle connections beside which a message is measured.
const CONNECTIONS: [usize; 4] = [0, 1_000, 4_000, 16_000];
/// Rules that match none of the messages; a tenant has 1,000 at most.
const RULES: [usize; 4] = [0, 10, 100, 1_000];
/// Longest measurement beside idle connections, which are there for a part of the time that they are held.
const LOAD_SECONDS_MAX: u64 = HOLD_SECONDS / 2;
/// Scenarios, and by what their fleets are multiplied.
const SCENARIOS: [&str; 2] = ["shadow", "storm:0.1"];

#[derive(Args)]
pub struct Options {
    /// Another broker, best with its version, and `{port}` where it listens: 'aedes 0.51=node aedes.js {port}'.
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// A scenario of loadtest/scenarios, in place of shadow and storm:0.1.
    #[arg(long, value_name = "NAME[:SCALE]")]
    scenario: Vec<String>,
    /// What `cargo xtask costs` has printed; its figures are taken in.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
    /// What `cargo xtask bench connections` has printed; its figures are taken in.
    #[arg(long, value_name = "FILE")]
    connections: Option<PathBuf>,
    /// What `cargo xtask bench ingress` has printed; its figures are taken in.
    #[arg(long, value_name = "FILE")]
    ingress: Option<PathBuf>,
}

/// Where and how long is measured.
struct Bench<'a> {
    root: &'a Path,
    binaries: &'a Path,
    seconds: u64,
    runs: usize,
    /// Data of the servers under test.
    folder: PathBuf,
}

impl Bench<'_> {
    /// `drover up` on new data.
    fn drover(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        }
        Server::drover(self.binaries, &self.folder, arguments)
    }

    /// The medians of as many runs as are asked for.
    fn cost(&self, load: usize, server: &Server) -> anyhow::Result<Cost> {
        let generator = Generator::new(self.binaries, server);
        let runs = (0..self.runs).map(|_| mqtt::cost(&LOADS[load], server, &generator, self.seconds));
        let runs: Vec<Cost> = runs.collect::<anyhow::Result<_>>()?;
        let of = |figure: fn(&Cost) -> f64| median(runs.iter().map(figure).collect());
        Ok(Cost {
            cpu_us: of(|cost| cost.cpu_us),
            rate: of(|cost| cost.rate),
            p50_us: of(|cost| cost.p50_us),
            p99_us: of(|cost| cost.p99_us),
        })
    }
}

/// The middle one; of an even number the upper of both.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures and writes.
pub fn write(root: &Path, binaries: &Path, all: &super::Options, options: &Options) -> anyhow::Result<()> {
    ensure!(all.runs > 0, "--runs must be at least 1, but is 0");
    let load_seconds = all.seconds.saturating_mul(all.runs as u64);
    ensure!(
        load_seconds <= LOAD_SECONDS_MAX,
        "--seconds times --runs must be at most {LOAD_SECONDS_MAX}, but is {load_seconds}"
    );
    let others = others(options)?;
    let of_costs = figures(options.costs.as_deref(), "costs: ")?;
    let of_connections = figures(options.connections.as_deref(), "connections: ")?;
    let of_ingress = figures(options.ingress.as_deref(), "scaling: ")?;
    let folder = std::env::temp_dir().join(format!("drover-bench-page-{}", std::process::id()));
    let bench = Bench { root, binaries, seconds: all.seconds, runs: all.runs, folder };
    let mut page = Page::default();
    let chapters: [&dyn Fn(&mut Page); 8] = [
        &|page| head(&bench, page),
        &|page| peers(&bench, &others, page),
        &|page| connections(&bench, page),
        &|page| processes(&of_connections, page),
        &|page| ingress(&of_ingress, page),
        &|page| rules(&bench, page),
        &|page| scenarios(&bench, options, page),
        &|page| costs(&of_costs, page),
    ];
    for (written, chapter) in (1..).zip(chapters) {
        chapter(&mut page);
        save(root, &page, chapters.len() - written)?;
    }
    if bench.folder.exists() {
        fs::remove_dir_all(&bench.folder)?;
    }
    println!("wrote docs/benchmarks.md with {} drawings", page.charts.len());
    Ok(())
}

/// Writes down what there is, so that a run that is ended keeps it; `left` chapters are still to come.
fn save(root: &Path, page: &Page, left: usize) -> anyhow::Result<()> {
    let (file, charts) = (root.join("docs/benchmarks.md"), root.join("docs/benchmarks"));
    fs::create_dir_all(&charts)?;
    for (name, svg) in &page.charts {
        fs::write(charts.join(name), svg)?;
    }
    fs::write(&file, page.with_missing(left)).with_context(|| file.display().to_string())
}

fn head(bench: &Bench<'_>, page: &mut Page) {
    page.line("# Benchmarks\n");
    page.line("Made by `cargo xtask bench page`, which measures what the machine it runs on can and writes this page; figures of other machines");
    page.line("are other figures. Generator and server share the machine, so rates are those of their competition; processor time and memory");
    page.line("are the server's own, read from `/proc`, and disturbed less. Messages are acknowledged when they are durable (QoS 1), by servers");
    page.line("as they come: a peer that answers before it has written anything does less.");
    let mut facts = machine::facts(bench.root);
    facts.extend(mosquitto_version().map(|version| ("mosquitto", version)));
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    page.table(&["Condition", ""], &rows);
    let version = machine::said(&bench.binaries.join("drover").display().to_string(), &["--version"]);
    page.line(&format!(
        "\n{version}, release build. {CLIENTS} clients publish {PAYLOAD} bytes each for {} s; figures are medians of {} runs.",
        bench.seconds, bench.runs
    ));
}

/// Drover and whoever else is here, side by side.
fn peers(bench: &Bench<'_>, others: &[(String, String)], page: &mut Page) {
    page.line("\n## Brokers side by side");
    let (mut rows, mut costs, mut idles) = (Vec::new(), Vec::new(), Vec::new());
    let mut measure = |name: &str, server: anyhow::Result<Option<Server>>, page: &mut Page| {
        let Some(server) = page.or_missing(name, server.and_then(|server| server.context("is not installed here")))
        else {
            return;
        };
        let idle = mqtt::idle(&server, &Generator::new(bench.binaries, &server), WAVES);
        if let Some(Idle { bytes, connect_us }) = page.or_missing(&format!("{name}, idle"), idle) {
            let (bytes_told, connect_told) = (format!("{bytes:.0} B"), format!("{} µs", short(connect_us)));
            for (what, told) in [("idle connection", bytes_told), ("connect", connect_told)] {
                let mut cells = vec![name.to_owned(), what.to_owned(), told];
                cells.resize(PEER_COLUMNS.len(), String::new());
                rows.push(cells);
            }
            idles.push((name.to_owned(), bytes));
        }
        for (number, load) in LOADS.iter().enumerate() {
            let Some(cost) = page.or_missing(&format!("{name}, {}", load.name), bench.cost(number, &server)) else {
                continue;
            };
            rows.push(row(name, load.name, &cost));
            if number == 0 {
                costs.push((name.to_owned(), cost.cpu_us));
            }
        }
    };
    measure("drover", bench.drover(&LIKE_BROKERS).map(Some), page);
    for (name, command) in others {
        measure(name, Server::peer(command), page);
    }
    page.table(&PEER_COLUMNS, &rows);
    page.chart("peers-cpu", "Processor time of a message, QoS 1, window 10", "µs", &costs);
    page.chart("peers-memory", "Memory of an idle connection", "bytes", &idles);
    let left = left(others);
    if !left.is_empty() {
        page.missing.push(format!("{}: no command given (`--peer NAME=COMMAND`)", left.join(", ")));
    }
}

/// Which of the known peers are not among those measured, whose names may have a version behind them.
fn left(others: &[(String, String)]) -> Vec<&'static str> {
    PEERS.into_iter().filter(|peer| !others.iter().any(|(name, _)| name.starts_with(peer))).collect()
}

fn row(name: &str, what: &str, cost: &Cost) -> Vec<String> {
    let latency = |us: f64| if us > 0.0 { format!("{} ms", short(us / 1e3)) } else { String::new() };
    let cpu = format!("{} µs", short(cost.cpu_us));
    vec![name.to_owned(), what.to_owned(), cpu, format!("{:.0}", cost.rate), latency(cost.p50_us), latency(cost.p99_us)]
}

/// What a message costs beside idle connections.
fn connections(bench: &Bench<'_>, page: &mut Page) {
    page.line("\n## From few connections to many");
    page.line("\nDrover, QoS 1, window 10, beside connections that are idle.");
    let measure = |idle: usize| {
        let server = bench.drover(&LIKE_BROKERS)?;
        let _wave = if idle > 0 { Some(Generator::new(bench.binaries, &server).wave(&server, 1, idle)?) } else { None };
        anyhow::Ok((server.resident_mib()?, bench.cost(0, &server)?))
    };
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for idle in CONNECTIONS {
        let name = format!("{idle} idle");
        if let Some((memory, cost)) = page.or_missing(&format!("{name} connections"), measure(idle)) {
            rows.push(row(&name, &format!("{memory:.0} MiB"), &cost));
            values.push((name, cost.cpu_us));
        }
    }
    page.table(&["Connections", "Memory before", "Cost of a message", "Messages/s", "Ack p50", "Ack p99"], &rows);
    page.chart("connections-cpu", "Processor time of a message by idle connections", "µs", &values);
}

/// Connections at several processes, as `cargo xtask bench connections` has printed them.
fn processes(figures: &[String], page: &mut Page) {
    if figures.is_empty() {
        let [.., most] = CONNECTIONS;
        page.missing.push(format!(
            "more than {most} connections, which need several processes: `cargo xtask bench connections >FILE`, then \
             `--connections FILE`"
        ));
        return;
    }
    page.line("\nOf `cargo xtask bench connections`, over several ingress processes, with Kafka and Cassandra:\n");
    figures.iter().for_each(|figure| page.line(&format!("- {figure}")));
}

/// Ingress processes, as `cargo xtask bench ingress` has printed them.
fn ingress(figures: &[String], page: &mut Page) {
    if figures.is_empty() {
        let asked = "one to four ingress processes: `cargo xtask bench ingress >FILE`, then `--ingress FILE`";
        page.missing.push(asked.to_owned());
        return;
    }
    page.line("\n## From one ingress process to four");
    page.line("\nOf `cargo xtask bench ingress`: the same clients, QoS 1, window 10, shared among the processes.\n");
    figures.iter().for_each(|figure| page.line(&format!("- {figure}")));
}

/// What a message costs beside rules that do not match it.
fn rules(bench: &Bench<'_>, page: &mut Page) {
    page.line("\n## From no rule to many");
    page.line("\n`drover up` as a whole, QoS 1, window 10, with rules that look for other topics.");
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for count in RULES {
        let measured = bench.drover(&[]).and_then(|server| {
            apply(bench, count)?;
            pause(SETTLE);
            bench.cost(0, &server)
        });
        let name = format!("{count} rules");
        if let Some(cost) = page.or_missing(&name, measured) {
            rows.push(row(&name, LOADS[0].name, &cost));
            values.push((name, cost.cpu_us));
        }
    }
    page.table(&["Rules", "What", "Cost of a message", "Messages/s", "Ack p50", "Ack p99"], &rows);
    page.chart("rules-cpu", "Processor time of a message by rules", "µs", &values);
    page.missing.push("10,000 rules: a tenant has 1,000 at most; `cargo bench -p drover-rules` has them".to_owned());
}

/// Applies so many rules.
fn apply(bench: &Bench<'_>, count: usize) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut text = String::new();
    for number in 0..count {
        write!(
            text,
            "---\napiVersion: drover.dev/v1alpha1\nkind: Rule\nmetadata:\n  name: other-{number}\nspec:\n  sql: SELECT value FROM \
             'plants/{number}/+'\n  actions:\n    - republish: {{topic: \"alerts/{number}\", qos: 1}}\n"
        )?;
    }
    let file = bench.folder.join("bench-rules.yaml");
    fs::write(&file, text)?;
    let mut command = Command::new(bench.binaries.join("drover"));
    command.args(["rule", "apply", "-f"]).arg(&file);
    command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", 8080 + PORT_OFFSET));
    command.env("DROVER_TOKEN_FILE", bench.folder.join("admin.token"));
    let output = command.output()?;
    ensure!(output.status.success(), "drover rule apply: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Scenarios against `drover up`.
fn scenarios(bench: &Bench<'_>, options: &Options, page: &mut Page) {
    page.line("\n## Scenarios");
    page.line("\n`drover up` as a whole under `loadtest/scenarios`, which say what they show; latencies are those of an open loop.");
    let named: Vec<&str> = options.scenario.iter().map(String::as_str).collect();
    let chosen = if named.is_empty() { SCENARIOS.to_vec() } else { named };
    let mut rows = Vec::new();
    for scenario in chosen {
        if let Some(report) = page.or_missing(&format!("scenario {scenario}"), play(bench, scenario)) {
            rows.push(told(scenario, &report));
        }
    }
    page.table(
        &["Scenario", "Acknowledged/s", "Ack p50", "Ack p99", "Connect p99", "Server memory", "Thresholds met"],
        &rows,
    );
}

/// Runs a scenario; its report.
fn play(bench: &Bench<'_>, scenario: &str) -> anyhow::Result<Value> {
    let (name, scale) = scenario.split_once(':').unwrap_or((scenario, "1"));
    let file = bench.root.join("loadtest/scenarios").join(format!("{name}.toml"));
    let _server = bench.drover(&[])?;
    let out = bench.folder.join("load-report");
    let mut command = Command::new(bench.binaries.join("drover-load"));
    command.arg("run").arg(&file).args(["--quiet", "--scale", scale, "--out"]).arg(&out);
    command.args(["--target", &format!("127.0.0.1:{}", 1883 + PORT_OFFSET)]);
    command.args(["--metrics", &format!("http://127.0.0.1:{}/metrics", 9464 + PORT_OFFSET)]);
    let output = command.output()?;
    // 1 is a threshold that was not met, which the table says.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("drover-load ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let report = fs::read_to_string(out.join("report.json"))
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr).trim_end()))?;
    Ok(serde_json::from_str(&report)?)
}

/// A row of a report.
fn told(scenario: &str, report: &Value) -> Vec<String> {
    let number = |name: &str| report["metrics"][name].as_f64();
    let ms = |name: &str| number(name).map_or(String::new(), |seconds| format!("{} ms", short(seconds * 1e3)));
    let mib = number("server_memory_max").map_or(String::new(), |bytes| format!("{:.0} MiB", bytes / 1024.0 / 1024.0));
    let thresholds = report["thresholds"].as_array().map_or(&[][..], Vec::as_slice);
    let met = thresholds.iter().filter(|threshold| threshold["is_met"] == true).count();
    vec![
        scenario.to_owned(),
        number("publish_rate").map_or(String::new(), |rate| format!("{rate:.0}")),
        ms("ack_p50"),
        ms("ack_p99"),
        ms("connect_p99"),
        mib,
        format!("{met} of {}", thresholds.len()),
    ]
}

/// The brokers beside Drover: names and commands.
fn others(options: &Options) -> anyhow::Result<Vec<(String, String)>> {
    let mut others = vec![("mosquitto".to_owned(), MOSQUITTO.to_owned())];
    for peer in &options.peer {
        let (name, command) = peer.split_once('=').context("--peer is NAME=COMMAND")?;
        ensure!(command.contains("{port}"), "--peer {name} must have {{port}} in its command, but is {command:?}");
        others.push((name.to_owned(), command.to_owned()));
    }
    Ok(others)
}

/// Figures that another task has printed into a file, each in a line that begins with `mark`.
fn figures(file: Option<&Path>, mark: &str) -> anyhow::Result<Vec<String>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().filter_map(|line| printed(line).strip_prefix(mark));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(!lines.is_empty(), "{} has no line that begins with {mark:?}", file.display());
    Ok(lines)
}

/// The way to a rule's output, as `cargo xtask costs` has printed it.
fn costs(figures: &[String], page: &mut Page) {
    page.missing.push("costs by 1,000 to 1,000,000 devices: no such measurement yet".to_owned());
    if figures.is_empty() {
        page.missing.push(
            "the way to a rule's output, in one process and with Kafka: `cargo xtask costs >FILE`, then `--costs FILE`"
                .to_owned(),
        );
        return;
    }
    page.line("\n## From a publish to a rule's output");
    page.line("\nOf `cargo xtask costs`; a message counts when a consumer of committed records has its output.\n");
    for figure in figures {
        page.line(&format!("- {figure}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_row_and_what_it_lacks_is_empty() {
        let report = serde_json::json!({
            "metrics": {"publish_rate": 99.6, "ack_p50": 0.0021, "server_memory_max": 104_857_600.0},
            "thresholds": [{"is_met": true}, {"is_met": false}],
        });
        assert_eq!(told("shadow", &report), ["shadow", "100", "2.10 ms", "", "", "100 MiB", "1 of 2"]);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn what_is_asked_for_wrongly_is_told_before_anything_is_measured() {
        let asked = |peer: &str| Options {
            peer: vec![peer.to_owned()],
            scenario: Vec::new(),
            costs: None,
            connections: None,
            ingress: None,
        };
        let told = others(&asked("x=x -p 1")).expect_err("no port").to_string();
        assert_eq!(told, "--peer x must have {port} in its command, but is \"x -p 1\"");
        let known = others(&asked("aedes 1.0=x -p {port}")).expect("valid");
        assert_eq!(known[1], ("aedes 1.0".to_owned(), "x -p {port}".to_owned()));
        assert_eq!(left(&known), ["rumqttd", "rmqtt", "mochi", "HiveMQ CE"]);
        let folder = std::env::temp_dir().join(format!("drover-costs-{}", std::process::id()));
        fs::write(&folder, "test a ... costs: one process: fast\nother\ncosts: kafka: slow\n").expect("written");
        let read = |mark: &str| figures(Some(&folder), mark);
        assert_eq!(read("costs: ").expect("readable"), ["one process: fast", "kafka: slow"]);
        let told = read("connections: ").expect_err("none").to_string();
        assert!(told.ends_with("has no line that begins with \"connections: \""), "{told}");
        assert!(figures(None, "costs: ").expect("nothing asked").is_empty());
        fs::remove_file(&folder).expect("removed");
    }

    #[test]
    fn the_ready_scenarios_are_there() {
        for scenario in SCENARIOS {
            let name = scenario.split(':').next().unwrap_or_default();
            let file = crate::root().join("loadtest/scenarios").join(format!("{name}.toml"));
            assert!(file.is_file(), "{}", file.display());
        }
    }
}
