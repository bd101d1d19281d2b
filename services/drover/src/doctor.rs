//! `drover doctor`: looks at the machine and the installation, changes nothing, and says what to do.
//!
//! Each check reads the world into plain values and judges them in a function of its own, which a test can call.

mod certificate;
mod elsewhere;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use drover_bus::embedded::{OpenError, Sight};
use drover_host::{Conflict, SystemClock, bus, process};
use drover_types::Clock;
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::{self, Format};
use crate::data;
use crate::kafka::KafkaConfig;
use crate::layers;
use crate::plan::Plan;
use crate::services::{self, ConfigArgs};

/// Free disk below which a check warns, and below which it fails, in bytes.
const DISK_LOW: u64 = 1 << 30;
const DISK_NONE: u64 = 64 << 20;
/// Durable writes measured, and the median above which each publish waits noticeably.
const SYNCS: usize = 15;
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Descriptors below which a few thousand devices cannot connect.
const DESCRIPTORS_FEW: u64 = 4_096;
/// 2024-01-01, in milliseconds since the Unix epoch: a clock before that is not set.
const CLOCK_UNSET_MS: u64 = 1_704_067_200_000;
/// How long the clocks are compared, and how far they may drift apart in that time.
const CLOCK_SPAN: Duration = Duration::from_millis(100);
const CLOCK_DRIFT: Duration = Duration::from_millis(20);
const SERVER_PATIENCE: Duration = Duration::from_secs(2);

/// `drover doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The data directory to look at.
    #[arg(long, value_name = "DIR", default_value = "./drover-data")]
    data: PathBuf,
    /// As given to `up`.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// Shape of the answer.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// What one check found, and what to do about it.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into(), advice: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, advice: Some(advice.into()), ..Self::ok(check, message) }
    }

    fn fail(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, advice: Some(advice.into()), ..Self::ok(check, message) }
    }
}

impl DoctorArgs {
    /// Prints every finding; an error if one of them is a failure.
    pub fn run(self) -> anyhow::Result<()> {
        let layers = layers::with_surroundings(self.config.layers()?, &self.data)?;
        let mut plan = Plan::new(services::platform().collect(), layers::shift_ports(layers, self.port_offset)?)?;
        if plan.has_embedded_log() {
            plan.kafka = Some(KafkaConfig::load(&plan.layers)?);
        }
        let pki = plan.pki.clone().unwrap_or_else(|| data::pki_path(&self.data));
        let now_s = i64::try_from(SystemClock.now_ms() / 1000).unwrap_or(i64::MAX);
        let running = server(&plan);
        let answers = running.verdict == Verdict::Ok;
        let mut findings = ports(&plan.conflicts(), answers);
        findings.extend([running, disk(&self.data), sync(&self.data), descriptors(), clock()]);
        if plan.has_embedded_log() {
            findings.push(log(&self.data, answers));
        }
        findings.extend(elsewhere::look(&plan)?);
        findings.extend(["ca.pem", "server.pem"].map(|name| certificate::look(&pki, name, now_s)));
        print(&findings, self.output)?;
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
        if failed > 0 {
            bail!("{failed} checks failed");
        }
        Ok(())
    }
}

fn print(findings: &[Finding], output: Format) -> anyhow::Result<()> {
    let list = serde_json::json!({ "items": findings });
    cli::printing(|out| output.object(out, &list, |out| tell(findings, out)))
}

fn tell(findings: &[Finding], out: &mut dyn Write) -> std::io::Result<()> {
    for Finding { check, verdict, message, advice } in findings {
        let verdict = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let advice = advice.as_deref().map(|advice| format!("; {advice}")).unwrap_or_default();
        writeln!(out, "{verdict:5}{check:13}{message}{advice}")?;
    }
    Ok(())
}

