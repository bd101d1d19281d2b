//! Faults of networks, disks and clocks by `drover-load chaos`, done to small processes; as root, where the tools are.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use drover_load::chaos::schedule;
use drover_load::guarded::Guarded;
use drover_load::report::Report;
use drover_load::scenario::{Kind, Scenario};

use crate::mosquitto;
use crate::runs::said;
use crate::server::{Faults, Server};

/// What a run says that cannot be done here; the test says so, too.
pub const CANNOT: &str = "drover-load: chaos.faults with ";
/// A fault that nobody can miss, in microseconds.
const FELT_US: u64 = 500_000;
/// How long what a killed run has left may take to go away, in looks.
const LOOKS_MAX: usize = 1_500;
const LOOK: Duration = Duration::from_millis(20);

/// Ten devices that send five messages a second each; `chaos` is what is done meanwhile.
fn scenario(seconds: u64, chaos: &str) -> String {
    format!(
        r#"
        title = "faults"
        duration = "{seconds}s"
        settle = "15s"
        thresholds = ["unsent == 0", "acknowledged_share == 1"]
        [[fleet]]
        name = "devices"
        devices = 10
        device = "d-{{i}}"
        clean = false
        keep_alive = "6s"
        reconnect = ["100ms", "500ms"]
        publish = {{ topic = "t/{{device}}", every = "200ms", payload = '{{"n":{{n}},"sent_us":{{sent_us}}}}' }}
        [chaos]
        disk_mib = 32
        {chaos}
        "#
    )
}

/// The first seed that has a fault of each kind there is in the scenario, long enough to be felt.
fn seed(text: &str) -> u64 {
    let scenario = Scenario::parse(text).expect("valid");
    let of = |seed| {
        let faults = schedule(seed, &scenario).into_iter().filter(|fault| fault.lasts_us >= FELT_US);
        faults.map(|fault| fault.kind).collect::<BTreeSet<Kind>>()
    };
    let all: BTreeSet<Kind> = scenario.chaos.all_faults().into_iter().collect();
    (0..10_000).find(|seed| of(*seed) == all).expect("a seed with all kinds")
}

fn command(folder: &Path, text: &str, arguments: &[&str]) -> Command {
    let file = folder.join("scenario.toml");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
    command.arg("chaos").arg(&file).args(["--quiet", "--seed", &seed(text).to_string()]);
    command.arg("--out").arg(folder.join("out")).args(arguments);
    command
}

