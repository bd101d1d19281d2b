//! The page of a run: one file without anything from elsewhere, for a wide screen or a phone, light or dark.

use std::fmt::Write as _;

use super::plot::{Axes, Curve, Thin, plot};
use super::{Report, escaped};
use crate::metrics::Unit;
use crate::series::Point;

/// Labels of a time axis, about.
const TIME_LABELS: u64 = 6;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#5c6670;--line:#dde2e8;--back:#f6f8fa;--card:#fff;--good:#1f7a3d;\
--bad:#c22f2f;--c0:#2a6fdb;--c1:#d9480f;--c2:#2b8a3e}\
@media(prefers-color-scheme: dark){:root{--ink:#e6e9ed;--faint:#9aa4af;--line:#333b45;--back:#14181d;--card:#1d232a;\
--good:#69db7c;--bad:#ff8787;--c0:#74a9ff;--c1:#ffa94d;--c2:#69db7c}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.45 system-ui,sans-serif}\
main{max-width:1240px;margin:0 auto;padding:20px 16px 40px}h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:28px 0 10px}\
p{margin:6px 0;max-width:75ch}.faint{color:var(--faint)}.verdict{font-weight:600}.good{color:var(--good)}.bad{color:var(--bad)}\
.tiles,.plots{display:grid;gap:12px}.tiles{grid-template-columns:repeat(4,1fr)}\
.plots{grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr))}\
.tile,figure,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;margin:0;min-width:0}\
.tile b{display:block;font-size:1.35rem;font-weight:600;overflow-wrap:anywhere}.tile span{color:var(--faint);font-size:.85rem}\
figcaption{font-weight:600;display:flex;flex-wrap:wrap;gap:4px 14px;justify-content:space-between;margin-bottom:6px}\
.keys{display:flex;flex-wrap:wrap;gap:2px 12px;font-weight:400;font-size:.85rem}.key::before{content:'';display:inline-block;\
width:14px;height:3px;margin-right:5px;vertical-align:middle;background:currentColor}.k0{color:var(--c0)}.k1{color:var(--c1)}\
.k2{color:var(--c2)}svg{display:block;width:100%;height:auto}svg text{font-size:13px;fill:var(--faint)}.grid{stroke:var(--line)}\
path{fill:none;stroke-width:2;stroke-linejoin:round}.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}\
.card{overflow-x:auto}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:5px 10px 5px 0;\
border-bottom:1px solid var(--line);vertical-align:top}tr:last-child td{border-bottom:0}td.number{white-space:nowrap}\
code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}\
@media(max-width:700px){.tiles{grid-template-columns:1fr 1fr}.figures td:nth-child(3){display:none}\
.judged tr{display:block;padding:6px 0;border-bottom:1px solid var(--line)}.judged td{display:block;border:0;padding:1px 0}}";

/// Metrics that stand on top.
const TILES: [(&str, &str); 8] = [
    ("connected_max", "connected at most"),
    ("publish_rate", "acknowledged"),
    ("acknowledged_share", "acknowledged of those due"),
    ("ack_p99", "acknowledgement, p99"),
    ("end_to_end_p99", "end to end, p99"),
    ("errors", "errors"),
    ("server_memory_max", "memory of the server"),
    ("server_cpu", "of the server"),
];

/// The page as a whole.
pub fn page(report: &Report) -> String {
    let title = escaped(&report.title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head><body><main>\n"
    );
    head(report, &title, &mut page);
    tiles(report, &mut page);
    judgement(report, &mut page);
    page.push_str("<h2>Over time</h2><div class=\"plots\">\n");
    over_time(&report.points).into_iter().flatten().for_each(|plot| page.push_str(&plot));
    page.push_str("</div>\n");
    if let Some(plot) = by_quantile(report) {
        put(&mut page, format_args!("<h2>Distribution</h2><div class=\"plots\">{plot}</div>\n"));
    }
    rows(&mut page, "Errors", report.errors.iter().map(|(cause, count)| (count.to_string(), escaped(cause))));
    rows(&mut page, "Faults", report.faults.iter().map(|fault| (String::new(), escaped(fault))));
    page.push_str("<h2>All figures</h2><div class=\"card figures\"><table>\n");
    for (name, value, meaning) in report.shown() {
        put(
            &mut page,
            format_args!("<tr><td><code>{name}</code></td><td class=\"number\">{value}</td><td>{meaning}</td></tr>\n"),
        );
    }
    page.push_str("</table></div></main></body></html>\n");
    page
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes all");
}

fn head(report: &Report, title: &str, page: &mut String) {
    let (class, word) = if report.passes() { ("good", "passed") } else { ("bad", "failed") };
    put(page, format_args!("<h1>{title}</h1><p class=\"verdict {class}\">{word}</p><p>{}</p>", escaped(&report.shows)));
    let seconds = report.points.last().map_or(0, |point| point.second + 1);
    put(
        page,
        format_args!(
            "<p class=\"faint\">{} · {seconds} s · {} workers · seed {} · started <time>{}</time></p>\n",
            escaped(&report.target),
            report.workers,
            report.seed,
            utc(report.started_ms)
        ),
    );
}

/// A time in UTC, to the second.
fn utc(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or(String::new(), |time| time.strftime("%F %T UTC").to_string())
}

fn tiles(report: &Report, page: &mut String) {
    page.push_str("<h2>In short</h2><div class=\"tiles\">");
    for (metric, caption) in TILES {
        if let Some((_, value, _)) = report.shown().find(|(name, ..)| *name == metric) {
            put(page, format_args!("<div class=\"tile\"><b>{value}</b><span>{caption}</span></div>"));
        }
    }
    page.push_str("</div>\n");
}