fn ports(conflicts: &[Conflict], running: bool) -> Vec<Finding> {
    if conflicts.is_empty() {
        return vec![Finding::ok("ports", "all are free")];
    }
    if running {
        return vec![Finding::ok("ports", "in use by the server that answers")];
    }
    conflicts
        .iter()
        .map(|conflict| {
            let message = format!("{} ({}): {}", conflict.address, conflict.name, conflict.source);
            Finding::fail(
                "ports",
                message,
                format!("end who uses it, or set {}, or move all with --port-offset N", conflict.key),
            )
        })
        .collect()
}

fn server(plan: &Plan) -> Finding {
    let Some(address) = plan.admin_address() else { return Finding::ok("server", "admin.listen is empty: not asked") };
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(SERVER_PATIENCE)).http_status_as_error(false).build().into();
    match agent.get(format!("http://{address}/readyz")).call() {
        Ok(answer) if answer.status() == 200 => Finding::ok("server", format!("{address} answers and is ready")),
        Ok(mut answer) => {
            let why = answer.body_mut().read_to_string().unwrap_or_default();
            Finding::warn("server", format!("{address} answers and is not ready: {why}"), "wait, or read its log")
        }
        Err(error) => {
            Finding::warn("server", format!("{address} does not answer: {error}"), "start it with `drover up`")
        }
    }
}

