//! Whole runs of `drover-load` against the small server: counts, exit codes, reports, storms, the ledger.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

use drover_load::report::Report;

use crate::driver::tls;
use crate::server::{Faults, Server};

/// Runs a scenario's text; what the process said, and its report if there is one.
pub fn run(folder: &Path, text: &str, arguments: &[&str]) -> (Output, Option<Report>) {
    let file = folder.join("scenario.toml");
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
    command.arg("run").arg(&file).arg("--quiet").arg("--out").arg(folder.join("out")).args(arguments);
    let output = command.output().expect("it starts");
    let report = Report::read(&folder.join("out/report.json")).ok();
    (output, report)
}

/// What a process said, for a failed assertion.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// 20 devices that send ten messages a second each for a second; `more` is of the scenario, `fleet` of the fleet.
pub fn sending(more: &str, fleet: &str) -> String {
    format!(
        r#"
        title = "sending"
        duration = "1s"
        settle = "5s"
        {more}
        [[fleet]]
        name = "devices"
        devices = 20
        device = "d-{{i}}"
        {fleet}
        [fleet.publish]
        topic = "t/{{device}}"
        every = "100ms"
        payload = '{{"device":"{{device}}","n":{{n}},"sent_us":{{sent_us}},"v":{{v}}}}'
        [fleet.values]
        v = {{ kind = "walk", start = 1.0, step = 0.1, min = 0.0, max = 2.0 }}
        "#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_sent_when_it_is_due_and_counted_when_it_is_acknowledged() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let text = sending("thresholds = [\"acknowledged_share == 1\", \"errors == 0\", \"ack_p99 < 5s\"]", "");
    let target = server.address.to_string();
    let arguments = ["--target", &target, "--workers", "2"];
    let (output, report) = run(folder.path(), &text, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = report.expect("a report").metrics;
    // Whatever its phase, each device has ten messages due in a second.
    let due = metrics["due"];
    assert_eq!(due, 200.0);
    assert_eq!((metrics["acknowledged"], metrics["connects"], metrics["connected_max"]), (due, 20.0, 20.0));
    assert_eq!((server.seen().len() as f64, server.connections()), (due, 20));
    for name in ["report.html", "junit.xml"] {
        assert!(folder.path().join("out").join(name).exists(), "{name}");
    }
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("acknowledged_share == 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_threshold_that_fails_is_exit_code_1_and_what_cannot_be_run_is_2() {
    let (server, folder) =
        (Server::start(Faults { refuse: true, ..Faults::default() }).await, tempfile::tempdir().expect("a folder"));
    let target = server.address.to_string();
    // MQTT 5 has reasons in its acknowledgements.
    let text = sending("thresholds = [\"refused == 0\"]", "v5 = true");
    let (output, report) = run(folder.path(), &text, &["--target", &target]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("FAILED refused == 0") && said(&output).contains("message refused: not authorized"));
    assert!(report.is_some_and(|report| report.metrics["acknowledged"] < 1.0));
    let wrong: [(&str, &[&str]); 3] = [("title = 1", &[]), (&text, &["--target", ":1"]), (&text, &["--workers", "0"])];
    for (text, arguments) in wrong {
        let (output, _) = run(folder.path(), text, arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }
}

/// Answers every request with a page, on a thread that ends with the test.
fn serve(page: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let length = page.len();
            // Who has asked may have gone.
            write!(&stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{page}").ok();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gauge_of_the_server_above_its_bound_is_exit_code_1() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let (target, metrics) = (server.address.to_string(), serve("q{queue=\"a\"} 7\nq{queue=\"b\"} 2\n"));
    let metrics = format!("http://{metrics}/metrics");
    let bound = |metric: &str, at_most: u32| format!("[[bound]]\nmetric = '{metric}'\nat_most = {at_most}\n");
    let judged = |bounds: [String; 2]| {
        // The page is looked at every second.
        let text = sending(&bounds.concat(), "").replace("duration = \"1s\"", "duration = \"3s\"");
        run(folder.path(), &text, &["--target", &target, "--metrics", &metrics]).0
    };
    let output = judged([bound("q{queue=\"a\"}", 7), bound("q", 9)]);
    assert!(output.status.success() && said(&output).contains("met    q <= 9 (highest 9)"), "{}", said(&output));
    let output = judged([bound("q{queue=\"b\"}", 1), bound("absent", 9)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for told in ["FAILED q{queue=\"b\"} <= 1 (highest 2)", "FAILED absent <= 9 (not measured)"] {
        assert!(said(&output).contains(told), "{}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_takes_all_connections_and_they_come_back_and_send_what_was_due() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let storm = "thresholds = [\"unsent == 0\", \"acknowledged_share == 1\"]\n[[storm]]\nat = \"3s\"\naway = \"1s\"\nover = \"500ms\"\n";
    let text = sending(storm, "clean = false").replace("duration = \"1s\"", "duration = \"7s\"");
    let (output, report) = run(folder.path(), &text, &["--target", &server.address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = report.expect("a report").metrics;
    assert_eq!((metrics["connects"], metrics["connections_lost"]), (40.0, 0.0));
    assert!(metrics.contains_key("storm_recovery_max"), "{metrics:?}");
    // This server keeps none.
    assert_eq!(metrics["sessions_lost"], 20.0);
    // Latency counts from when a message was due, not from when the network was back.
    assert!(metrics["ack_max"] > 0.5, "{metrics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_believes_in_stay_open_beside_the_new_ones() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let storm = "[[storm]]\nat = \"3s\"\naway = \"500ms\"\nhalf_open = true\n";
    let text = sending(storm, "").replace("duration = \"1s\"", "duration = \"6s\"");
    let (output, report) = run(folder.path(), &text, &["--target", &server.address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((server.most_open(), report.expect("a report").metrics["connected_max"]), (40, 20.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_that_loses_packets_makes_everything_late_and_loses_nothing() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let thresholds =
        "thresholds = [\"acknowledged_share == 1\", \"errors == 0\", \"ack_p50 > 200ms\", \"connect_p50 > 200ms\"]";
    let slow = sending(thresholds, "network = { lag = [\"200ms\", \"300ms\"], loss = 0.05 }");
    let (output, report) = run(folder.path(), &slow, &["--target", &server.address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = report.expect("a report").metrics;
    assert!(metrics["ack_max"] > 1.0, "a lost packet comes a second later: {metrics:?}");
    assert_eq!(server.seen().len() as f64, metrics["sent"], "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_answer_counts_until_the_end_and_a_full_socket_takes_nothing() {
    let (server, folder) =
        (Server::start(Faults { is_deaf: true, ..Faults::default() }).await, tempfile::tempdir().expect("a folder"));
    let target = server.address.to_string();
    let text = sending("", "").replace("settle = \"5s\"", "settle = \"1s\"");
    let (output, report) = run(folder.path(), &text, &["--target", &target]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = report.expect("a report").metrics;
    assert!(metrics["unacknowledged"] > 0.0 && metrics["ack_max"] > 1.0, "{metrics:?}");

    // More than the sockets of both sides hold.
    let large = text.replace("devices = 20", "devices = 1");
    let large = large.replace("every = \"100ms\"", "every = \"10ms\"\nqos = 0\npad = 262144");
    let (output, report) = run(folder.path(), &large, &["--target", &target]);
    assert!(output.status.success(), "{}", said(&output));
    let metrics = report.expect("a report").metrics;
    assert!(metrics["unsent"] > 0.0, "{metrics:?}");
    assert_eq!(metrics["acknowledged"] + metrics["unsent"], metrics["due"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_finds_out_a_server_that_acknowledges_and_delivers_nothing() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let ear = "[[fleet]]\nname = \"ear\"\ndevices = 1\ndevice = \"ear\"\nsubscribe = [{ filter = \"t/+\" }]\n";
    let text = sending(&format!("ledger = true\n{ear}"), "").replace("settle = \"5s\"", "settle = \"1s\"");
    let (output, report) = run(folder.path(), &text, &["--target", &server.address.to_string(), "--workers", "2"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let report = report.expect("a report");
    assert_eq!(report.metrics["ledger_lost"], report.metrics["acknowledged"]);
    assert!(said(&output).contains("ledger ear: BROKEN") && said(&output).contains("lost, smallest: d-0 #0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_speak_tls_and_trust_no_other_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let (acceptor, _) = tls(folder.path());
    let server = Server::start_with(Faults::default(), Some(acceptor)).await;
    let target = server.address.to_string();
    let arguments = ["--target", &target];
    let secure = |authority: &str| {
        sending(
            &format!("thresholds = [\"acknowledged_share == 1\"]\ntls = {{ authority = \"{authority}\" }}"),
            "protocol = \"mqtts\"",
        )
    };
    let (output, _) = run(folder.path(), &secure("ca.pem"), &arguments);
    assert!(output.status.success(), "{}", said(&output));
    let other = tempfile::tempdir().expect("a folder");
    tls(other.path());
    let other = other.path().join("ca.pem").display().to_string();
    let (output, report) = run(folder.path(), &secure(&other), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(report.is_some_and(|report| report.metrics["acknowledged"] < 1.0 && report.metrics["unsent"] > 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_are_compared() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let (output, _) = run(folder.path(), &sending("", ""), &["--target", &server.address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let report = folder.path().join("out/report.json");
    let compare = |second: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drover-load"));
        command.arg("compare").arg(&report).arg(second).output().expect("it starts")
    };
    let same = compare(&report);
    assert!(
        same.status.success() && said(&same).lines().any(|line| line.starts_with("due ") && line.ends_with("1.00"))
    );
    assert_eq!(compare(&folder.path().join("scenario.toml")).status.code(), Some(2));
}
