//! A scenario against another broker: mosquitto, where it is installed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use drover_load::guarded::Guarded;

use crate::runs::{run, said};

/// How long it may take to start.
const LOOKS_MAX: usize = 500;
const LOOK: Duration = Duration::from_millis(20);

/// The executable; `None` after saying so where it is missing.
pub fn program() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let sbin = PathBuf::from("/usr/sbin");
    let mut found = std::env::split_paths(&folders).chain([sbin]).map(|folder| folder.join("mosquitto"));
    let program = found.find(|file| file.is_file());
    if program.is_none() {
        println!("NOT RUN: mosquitto is missing");
    }
    program
}

/// A broker of its own for one test.
struct Mosquitto {
    _running: Guarded,
    address: SocketAddr,
}

impl Mosquitto {
    /// Starts it on a free port; `None` after saying so where it is missing.
    #[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
    fn start() -> Option<Self> {
        let program = program()?;
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let mut command = Command::new(program);
        command.args(["-p", &address.port().to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let mosquitto = Self { _running: Guarded::start(&mut command).expect("it starts"), address };
        for _ in 0..LOOKS_MAX {
            if TcpStream::connect(address).is_ok() {
                return Some(mosquitto);
            }
            std::thread::sleep(LOOK);
        }
        panic!("mosquitto did not start");
    }
}

#[test]
fn a_subscriber_of_mosquitto_gets_every_message_once_and_in_order() {
    let Some(mosquitto) = Mosquitto::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let text = r#"
        title = "mosquitto"
        duration = "4s"
        settle = "1s"
        ledger = true
        thresholds = ["acknowledged_share == 1", "ledger_lost == 0", "received > 500", "answered > 0", "end_to_end_p99 < 5s"]
        [[fleet]]
        name = "ear"
        devices = 1
        device = "ear"
        v5 = true
        subscribe = [{ filter = "t/#" }]
        [[fleet]]
        name = "lamps"
        devices = 2
        device = "lamp-{i}"
        answer = [{ filter = "t/lamp-is-told/{i}", ending = ["told/0", "done"], payload = '{"was":{state}}' }]
        [[fleet]]
        name = "devices"
        devices = 30
        device = "d-{i}"
        arrive = { after = "2s" }
        [fleet.publish]
        topic = "t/{device}"
        every = "50ms"
        payload = '{"device":"{device}","n":{n},"sent_us":{sent_us}}'
        [[fleet]]
        name = "switch"
        devices = 1
        device = "switch"
        arrive = { after = "2s" }
        [fleet.publish]
        topic = "t/lamp-is-told/0"
        every = "200ms"
        payload = '{"device":"{device}","n":{n},"state":{"on":true}}'
    "#;
    let (output, report) = run(folder.path(), text, &["--target", &mosquitto.address.to_string(), "--workers", "2"]);
    assert!(output.status.success(), "{}", said(&output));
    let report = report.expect("a report");
    assert_eq!(report.metrics["ledger_reordered"], 0.0);
    assert!(report.metrics["received"] > report.metrics["answered"]);
}
