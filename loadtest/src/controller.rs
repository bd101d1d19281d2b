//! The one that starts workers as processes, gathers what they tell, and sees to it that they end.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::bound::Bound;
use crate::clock::{pause, unix_us};
use crate::guarded::Guarded;
use crate::live::Live;
use crate::remote;
use crate::scenario::Scenario;
use crate::series::{Series, ServerSample};
use crate::tally::Second;
use crate::worker::Orders;

/// How far ahead the start lies, so that all workers are there by then.
const START_AHEAD_US: u64 = 300_000;
/// The same where workers are elsewhere: orders travel, and clocks differ.
const START_AHEAD_REMOTE_US: u64 = 3_000_000;
/// Reports that wait; a worker that tells more waits.
const NEWS_MAX: usize = 1_024;
/// How long a worker may take beyond the scenario's own time.
const PATIENCE_US: u64 = 60_000_000;
/// Between two looks at the server's metrics.
const SCRAPE: Duration = Duration::from_secs(1);
pub const WORKERS_MAX: u64 = 64;

/// What to run.
pub struct Run<'a> {
    pub scenario: &'a Scenario,
    pub workers: u64,
    /// Where workers come that were started elsewhere; `None`: they are started here.
    pub listener: Option<&'a TcpListener>,
    /// `drover-load` itself, started again as worker.
    pub executable: &'a Path,
    /// Where workers keep their books, if the scenario wants them.
    pub folder: &'a Path,
}

/// What has come of it.
pub struct Gathered {
    pub series: Series,
    pub start_unix_us: u64,
    /// The books of the workers.
    pub journals: Vec<PathBuf>,
}

enum News {
    Told(u64, Box<Second>),
    /// A worker's output has ended.
    Ended(u64),
    /// What the server's page had: of the process, and of each bound.
    Server(Option<ServerSample>, Vec<Option<f64>>),
}

impl Run<'_> {
    /// Runs the scenario to its end.
    pub fn go(&self, live: &mut Live) -> anyhow::Result<Gathered> {
        let peers = self.listener.map(|listener| remote::gather(listener, self.workers)).transpose()?;
        let ahead_us = if peers.is_some() { START_AHEAD_REMOTE_US } else { START_AHEAD_US };
        let start_unix_us = unix_us() + ahead_us;
        let mut peers = peers.unwrap_or_default().into_iter();
        let (sender, news) = sync_channel(NEWS_MAX);
        // They are killed when the run ends early.
        let (mut workers, mut journals) = (Vec::new(), Vec::new());
        for worker in 0..self.workers {
            let journal = self.scenario.ledger.then(|| self.folder.join(format!("ledger-{worker}.tsv")));
            journals.extend(journal.clone());
            let orders =
                Orders { scenario: self.scenario.clone(), worker, workers: self.workers, start_unix_us, journal };
            match peers.next() {
                Some(peer) => {
                    remote::order(&peer, &orders)?;
                    listen(peer, worker, sender.clone());
                }
                None => workers.push(start(self.executable, &orders, sender.clone())?),
            }
        }
        let is_over = Arc::new(AtomicBool::new(false));
        if let Some(url) = &self.scenario.target.metrics {
            let bounds = self.scenario.bounds.clone();
            watch(self.scenario.target.expand(url), bounds, sender, is_over.clone());
        }
        let deadline_us = start_unix_us + self.scenario.ends_us().1 + PATIENCE_US;
        let (mut series, mut running) = (Series::default(), self.workers);
        let mut last_told = vec![false; self.workers as usize];
        while running > 0 {
            match news.recv_timeout(Duration::from_millis(250)) {
                Ok(News::Told(worker, told)) => {
                    last_told[worker as usize] |= told.is_last;
                    series.worker(worker, &told);
                }
                Ok(News::Ended(worker)) => {
                    running -= 1;
                    ensure!(last_told[worker as usize], "worker {worker} ended before its time");
                }
                Ok(News::Server(sample, bounds)) => {
                    // What it says before the start is no part of the run.
                    if let Some(at_us) = unix_us().checked_sub(start_unix_us) {
                        series.bounds(&bounds);
                        if let Some(sample) = sample {
                            series.server(at_us, sample);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now_us = unix_us();
            live.show(self.scenario, &series, now_us.saturating_sub(start_unix_us));
            if now_us > deadline_us {
                bail!("{running} workers did not end within {} s after their time", PATIENCE_US / 1_000_000);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        series.end();
        Ok(Gathered { series, start_unix_us, journals })
    }
}

/// Starts one worker, gives it its orders, and hands on what it tells.
fn start(executable: &Path, orders: &Orders, news: SyncSender<News>) -> anyhow::Result<Guarded> {
    let mut command = Command::new(executable);
    command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Guarded::start(&mut command).with_context(|| format!("starting {}", executable.display()))?;
    let stdin = process.stdin().context("stdin is piped")?;
    let stdout = process.stdout().context("stdout is piped")?;
    serde_json::to_writer(stdin, orders).context("giving a worker its orders")?;
    listen(stdout, orders.worker, news);
    Ok(process)
}

/// Hands on what a worker tells, on a thread that ends with it.
fn listen(told: impl Read + Send + 'static, worker: u64, news: SyncSender<News>) {
    std::thread::spawn(move || {
        for line in BufReader::new(told).lines() {
            // What is no report is the worker's failure, which it tells on stderr.
            let told: Option<Second> = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let is_heard = told.is_some_and(|told| news.send(News::Told(worker, Box::new(told))).is_ok());
            if !is_heard {
                break;
            }
        }
        news.send(News::Ended(worker)).ok();
    });
}

/// Asks the server for its memory, descriptors, processor time and what has bounds, until the run is over. One that does not
/// answer is asked again.
fn watch(url: String, bounds: Vec<Bound>, news: SyncSender<News>, is_over: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let is_heard = page(&url).is_none_or(|page| {
                let values = bounds.iter().map(|bound| bound.value(&page)).collect();
                news.send(News::Server(sample(&page), values)).is_ok()
            });
            if !is_heard {
                return;
            }
            pause(SCRAPE);
        }
    });
}

fn page(url: &str) -> Option<String> {
    let mut answer = ureq::get(url).config().timeout_global(Some(SCRAPE)).build().call().ok()?;
    answer.body_mut().read_to_string().ok()
}

fn sample(page: &str) -> Option<ServerSample> {
    Some(ServerSample {
        memory_bytes: value(page, "process_resident_memory_bytes")?,
        descriptors: value(page, "process_open_fds"),
        cpu_seconds: value(page, "process_cpu_seconds_total")?,
    })
}

/// The first sample of a metric, with labels or without.
fn value(page: &str, metric: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with([' ', '{'])))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_in_a_page_with_labels_or_without() {
        let page = "# TYPE a_bytes gauge\na_bytes_max 9\na_bytes 1.5e3\nb{x=\"y z\"} 2\n";
        assert_eq!((value(page, "a_bytes"), value(page, "b"), value(page, "c")), (Some(1_500.0), Some(2.0), None));
    }
}