/// The directory itself, or the nearest one above it that exists.
fn existing(data: &Path) -> &Path {
    data.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

fn disk(data: &Path) -> Finding {
    let directory = existing(data);
    match rustix::fs::statvfs(directory) {
        Ok(disk) => judge_disk(&directory.display().to_string(), disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => {
            Finding::fail("disk", format!("{}: {error}", directory.display()), "choose another with --data DIR")
        }
    }
}

fn judge_disk(directory: &str, free: u64) -> Finding {
    let message = format!("{directory} has {} MiB free", free >> 20);
    let advice = "make room, or choose another disk with --data DIR";
    match free {
        0..DISK_NONE => Finding::fail("disk", message, advice),
        DISK_NONE..DISK_LOW => Finding::warn("disk", message, advice),
        DISK_LOW.. => Finding::ok("disk", message),
    }
}

fn sync(data: &Path) -> Finding {
    let directory = existing(data);
    match time_syncs(directory) {
        Ok(median) => judge_sync(median),
        Err(error) => {
            let message = format!("{} cannot be written: {error}", directory.display());
            Finding::fail("fsync", message, "give permission, or choose another with --data DIR")
        }
    }
}

fn time_syncs(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".drover-doctor-{}", std::process::id()));
    let mut file = fs::File::create_new(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    let written = (0..SYNCS).try_for_each(|_| {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
        Ok(())
    });
    fs::remove_file(&path)?;
    written.map(|()| {
        times.sort();
        times[SYNCS / 2]
    })
}

fn judge_sync(median: Duration) -> Finding {
    let message = format!("a durable write takes {:.1} ms (median of {SYNCS})", median.as_secs_f64() * 1_000.0);
    if median > SYNC_SLOW {
        return Finding::warn("fsync", message, "each publish waits that long: use a faster disk with --data DIR");
    }
    Finding::ok("fsync", message)
}

fn descriptors() -> Finding {
    let Some(process::Descriptors { most, .. }) = process::descriptors() else {
        return Finding::warn("descriptors", "this system does not tell", "look at `ulimit -n`");
    };
    judge_descriptors(most)
}

fn judge_descriptors(most: u64) -> Finding {
    let message = format!("a process may open {most}, and each connection takes one");
    if most < DESCRIPTORS_FEW {
        return Finding::warn("descriptors", message, "raise it with `ulimit -n` or LimitNOFILE");
    }
    Finding::ok("descriptors", message)
}

#[allow(clippy::disallowed_methods, reason = "no runtime here; two clocks are compared over a real span")]
fn clock() -> Finding {
    let (wall, steady) = (SystemClock.now_ms(), Instant::now());
    std::thread::sleep(CLOCK_SPAN);
    judge_clock(wall, SystemClock.now_ms(), steady.elapsed())
}

fn judge_clock(began_ms: u64, ended_ms: u64, steady: Duration) -> Finding {
    let advice = "set the clock, with NTP for example: certificates, windows and retention depend on it";
    if began_ms < CLOCK_UNSET_MS {
        return Finding::fail("clock", "is before 2024", advice);
    }
    let drift = Duration::from_millis(ended_ms.saturating_sub(began_ms)).abs_diff(steady);
    if ended_ms < began_ms || drift > CLOCK_DRIFT {
        return Finding::warn(
            "clock",
            format!("moved by {} ms within {} ms", drift.as_millis(), steady.as_millis()),
            advice,
        );
    }
    Finding::ok("clock", "is set and steady")
}

fn log(data: &Path, running: bool) -> Finding {
    judge_log(drover_bus::embedded::look(&data::bus_path(data)), running)
}

fn judge_log(seen: Result<Option<Sight>, OpenError>, running: bool) -> Finding {
    match seen {
        Ok(None) => Finding::ok("log", "none yet"),
        Ok(Some(Sight { topics, torn })) if torn.is_empty() => Finding::ok("log", format!("{topics} topics, sound")),
        Ok(Some(Sight { torn, .. })) => {
            let files: Vec<String> = torn.iter().map(|cut| cut.file.display().to_string()).collect();
            let message = format!("never completed at the end of {}", files.join(", "));
            Finding::warn("log", message, "the next start cuts it; nothing that was acknowledged is in it")
        }
        Err(OpenError::Locked { .. }) if running => Finding::ok("log", "in use by the server that answers"),
        Err(refused) => Finding::fail("log", refused.to_string(), bus::advice(&refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torn() -> drover_bus::embedded::Cut {
        drover_bus::embedded::Cut { file: "f".into(), at: 1, bytes: 2, reason: "torn".into() }
    }

    #[test]
    fn every_verdict_that_is_not_ok_says_what_to_do() {
        let ms = Duration::from_millis;
        for (finding, verdict) in [
            (judge_disk("d", DISK_NONE - 1), Verdict::Fail),
            (judge_disk("d", DISK_LOW - 1), Verdict::Warn),
            (judge_disk("d", DISK_LOW), Verdict::Ok),
            (judge_sync(SYNC_SLOW + ms(1)), Verdict::Warn),
            (judge_sync(SYNC_SLOW), Verdict::Ok),
            (judge_descriptors(1_024), Verdict::Warn),
            (judge_descriptors(DESCRIPTORS_FEW), Verdict::Ok),
            (judge_clock(0, 100, ms(100)), Verdict::Fail),
            (judge_clock(CLOCK_UNSET_MS, CLOCK_UNSET_MS + 5_000, ms(100)), Verdict::Warn),
            (judge_clock(CLOCK_UNSET_MS + 50, CLOCK_UNSET_MS, ms(100)), Verdict::Warn),
            (judge_clock(CLOCK_UNSET_MS, CLOCK_UNSET_MS + 100, ms(100)), Verdict::Ok),
            (certificate::judge("ca.pem", b"no certificate", 0), Verdict::Fail),
            (judge_log(Ok(None), false), Verdict::Ok),
            (judge_log(Ok(Some(Sight { topics: 1, torn: vec![torn()] })), false), Verdict::Warn),
            (judge_log(Err(OpenError::Locked { directory: "d".into(), holder: Some(7) }), false), Verdict::Fail),
            (judge_log(Err(OpenError::Locked { directory: "d".into(), holder: Some(7) }), true), Verdict::Ok),
            (judge_log(Err(OpenError::Foreign { directory: "d".into() }), true), Verdict::Fail),
        ] {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.advice.is_some(), verdict != Verdict::Ok, "{finding:?}");
        }
    }
}