fn judgement(report: &Report, page: &mut String) {
    if report.thresholds.is_empty() && report.ledger.is_empty() {
        return;
    }
    page.push_str("<h2>Thresholds and ledger</h2><div class=\"card judged\"><table>\n");
    let mut row = |is_good: bool, name: &str, what: &str| {
        let (class, word) = if is_good { ("good", "met") } else { ("bad", "failed") };
        let (name, what) = (escaped(name), escaped(what));
        put(
            page,
            format_args!("<tr><td class=\"{class}\">{word}</td><td><code>{name}</code></td><td>{what}</td></tr>\n"),
        );
    };
    for outcome in &report.thresholds {
        row(outcome.is_met, &outcome.threshold, &outcome.measured);
    }
    for verdict in &report.ledger {
        row(verdict.is_kept(), &format!("ledger of {}", verdict.consumer), &verdict.statement);
    }
    page.push_str("</table></div>\n");
}

/// The drawings over time; those without data are absent.
fn over_time(points: &[Point]) -> Vec<Option<String>> {
    let labels = time_labels(points.last().map_or(0, |point| point.second));
    let curve = |name, thin, value: fn(&Point) -> Option<f64>| Curve {
        name,
        thin,
        values: points.iter().map(|point| (point.second as f64, value(point))).collect(),
    };
    let draw = |title: &str, unit, curves: &[Curve]| {
        let is_empty = curves.iter().all(|curve| curve.values.iter().all(|(_, value)| value.unwrap_or(0.0) <= 0.0));
        if is_empty { None } else { plot(title, curves, &Axes { unit, labels: &labels }) }
    };
    vec![
        draw("Connections", Unit::Count, &[curve("open", Thin::Max, |p| Some(p.connected as f64))]),
        draw(
            "Messages a second",
            Unit::Count,
            &[
                curve("acknowledged", Thin::Mean, |p| Some(p.counts.acknowledged as f64)),
                curve("due", Thin::Mean, |p| Some(p.counts.due as f64)),
                curve("received", Thin::Mean, |p| Some(p.counts.received as f64)),
            ],
        ),
        draw(
            "Time to acknowledgement",
            Unit::Seconds,
            &[curve("p50", Thin::Max, |p| p.ack_p50), curve("p99", Thin::Max, |p| p.ack_p99)],
        ),
        draw(
            "Time from end to end",
            Unit::Seconds,
            &[curve("p50", Thin::Max, |p| p.end_to_end_p50), curve("p99", Thin::Max, |p| p.end_to_end_p99)],
        ),
        draw(
            "Connects and losses a second",
            Unit::Count,
            &[
                curve("connected", Thin::Mean, |p| Some(p.counts.connects as f64)),
                curve("lost or failed", Thin::Mean, |p| {
                    Some((p.counts.connections_lost + p.counts.connect_failures) as f64)
                }),
            ],
        ),
        draw(
            "Refused and unsent a second",
            Unit::Count,
            &[
                curve("refused", Thin::Mean, |p| Some(p.counts.refused as f64)),
                curve("unsent", Thin::Mean, |p| Some(p.counts.unsent as f64)),
            ],
        ),
        draw("Memory of the server", Unit::Bytes, &[curve("resident", Thin::Max, |p| p.server_memory_bytes)]),
        draw("Descriptors of the server", Unit::Count, &[curve("open", Thin::Max, |p| p.server_descriptors)]),
        draw("Processor of the server", Unit::Cores, &[curve("in use", Thin::Mean, |p| p.server_cores)]),
    ]
}

fn time_labels(seconds: u64) -> Vec<(f64, String)> {
    let rough = (seconds / TIME_LABELS).max(1);
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400];
    let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(86_400);
    let label = |second: u64| match second {
        0..120 => format!("{second} s"),
        120..7_200 => format!("{} min", second / 60),
        7_200.. => format!("{} h", second / 3_600),
    };
    (0..=seconds / step).map(|number| (number * step, label(number * step))).map(|(at, l)| (at as f64, l)).collect()
}

/// Latency by quantile; each step to the right is a tenth of what is left of 1.
fn by_quantile(report: &Report) -> Option<String> {
    let place = |quantile: f64| -(1.0 - quantile).max(1e-5).log10();
    let curve = |name, quantiles: &[(f64, f64)]| Curve {
        name,
        thin: Thin::Max,
        values: quantiles.iter().map(|(quantile, seconds)| (place(*quantile), Some(*seconds))).collect(),
    };
    let label = |quantile: f64| (place(quantile), format!("{} %", quantile * 100.0));
    let labels = [label(0.5), label(0.9), label(0.99), label(0.999), label(0.9999)];
    let curves = [curve("acknowledgement", &report.ack_quantiles), curve("end to end", &report.end_to_end_quantiles)];
    plot("Latency by share of messages", &curves, &Axes { unit: Unit::Seconds, labels: &labels })
}

/// A table of two columns, if it has rows.
fn rows(page: &mut String, title: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return;
    }
    put(page, format_args!("<h2>{title}</h2><div class=\"card\"><table>\n"));
    for (first, second) in rows {
        put(page, format_args!("<tr><td class=\"number\">{first}</td><td>{second}</td></tr>\n"));
    }
    page.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_axis_has_a_few_round_labels() {
        for (seconds, count, last) in [(0, 1, "0 s"), (59, 6, "50 s"), (1_800, 7, "30 min"), (7_200 * 12, 7, "24 h")] {
            let labels = time_labels(seconds);
            assert_eq!((labels.len(), labels[labels.len() - 1].1.as_str()), (count, last), "{seconds}");
        }
    }
}
