//! Workers that are started elsewhere and come to the controller, and the objects of Kubernetes that start them.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use drover_load::guarded::Guarded;

use crate::runs::{run, said, sending};
use crate::server::{Faults, Server};

fn load() -> Command {
    Command::new(env!("CARGO_BIN_EXE_drover-load"))
}

/// An address that nobody listens at.
fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_come_share_the_devices_as_those_do_that_are_started() {
    let (server, folder) = (Server::start(Faults::default()).await, tempfile::tempdir().expect("a folder"));
    let (controller, target) = (free(), server.address.to_string());
    // They are there before the controller is.
    let workers = [0, 1].map(|_| {
        let mut command = load();
        command.args(["worker", "--controller", &controller]).stdout(Stdio::null());
        Guarded::start(&mut command).expect("it starts")
    });
    let text = sending("thresholds = [\"acknowledged_share == 1\", \"errors == 0\"]", "");
    let arguments = ["--target", &target, "--listen", &controller, "--workers", "2"];
    let (output, report) = run(folder.path(), &text, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("worker 2 of 2 is there"), "{}", said(&output));
    let report = report.expect("a report");
    assert_eq!((report.workers, report.metrics["connects"]), (2, 20.0));
    assert_eq!(report.metrics["acknowledged"], server.seen().len() as f64);
    drop(workers);
}

#[test]
fn a_worker_that_goes_away_ends_the_run_and_a_ledger_is_refused() {
    let (controller, folder) = (free(), tempfile::tempdir().expect("a folder"));
    let address = controller.clone();
    let leaver = std::thread::spawn(move || {
        // A worker that is gone as soon as it has its orders.
        drover_load::remote::join(&address).map(drop).expect("orders");
    });
    let (output, _) = run(folder.path(), &sending("", ""), &["--target", "127.0.0.1:1", "--listen", &controller]);
    leaver.join().expect("no panic");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("worker 0 ended before its time"), "{}", said(&output));

    let ear = "[[fleet]]\nname = \"ear\"\ndevices = 1\ndevice = \"ear\"\nsubscribe = [{ filter = \"t/+\" }]\n";
    let text = sending(&format!("ledger = true\n{ear}"), "");
    let (output, _) = run(folder.path(), &text, &["--listen", &controller]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("ledger must be absent with --listen"), "{}", said(&output));
}

#[test]
fn a_run_is_printed_as_objects_of_kubernetes_and_a_name_it_does_not_take_is_refused() {
    let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/shadow.toml");
    let print = |name: &str| {
        let mut command = load();
        command.args(["kubernetes", scenario, "--workers", "8", "--name", name, "--", "--target", "ingress:1883"]);
        command.output().expect("it starts")
    };
    let output = print("load");
    assert!(output.status.success(), "{}", said(&output));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let jobs: Vec<_> = list["items"].as_array().into_iter().flatten().filter(|item| item["kind"] == "Job").collect();
    let arguments = |number: usize| jobs[number]["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(arguments(0).contains(r#""--workers","8""#) && arguments(0).ends_with(r#""--target","ingress:1883"]"#));
    assert_eq!(arguments(1), r#"["worker","--controller","load:7100"]"#);
    assert_eq!(jobs[1]["spec"]["completions"], 8);
    assert_eq!(list["items"][0]["data"]["shadow.toml"], std::fs::read_to_string(scenario).expect("readable"));
    let output = print("Load.1");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("name must be 1 to 50 of a-z, 0-9 and -"), "{}", said(&output));
}