/// Runs it to its end; `None`, after saying so, where its faults cannot be done.
fn run(folder: &Path, text: &str, arguments: &[&str]) -> Option<(Output, Report)> {
    let output = command(folder, text, arguments).output().expect("it starts");
    if let Some(why) = said(&output).lines().find(|line| line.starts_with(CANNOT)) {
        assert_eq!(output.status.code(), Some(2));
        println!("NOT RUN: {why}");
        return None;
    }
    let logs = std::fs::read_dir(folder.join("out")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let logs: String = logs
        .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
        .map(|path| std::fs::read_to_string(path).unwrap_or_default())
        .collect();
    let report = Report::read(&folder.join("out/report.json"));
    Some((output, report.unwrap_or_else(|error| panic!("{error}: {logs}"))))
}

/// Files behind loop devices that lie in a folder.
fn images(folder: &Path) -> usize {
    let devices = std::fs::read_dir("/sys/block").expect("readable").map(|entry| entry.expect("an entry").path());
    let files = devices.filter_map(|device| std::fs::read_to_string(device.join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file.trim_end()).starts_with(folder)).count()
}

/// mosquitto as what faults are done to; `None` after saying so where it is missing.
fn broker() -> Option<String> {
    let program = mosquitto::program()?;
    Some(format!(
        r#"
        [[chaos.process]]
        name = "broker"
        command = ["{}", "-p", "1883"]
        ready = "{{at:broker}}:1883"
        "#,
        program.display()
    ))
}

#[test]
fn devices_get_through_whatever_is_done_to_the_network_and_nothing_of_it_is_left() {
    let Some(broker) = broker() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let chaos =
        format!("faults = [\"cut\", \"partition\", \"reset\", \"loss\"]\nevery = \"1s\"\nlongest = \"1s\"\n{broker}");
    let Some((output, report)) = run(folder.path(), &scenario(20, &chaos), &[]) else { return };
    assert!(output.status.success(), "{}", said(&output));
    for told in
        ["cut broker off", "part broker and the devices", "reset connections of broker", "lose packets of broker"]
    {
        assert!(report.faults.iter().any(|fault| fault.contains(told)), "{told}: {:?}", report.faults);
    }
    assert!(report.metrics["connections_lost"] > 0.0, "a reset is felt: {:?}", report.metrics);
    assert!(report.metrics["ack_max"] > 0.1, "silence is felt: {:?}", report.metrics);
    assert!(!Path::new("/sys/class/net/wire0").exists(), "networks are of the run's own");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("readable");
    assert!(!mounts.contains(&folder.path().display().to_string()), "{mounts}");
}

#[test]
fn packets_come_late_and_links_are_narrow_where_the_kernel_can_do_that() {
    let Some(broker) = broker() else { return };
    for (kind, told) in [("delay", "delay packets of"), ("narrow", "narrow the link of")] {
        let folder = tempfile::tempdir().expect("a folder");
        let chaos = format!("faults = [\"{kind}\"]\nevery = \"2s\"\nlongest = \"2s\"\n{broker}");
        let Some((output, report)) = run(folder.path(), &scenario(12, &chaos), &[]) else { continue };
        assert!(output.status.success(), "{kind}: {}", said(&output));
        assert!(report.faults.iter().any(|fault| fault.contains(told)), "{:?}", report.faults);
        // 150 ms more or less, each way.
        assert!(kind == "narrow" || report.metrics["ack_max"] > 0.2, "{:?}", report.metrics);
    }
}

/// A process that writes 8 KiB again and again, and says when it has, or that it could not.
const WRITER: &str = r#"
    [[chaos.process]]
    name = "writer"
    command = ["sh", "-c", "while :; do if head -c 8192 /dev/zero >>{own}/file && sync {own}/file; then date +%s%N; else echo refused; fi; sleep 0.05; done"]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_full_or_slow_for_a_time_and_has_room_and_speed_again() {
    let server = Server::start(Faults::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = ready.local_addr().expect("bound");
    let chaos =
        format!("faults = [\"full\", \"slow\"]\nevery = \"2s\"\nlongest = \"2s\"\n{WRITER}\nready = \"{at}\"\n");
    let target = server.address.to_string();
    let arguments = ["--target", &target];
    let Some((output, report)) = run(folder.path(), &scenario(20, &chaos), &arguments) else { return };
    let log = std::fs::read_to_string(folder.path().join("out/writer.log")).expect("a log");
    assert!(output.status.success(), "{}{log}", said(&output));
    assert!(report.faults.iter().any(|fault| fault.contains("fill the disk of writer")), "{:?}", report.faults);
    let lines: Vec<&str> = log.lines().collect();
    let refused = lines.iter().rposition(|line| *line == "refused").expect("no room for a time");
    let written: Vec<i64> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let longest_ns = written.windows(2).map(|pair| pair[1] - pair[0]).max().expect("some were written");
    assert!(longest_ns > 300_000_000, "a frozen disk is felt: {longest_ns} ns");
    assert!(lines.len() > refused + 10, "there is room again: {log}");
    // A command of the writer's may have outlived it by a moment.
    let mut looks = 0;
    while images(folder.path()) > 0 {
        assert!(looks < LOOKS_MAX, "the disk is still there");
        looks += 1;
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_leaves_no_frozen_disk_no_mount_and_no_process() {
    let server = Server::start(Faults::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = ready.local_addr().expect("bound");
    let chaos = format!("faults = [\"slow\"]\nevery = \"500ms\"\nlongest = \"20s\"\n{WRITER}\nready = \"{at}\"\n");
    let target = server.address.to_string();
    let arguments = ["--target", &target];
    let mut command = command(folder.path(), &scenario(60, &chaos), &arguments);
    let errors = folder.path().join("errors");
    command.stdout(Stdio::null()).stderr(File::create(&errors).expect("made"));
    let mut run = Guarded::start(&mut command).expect("it starts");
    let own = folder.path().display().to_string();
    let freezes = || processes().iter().any(|line| line.contains("freezer") && line.contains(&own));
    for look in 0.. {
        if run.ended().expect("it is ours").is_some() {
            let why = std::fs::read_to_string(&errors).expect("text");
            assert!(why.starts_with(CANNOT), "{why}");
            return println!("NOT RUN: {}", why.trim_end());
        }
        if freezes() {
            break;
        }
        assert!(look < LOOKS_MAX, "the disk is frozen in time");
        tokio::time::sleep(LOOK).await;
    }
    assert_eq!(images(folder.path()), 1);
    assert_eq!(run.ended().expect("it is ours"), None);
    // With SIGKILL.
    drop(run);
    for look in 0.. {
        let is_left = images(folder.path()) > 0 || processes().iter().any(|line| line.contains(&own));
        if !is_left {
            return;
        }
        assert!(look < LOOKS_MAX, "left: {} images, {:?}", images(folder.path()), processes());
        tokio::time::sleep(LOOK).await;
    }
}

/// The command lines of all processes that have one.
fn processes() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("readable").filter_map(Result::ok);
    let lines = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.map(|line| line.replace('\0', " ")).filter(|line| !line.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_one_process_jumps_and_is_right_again() {
    let server = Server::start(Faults::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = ready.local_addr().expect("bound");
    let chaos = format!(
        r#"
        faults = ["clock"]
        every = "3s"
        longest = "3s"
        [[chaos.process]]
        name = "teller"
        command = ["sh", "-c", "while :; do date +%s; sleep 0.2; done"]
        ready = "{at}"
        "#
    );
    let target = server.address.to_string();
    let arguments = ["--target", &target];
    let Some((output, report)) = run(folder.path(), &scenario(20, &chaos), &arguments) else { return };
    assert!(output.status.success(), "{}", said(&output));
    assert!(report.faults.iter().any(|fault| fault.contains("set the clock of teller by ")), "{:?}", report.faults);
    let log = std::fs::read_to_string(folder.path().join("out/teller.log")).expect("a log");
    let told: Vec<i64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    let jumps = told.windows(2).filter(|pair| !(0..=1).contains(&(pair[1] - pair[0]))).count();
    assert!(jumps >= 2, "away and back: {told:?}");
    let whole = told.last().zip(told.first()).map(|(last, first)| last - first);
    assert!(whole.is_some_and(|seconds| (15..60).contains(&seconds)), "right again at the end: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_several_seeds_have_reports_of_their_own_and_those_that_fail_are_told_at_the_end() {
    let server = Server::start(Faults::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = ready.local_addr().expect("bound");
    let chaos = format!(
        r#"
        every = "500ms"
        longest = "300ms"
        [[chaos.process]]
        name = "sleeper"
        command = ["sleep", "60"]
        ready = "{at}"
        "#
    );
    let file = folder.path().join("scenario.toml");
    for (demand, code, told) in [("due > 0", 0, "0 of 2 runs failed"), ("due > 1000000", 1, "2 of 2 runs failed")] {
        std::fs::write(&file, scenario(5, &chaos).replace("unsent == 0", demand)).expect("written");
        let out = folder.path().join(code.to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
        command.arg("chaos").arg(&file).args(["--quiet", "--seed", "3", "--runs", "2", "--out"]).arg(&out);
        let output = command.args(["--target", &server.address.to_string()]).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(told), "{}", said(&output));
        let [one, other] = ["seed-3", "seed-4"].map(|seed| {
            assert_eq!(said(&output).contains(&format!("{} FAILED", seed.replace('-', " "))), code == 1);
            Report::read(&out.join(seed).join("report.json")).expect("a report").faults
        });
        assert!(!one.is_empty() && one != other, "{one:?} and {other:?}");
    }
}

#[test]
fn who_may_make_no_namespaces_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scenario.toml");
    let program = env!("CARGO_BIN_EXE_drover-load");
    for fault in ["cut", "full"] {
        std::fs::write(&file, scenario(5, &format!("faults = [\"{fault}\"]"))).expect("written");
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            // As root of a container, who has not all rights of root.
            command = Command::new("setpriv");
            command.args(["--bounding-set=-sys_admin", program]);
        }
        let output = match command.arg("chaos").arg(&file).arg("--out").arg(folder.path().join("out")).output() {
            Ok(output) if !said(&output).starts_with("setpriv:") => output,
            told => return println!("NOT RUN: {CANNOT}less rights: setpriv gives none up: {told:?}"),
        };
        assert_eq!(output.status.code(), Some(2), "{fault}: {}", said(&output));
        assert!(said(&output).starts_with(CANNOT), "{fault}: {}", said(&output));
        assert!(!folder.path().join("out").exists(), "{fault}: nothing was started");
    }
}

#[test]
fn what_is_no_fault_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scenario.toml");
    std::fs::write(&file, scenario(5, "faults = [\"earthquake\"]")).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
    let output =
        command.arg("chaos").arg(&file).arg("--out").arg(folder.path().join("out")).output().expect("it starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("unknown variant `earthquake`"), "{}", said(&output));
}
